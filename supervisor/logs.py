"""Log lines of managed workers: from each life of one through its own pipe to standard error and to its file.

One MultiProcessingHandler per life, made before the fork, because a queue that was shared would be silenced
by one producer that is killed inside it. Its thread ends when the last process that has the writing end is
dead, so the nursery must not keep it (`Life.parent`). The threads write under `Logs.lock`, which the nursery
holds while it forks: no lock is ever copied in the hands of a thread that the child does not have.
Who dies when: a worker in the middle of a line, and that line is missing; the nursery, and the worker's
next line fails in the worker's own thread. Neighbours: `nursery`'s wards, `log_files`, `priority`.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from multiprocessing_logging import MultiProcessingHandler

from supervisor.log_files import LogFile, path_of
from supervisor.priority import JsonFormatter, TextFormatter, date, marked
from supervisor.stderr import COMPLAIN_S, Stderr

TEXT_MAX: Final = 1 << 20
"""Characters of one record; a longer one (one with much in `extra`) is told of, not sent."""
RECORD_MAX: Final = 8 << 20
"""Bytes of one record on the pipe; whoever sends more is not heard any further in this life."""
WAITING_MAX: Final = 10_000
"""Lines of one worker that wait for the nursery; beyond it they are dropped where they are made."""
PROCESSES_MAX: Final = 256
"""Processes of one worker whose line numbers are followed."""
LOOK_S: Final = 60.0
"""How often a receiving thread wakes where nothing is said."""
PATIENCE_S: Final = 5.0
"""How long children of a dead worker may go on logging; then their pipe is cut."""
CLOSE_S: Final = 0.1
"""How often the closing thread looks at lives that ended."""


@dataclass(frozen=True, slots=True)
class Said:
    """One record as it crosses the pipe; only plain values do."""

    pid: int
    number: int
    """Counts the lines of this process, from 1."""
    created: float
    """s since 1970."""
    level: int
    json: bool
    text: str

    def plain(self) -> tuple[Any, ...]:
        """As it is pickled."""
        return self.pid, self.number, self.created, self.level, self.json, self.text

    @classmethod
    def of(cls, plain: Any) -> Said | None:
        """What `plain` made; None = it is something else."""
        kinds = (int, int, float, int, bool, str)
        if not isinstance(plain, tuple) or tuple(map(type, plain)) != kinds:
            return None
        return cls(*plain)


class _Primitives(pickle.Unpickler):
    """Reads numbers and text: a record never makes this process import or call anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Nothing is found."""
        raise pickle.UnpicklingError(f"{module}.{name} in a log record")


class _Mouth:
    """A multiprocessing.Queue whose receiver survives whatever comes out of it.

    The child puts; the receiving thread gets and closes; the closing thread cuts. `_guard` keeps the last
    two from using a number that was closed and given away again.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._guard = threading.Lock()
        self.reader: int = inner._reader.fileno()
        self.writer: int = inner._writer.fileno()

    def get(self, timeout: float) -> Said | None:
        """The next record; None = it cannot be read. Raises Empty, and EOFError or OSError at the end."""
        inner = self._inner
        if not inner._poll(max(timeout, LOOK_S)):
            raise queue.Empty
        data = inner._reader._recv_bytes(RECORD_MAX)
        if data is None:
            raise OSError(errno.EMSGSIZE, "a log record is too long")
        try:
            inner._sem.release()
            data.seek(0)
            return Said.of(_Primitives(data).load())
        except Exception:  # noqa: BLE001 (whatever a worker writes, the others are heard)
            return None

    def put_nowait(self, said: Said) -> None:
        """In the child: hand a record to its sending thread; one too many is dropped: a gap."""
        if self._inner.qsize() < WAITING_MAX:
            self._inner.put_nowait(said.plain())

    def qsize(self) -> int:
        """Records that were put and never got: while the worker lives, those on their way."""
        return int(self._inner.qsize())

    def join_thread(self) -> None:
        """The receiving side has no thread of the queue's."""

    def close(self) -> None:
        """In the nursery, when nothing more can come; again is fine."""
        with self._guard:
            self._inner.close()
            self._inner._reader.close()

    def close_writer(self) -> None:
        """In the nursery, right after the fork."""
        self._inner._writer.close()

    def close_reader(self) -> None:
        """In the child."""
        self._inner._reader.close()

    def after_fork(self) -> None:
        """In a child of the child: the sending thread was not forked; what it had is its parent's to send."""
        self._inner._after_fork()

    def cut(self) -> None:
        """Wake the receiver wherever it waits, and let it find nothing: no end of file comes by itself.

        One byte makes a blocked read return; without blocking the next one fails, which ends the thread.
        """
        with self._guard:
            if self._inner._reader.closed:
                return
            try:
                flags = fcntl.fcntl(self.reader, fcntl.F_GETFL)
                fcntl.fcntl(self.reader, fcntl.F_SETFL, flags | os.O_NONBLOCK)
                writer = os.open(f"/proc/self/fd/{self.reader}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return  # tried again in CLOSE_S
            try:
                os.write(writer, b"\0")
            except OSError:
                pass  # full: then nothing is blocked
            finally:
                os.close(writer)


class _Handler(MultiProcessingHandler):  # type: ignore[misc] # (the library has no types)
    """The library's handler, sending plain values, numbered, in the form that the child was told."""

    mouth: _Mouth

    def __init__(self, name: str, sink: logging.Handler) -> None:
        self.form: logging.Formatter = TextFormatter()
        self.json = False
        self._number = 0
        super().__init__(name, sink)

    @property
    def queue(self) -> _Mouth:
        """What the library's loop reads."""
        return self.mouth

    @queue.setter
    def queue(self, made: Any) -> None:
        self.mouth = _Mouth(made)

    @property
    def receiving(self) -> bool:
        """Whether the thread still waits for the worker."""
        return bool(self._receive_thread.is_alive())

    def begin(self, form: logging.Formatter, json: bool) -> None:
        """In the child: from now on its root logger writes here."""
        self.form, self.json = form, json
        self.mouth.close_reader()
        os.register_at_fork(after_in_child=self._reborn)

    def close(self) -> None:
        """Also while the worker lives, as at the interpreter's end: without the library's five seconds."""
        if self.receiving:
            self.mouth.cut()
        super().close()

    def _reborn(self) -> None:
        """In a child of the child, which counts its own lines."""
        self._number = 0
        self.mouth.after_fork()

    def _format_record(self, record: logging.LogRecord) -> Said:
        """The record in text; under the handler's lock, so numbers and lines have the same order."""
        self._number += 1
        return Said(os.getpid(), self._number, record.created, record.levelno, self.json, self._text(record))

    def _text(self, record: logging.LogRecord) -> str:
        try:
            text = self.form.format(record)
            return (
                text if len(text) <= TEXT_MAX else self._spare(record, f"{len(text)} characters are too many")
            )
        except Exception as error:  # noqa: BLE001 (an argument that cannot be shown must not cost the line)
            return self._spare(record, f"its arguments cannot be shown: {type(error).__name__}")

    def _spare(self, record: logging.LogRecord, why: str) -> str:
        """What can be told of a record that cannot be sent."""
        about = {key: vars(record)[key] for key in ("name", "levelno", "levelname", "created", "process")}
        return self.form.format(logging.makeLogRecord({**about, "msg": f"{record.msg!s:.500} ({why})"}))


class Life:
    """The log of one life of a worker, from before its fork until all of it was read."""

    def __init__(self, title: str, handler: _Handler) -> None:
        self.title = title
        self.handler = handler
        self.lines = 0
        """Records that arrived; written by the receiving thread alone."""
        self.missing = 0
        """Records that were made and will never arrive, as far as numbers tell."""
        self.ended_at: float | None = None
        """When the nursery reaped it."""
        self._numbers: dict[int, int] = {}

    @property
    def descriptors(self) -> tuple[int, int]:
        """The two that the child must not close before `enter`."""
        return self.handler.mouth.reader, self.handler.mouth.writer

    @property
    def gaps(self) -> int:
        """Records of this life that are lost, those that died with the worker among them."""
        unsent = 0 if self.handler.receiving else self.handler.mouth.qsize()
        return self.missing + max(0, unsent)

    def enter(self, level: str, log_format: str) -> None:
        """In the child, when it has closed what is not its own: log through here and nowhere else."""
        json = log_format == "json"
        self.handler.begin(JsonFormatter(worker=self.title) if json else TextFormatter(), json)
        root = logging.getLogger()
        root.handlers[:] = [self.handler]
        root.setLevel(level.upper())

    def parent(self) -> None:
        """In the nursery right after the fork, also a failed one: the writing end is the child's alone."""
        self.handler.mouth.close_writer()

    def note(self, said: Said) -> None:
        """Count a record that arrived, and those before it that did not."""
        self.lines += 1
        before = self._numbers.get(said.pid, 0)
        self.missing += max(0, said.number - before - 1)
        if said.pid in self._numbers or len(self._numbers) < PROCESSES_MAX:
            self._numbers[said.pid] = max(before, said.number)

    def finish(self) -> None:
        """Close what is left; waits for nobody once the thread has ended."""
        self.handler.close()
        self.handler.mouth.close()


class _Sink(logging.Handler):
    """Where the library's thread puts what it received."""

    def __init__(self, take: Callable[[Said | None], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: Any) -> None:
        """One record, or None for one that cannot be read. Never raises."""
        self._take(record)


class Logs:
    """All lives of all workers. The nursery calls `begin` and `end`, and holds `lock` while it forks."""

    def __init__(
        self, runtime: str, stderr: Stderr, journal: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime
        self._stderr = stderr
        self._journal = journal
        self._clock = clock
        self.lock = threading.Lock()
        """Held by a receiving thread while it writes one record, and by the nursery while it forks. What it
        guards: standard error, the files and the counts below. Nobody holds it while waiting."""
        self._files: dict[str, LogFile] = {}
        self._living: dict[str, int] = {}
        """Lives by title: a file is closed when the last one has been read."""
        self._past: dict[str, int] = {}
        """Gaps of the lives that are over, by title."""
        self._ended: queue.SimpleQueue[Life] = queue.SimpleQueue()
        self._said_at = -COMPLAIN_S
        self.unwritten = 0
        """Records that no file took."""
        threading.Thread(target=self._close_ended, name="log-closer", daemon=True).start()

    def begin(self, title: str) -> Life:
        """Before a fork. Raises OSError where no pipe, semaphore or thread can be had."""
        lives: list[Life] = []
        try:
            handler = _Handler(f"log-{title}", _Sink(lambda said: self._take(lives[0], said)))
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "no thread can be started") from error
        life = Life(title, handler)
        lives.append(life)
        with self.lock:
            self._living[title] = self._living.get(title, 0) + 1
        return life

    def end(self, life: Life) -> None:
        """When the worker was reaped, or was never forked: at once; the rest is read and closed elsewhere."""
        if life.ended_at is None:
            life.ended_at = self._clock()
            self._ended.put(life)

    def gaps(self, title: str) -> int:
        """Records of this worker that were lost in the lives that are over."""
        with self.lock:
            return self._past.get(title, 0)

    def forget(self, title: str) -> None:
        """Its table was removed: nothing is counted for it any more."""
        with self.lock:
            self._past.pop(title, None)

    def _take(self, life: Life, said: Said | None) -> None:
        """In a receiving thread: one record."""
        with self.lock:
            if said is None:
                return  # its number is missing, and the next one tells
            life.note(said)
            lines = said.text.splitlines() or [""]
            shown = "\n".join(lines if said.json else [f"{life.title}: {line}" for line in lines])
            shown = marked(shown, said.level) if self._journal else shown
            self._stderr.write(f"{shown}\n".encode(errors="backslashreplace"))
            kept = "\n".join(lines) if said.json else f"{date(said.created)} " + "\n".join(lines)
            self._keep(life.title, f"{kept}\n".encode(errors="backslashreplace"))

    def _keep(self, title: str, data: bytes) -> None:
        """Write to the worker's file; a disk that is full costs the line there, and is said now and then."""
        try:
            if title not in self._files:
                self._files[title] = LogFile(path_of(self._runtime, title))
            self._files[title].write(data)
        except (OSError, ValueError) as error:
            self.unwritten += 1
            now = self._clock()
            if now - self._said_at >= COMPLAIN_S:
                self._said_at = now
                text = f"breakerd: {self.unwritten} lines of workers are not in their files: {error}"
                shown = marked(text, logging.WARNING) if self._journal else text
                self._stderr.write(f"{shown}\n".encode(errors="backslashreplace"))

    def _close_ended(self) -> None:
        """The closing thread: a life is closed when its thread is over, by itself or because it was cut."""
        ended: list[Life] = []
        while True:
            try:
                ended.append(self._ended.get(timeout=CLOSE_S if ended else None))
            except queue.Empty:
                pass
            for life in list(ended):
                if life.handler.receiving:
                    if self._clock() - (life.ended_at or 0.0) > PATIENCE_S:
                        life.handler.mouth.cut()
                    continue
                ended.remove(life)
                self._finish(life)

    def _finish(self, life: Life) -> None:
        life.finish()
        with self.lock:
            self._past[life.title] = self._past.get(life.title, 0) + life.gaps
            self._living[life.title] -= 1
            if not self._living[life.title]:
                del self._living[life.title]
                file = self._files.pop(life.title, None)
                if file is not None:
                    file.close()
