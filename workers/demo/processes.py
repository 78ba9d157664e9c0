"""Starts the demo's processes and ends every one of them, on every path. Knows nothing of what they do.

Each gets a session of its own (so that Ctrl-C reaches the demo alone, and its whole group can be ended by
id) and a log file, and is tied to the demo by `leash`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import workers

STOP_S: Final = 3.0
"""How long processes may take to end after SIGTERM before they are killed."""
LOG_TAIL_BYTES: Final = 2000
POLL_S: Final = 0.02
ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(workers.__file__)))
"""Where the packages are, so that a child finds them whatever its working directory."""


@dataclass(slots=True)
class Running:
    """One process that the demo started."""

    name: str
    process: subprocess.Popen[bytes]
    log: str
    ends: bool = False
    """True when its end is expected from now on."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """Send kill -9; its end is expected then."""
        self.ends = True
        self.process.kill()

    def last_words(self) -> str:
        """The end of what it printed."""
        return tail(self.log)


def tail(path: str) -> str:
    """The end of a log file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without anything that steers breakerd, and with `changes`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BREAKERD_")}
    path = kept.get("PYTHONPATH")
    kept["PYTHONPATH"] = ROOT + (os.pathsep + path if path else "")
    return kept | dict(changes)


class Troupe:
    """All processes of the demo; leaving the `with` block ends them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.running: list[Running] = []

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs."""
        self.close()

    def start(self, name: str, arguments: list[str], changes: Mapping[str, str]) -> Running:
        """Start `python ARGUMENTS` with those changes to the environment."""
        log = f"{self._directory}/{name}.log"
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment(changes),
                start_new_session=True,
            )
        running = Running(name, process, log)
        self.running.append(running)
        return running

    def fallen(self) -> Running | None:
        """A process that ended although nobody expected it to."""
        return next((one for one in self.running if not one.ends and one.code is not None), None)

    def close(self) -> None:
        """End everything: SIGTERM first, kill -9 to whole process groups after `STOP_S`."""
        for one in self.running:
            if one.code is None:
                one.process.terminate()
        deadline = time.monotonic() + STOP_S
        while any(one.code is None for one in self.running) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for one in self.running:
            if one.code is None:
                # The leader is not reaped, so its id is still this group's and nobody else's.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(one.pid, signal.SIGKILL)
                one.process.wait()
        self.running.clear()
