"""One life's log pipe: the library's handler, made so that nothing that a worker does can hurt who reads.

Only numbers and text cross the pipe, numbered by the child; the nursery imports and calls nothing for them.
Both ends are made in the nursery before the fork: the child keeps one, `logs` says when the other is let go.
Who dies when: the child inside a record, and the reader meets the end of the pipe; the nursery, and the
child's sending thread gets EPIPE. Neighbours: `logs`. Knows no file and no other life.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import pickle
import queue
import threading
from dataclasses import dataclass
from typing import Any, Final

from multiprocessing_logging import MultiProcessingHandler

from supervisor.priority import TextFormatter

TEXT_MAX: Final = 1 << 20
"""Characters of one record; a longer one (one with much in `extra`) is told of, not sent."""
RECORD_MAX: Final = 8 << 20
"""Bytes of one record on the pipe; whoever sends more is not heard any further in this life."""
WAITING_MAX: Final = 10_000
"""Lines of one worker that wait for the nursery; beyond it they are dropped where they are made."""
NUMBER_MAX: Final = 1 << 53
"""Lines of one process; a higher number is none."""
CREATED_MAX: Final = 4e9
"""s since 1970; the year 2096."""
LOOK_S: Final = 60.0
"""How often a receiving thread wakes where nothing is said."""


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
        """What `plain` made; None = it is something else, or has a number that nobody can count or date."""
        kinds = (int, int, float, int, bool, str)
        if not isinstance(plain, tuple) or tuple(map(type, plain)) != kinds:
            return None
        said = cls(*plain)
        countable = 0 < said.number <= NUMBER_MAX and 0.0 <= said.created <= CREATED_MAX
        return said if countable else None


class _Primitives(pickle.Unpickler):
    """Reads numbers and text: a record never makes this process import or call anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Nothing is found."""
        raise pickle.UnpicklingError(f"{module}.{name} in a log record")


class _Turn:
    """Whose turn it is to write, among a worker and what it forks: a record lock on the pipe.

    The kernel takes it from a process that dies in it; the queue's own would be taken for ever, and the
    worker could neither log nor, waiting for its last line to be sent, end.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def acquire(self) -> None:
        """Wait for it. Where there are no locks, short records are whole all the same."""
        with contextlib.suppress(OSError):
            fcntl.lockf(self._number, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let the next one write."""
        with contextlib.suppress(OSError):
            fcntl.lockf(self._number, fcntl.LOCK_UN)


class Mouth:
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

    def begin(self) -> None:
        """In the child, before its sending thread."""
        self._inner._reader.close()
        self._inner._wlock = _Turn(self.writer)
        self._inner._ignore_epipe = True  # nobody reads any more: not a traceback a line

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


class PipeHandler(MultiProcessingHandler):  # type: ignore[misc] # (the library has no types)
    """The library's handler, sending plain values, numbered, in the form that the child was told."""

    mouth: Mouth

    def __init__(self, name: str, sink: logging.Handler) -> None:
        self.form: logging.Formatter = TextFormatter()
        self.json = False
        self._number = 0
        try:
            super().__init__(name, sink)
        except RuntimeError:
            # No thread: this handler and its thread hold each other, so nobody else would close these.
            self.mouth.close_writer()
            self.mouth.close()
            raise

    @property
    def queue(self) -> Mouth:
        """What the library's loop reads."""
        return self.mouth

    @queue.setter
    def queue(self, made: Any) -> None:
        self.mouth = Mouth(made)

    @property
    def receiving(self) -> bool:
        """Whether the thread still waits for the worker."""
        return bool(self._receive_thread.is_alive())

    def settle(self, seconds: float) -> None:
        """Wait, not longer than that, until all is read."""
        self._receive_thread.join(seconds)

    def begin(self, form: logging.Formatter, json: bool) -> None:
        """In the child: from now on its root logger writes here."""
        self.form, self.json = form, json
        self.mouth.begin()
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
