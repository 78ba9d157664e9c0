"""Wards with real processes, in a loop that a test turns; the daemon is a list of what it was told."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor import descriptors
from supervisor.logs import Logs
from supervisor.reports import Reports
from supervisor.settings_workers import WorkerTable
from supervisor.stderr import Stderr
from supervisor.ward import Home, Ward, WardSpec
from supervisor.wards import Wards

WAIT_S: Final = 10.0
TARGETS: Final = "tests.supervisor.ward_targets"


def table(name: str, what: str, *args: str | int, **more: Any) -> WorkerTable:
    """A table whose target is that one of `ward_targets`; it settles at once and waits little."""
    quick = {"start_s": 0.0, "backoff_s": 0.01, "backoff_max_s": 0.01, "stop_timeout_s": 5.0, **more}
    return WorkerTable(name, f"{TARGETS}:{what}", args=args, **quick)


class Rig:
    """One set of wards."""

    def __init__(self, folder: Path) -> None:
        number = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        logs = Logs(str(folder), Stderr(number, time.monotonic), journal=False)
        self.poll = select.poll()
        self.told: list[tuple[bytes, Any, tuple[int, ...]]] = []
        """What the daemon was told: kind, JSON, descriptors."""
        self.full = False
        """The daemon's queue takes nothing."""
        self.reports = Reports(self._send)
        self.reports.serving()
        self.home = Home("/nowhere/breakerd.sock", logs, lambda: 0.0)
        self.wards = Wards(self.poll, self.home, self.reports)

    def _send(self, data: bytes, numbers: tuple[int, ...]) -> bool:
        if not self.full:
            assert len(data) <= descriptors.MESSAGE_MAX
            self.told.append((data[:1], json.loads(data[1:]), numbers))
        return not self.full

    def apply(self, *tables: WorkerTable | WardSpec) -> None:
        """Be what these say."""
        specs = [one if isinstance(one, WardSpec) else WardSpec(one) for one in tables]
        self.wards.apply(specs, time.monotonic())

    def turn(self) -> None:
        """One turn of the loop; waits as the nursery would, but not longer than 20 ms."""
        now = time.monotonic()
        wait_s = min(0.02, max(0.0, self.wards.next_time(now) - now))
        ready = {number for number, _ in self.poll.poll(1000.0 * wait_s)}
        self.wards.turn(ready, time.monotonic())
        self.reports.flush()

    def command(self, verb: str, name: str) -> list[str]:
        """As an operator says it; the daemon is told of it at once."""
        titles = self.wards.command(verb, name, time.monotonic())
        self.reports.flush()
        return titles

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until this is true."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, (self.states(), self.told[-5:])
            self.turn()

    def ward(self, title: str) -> Ward:
        """The one with this title."""
        return next(ward for ward in self.wards if ward.title == title)

    def states(self) -> dict[str, str]:
        """Title -> state, of all."""
        return {ward.title: ward.course.state.value for ward in self.wards}

    def history(self, title: str) -> list[str]:
        """The states that the daemon was told of, one after the other."""
        told = [said["state"] for kind, said, _ in self.told if kind == b"M" and said["title"] == title]
        return [state for number, state in enumerate(told) if number == 0 or told[number - 1] != state]

    def last(self, title: str) -> Any:
        """The last that the daemon was told of it."""
        return next(said for kind, said, _ in reversed(self.told) if kind == b"M" and said["title"] == title)

    def seen(self, folder: Path, name: str = "begun") -> Any:
        """Wait for what a worker says of itself."""
        self.until((folder / name).exists)
        return json.loads((folder / name).read_text())

    def close(self) -> None:
        """End all, the hard way."""
        self.wards.kill()
        self.wards.leave(time.monotonic())
        for ward in list(self.wards):
            ward.signal(signal.SIGKILL)
        self.until(lambda: not self.wards.pids() and self.read())

    def read(self) -> bool:
        """True when the logs of all that have ended are closed."""
        return not self.home.logs._living


@pytest.fixture
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Wards that are ended whatever the test did."""
    made = Rig(tmp_path_factory.mktemp("runtime"))
    yield made
    made.close()
