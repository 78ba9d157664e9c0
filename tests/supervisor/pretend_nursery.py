"""A nursery that only logs: forks workers as the real one does, and reads what came of their lines."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from supervisor.birth import close_others
from supervisor.logs import Life, Logs
from supervisor.stderr import Stderr

WAIT_S: Final = 10.0
log = logging.getLogger("app.web")


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def until(what: str, condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, in bounded time."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.005)


def say(*texts: str) -> Callable[[Life], None]:
    """A worker that says these lines."""

    def work(_: Life) -> None:
        for text in texts:
            log.info("%s", text)

    return work


def has_said(life: Life, lines: int) -> bool:
    """Whether more lines than these have arrived."""
    return life.lines > lines


class LogNursery:
    """Its standard error is a file in its runtime directory."""

    def __init__(self, runtime: Path, clock: Callable[[], float], journal: bool = False) -> None:
        self.runtime = runtime
        self.output = runtime / "stderr"
        number = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self.logs = Logs(str(runtime), Stderr(number, clock), journal, clock)

    def fork(
        self,
        title: str,
        work: Callable[[Life], object],
        log_format: str = "text",
        level: str = "debug",
        keep: tuple[int, ...] = (),
    ) -> tuple[BaseProcess, Life]:
        """One life of a worker, which has these descriptors of ours."""
        life = self.logs.begin(title)

        def child() -> None:
            close_others((*life.descriptors, *keep))
            life.enter(level, log_format)
            work(life)

        with self.logs.lock:
            process = get_context("fork").Process(target=child)
            process.start()
        life.parent()
        return process, life

    def reap(self, process: BaseProcess, life: Life, kill: bool = False) -> None:
        """Wait for its end, or make it, and close its log."""
        if kill:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        process.join(WAIT_S)
        assert process.exitcode is not None
        process.close()
        self.logs.end(life)

    def live(self, title: str, work: Callable[[Life], object], log_format: str = "text") -> Life:
        """One life to its end, read to its end."""
        process, life = self.fork(title, work, log_format)
        self.reap(process, life)
        self.settle(life)
        return life

    @staticmethod
    def settle(life: Life) -> None:
        """Wait until all that was said is written."""
        life.handler._receive_thread.join(WAIT_S)
        assert not life.handler.receiving

    def lines(self, title: str) -> list[str]:
        """What standard error has of this worker, without its name."""
        start = f"{title}: "
        return [
            line.removeprefix(start)
            for line in self.output.read_text().splitlines()
            if line.startswith(start)
        ]

    def kept(self, title: str) -> list[str]:
        """What is in the worker's file."""
        return (self.runtime / "logs" / f"{title}.log").read_text().splitlines()
