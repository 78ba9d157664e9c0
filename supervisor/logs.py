"""Log lines of managed workers: from each life of one through its own pipe to standard error and to its file.

One MultiProcessingHandler per life, made before the fork, because a queue that was shared would be silenced
by one producer that is killed inside it. Its thread ends when the last process that has the writing end is
dead, so the nursery must not keep it (`Life.parent`). The threads write under `Logs.lock`, which the nursery
holds while it forks: no lock is ever copied in the hands of a thread that the child does not have.
Neighbours: `log_pipe` (one life's pipe), `log_files`, `ward` (which forks), `nursery`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from supervisor.log_files import LogFile, path_of, remove, rename
from supervisor.log_pipe import PipeHandler, Said
from supervisor.priority import JsonFormatter, TextFormatter, date, marked
from supervisor.stderr import COMPLAIN_S, Stderr

PROCESSES_MAX: Final = 256
"""Processes of one worker whose line numbers are followed."""
PATIENCE_S: Final = 5.0
"""How long children of a dead worker may go on logging; then their pipe is cut."""
CLOSE_S: Final = 0.1
"""How often the closing thread looks at lives that ended."""


class Life:
    """The log of one life of a worker, from before its fork until all of it was read."""

    def __init__(self, title: str, handler: PipeHandler) -> None:
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
        self._lives: set[Life] = set()
        """All that are not closed yet."""
        self._gone: set[str] = set()
        """Whose files are to be removed."""
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
            handler = PipeHandler(f"log-{title}", _Sink(lambda said: self._take(lives[0], said)))
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "no thread can be started") from error
        life = Life(title, handler)
        lives.append(life)
        with self.lock:
            self._gone.discard(title)
            self._count(title, 1)
            self._lives.add(life)
        return life

    def end(self, life: Life) -> None:
        """When the worker was reaped, or was never forked: at once; the rest is read and closed elsewhere."""
        if life.ended_at is None:
            life.ended_at = self._clock()
            self._ended.put(life)

    def gaps(self, title: str) -> int:
        """Records of this worker that were lost in the lives that are over. Waits for no receiving thread."""
        return self._past.get(title, 0)

    def rename(self, life: Life | None, old: str, new: str) -> None:
        """A worker, and its present life, is called otherwise from now on."""
        with self.lock:
            self._past[new] = self._past.get(new, 0) + self._past.pop(old, 0)
            self._close(old)
            with contextlib.suppress(OSError, ValueError):
                rename(path_of(self._runtime, old), path_of(self._runtime, new))
            if life is not None:
                life.title = new
                self._count(old, -1)
                self._count(new, 1)

    def forget(self, title: str) -> None:
        """Its table was removed: when its last life is read to its end, nothing of it is kept."""
        with self.lock:
            self._gone.add(title)
            self._count(title, 0)

    def settle(self, seconds: float) -> None:
        """At the nursery's end: wait, not longer than that, until the lives that ended are read."""
        deadline = self._clock() + seconds
        with self.lock:
            ended = [life for life in self._lives if life.ended_at is not None]
        for life in ended:
            life.handler.settle(max(0.0, deadline - self._clock()))

    def _count(self, title: str, more: int) -> None:
        """So many lives more; with the last one goes what is open for them."""
        self._living[title] = self._living.get(title, 0) + more
        if self._living[title]:
            return
        del self._living[title]
        self._close(title)
        if title in self._gone:
            self._gone.remove(title)
            self._past.pop(title, None)
            with contextlib.suppress(OSError, ValueError):
                remove(path_of(self._runtime, title))

    def _close(self, title: str) -> None:
        file = self._files.pop(title, None)
        if file is not None:
            file.close()

    def _take(self, life: Life, said: Said | None) -> None:
        """In a receiving thread: one record."""
        with self.lock:
            if said is None:
                return  # its number is missing, and the next one tells
            life.note(said)
            lines = said.text.splitlines() or [""]
            shown = "\n".join(lines if said.json else [f"{life.title}: {line}" for line in lines])
            self._show(shown, said.level)
            kept = "\n".join(lines) if said.json else f"{date(said.created)} " + "\n".join(lines)
            self._keep(life.title, f"{kept}\n".encode(errors="backslashreplace"))

    def _show(self, text: str, level: int) -> None:
        """Write to standard error, in the form of whoever reads it."""
        shown = marked(text, level) if self._journal else text
        self._stderr.write(f"{shown}\n".encode(errors="backslashreplace"))

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
                self._show(text, logging.WARNING)

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
            self._lives.discard(life)
            self._past[life.title] = self._past.get(life.title, 0) + life.gaps
            self._count(life.title, -1)
