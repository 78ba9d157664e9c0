"""A control group of one resource for single processes of a test, in the first or the second version.

A process that is put in takes nothing along that it has already; its children are born in it. Where the
machine has no such controller, or does not let us have one, the test is named as not run. `close` lets the
processes go again. Neighbours: `tests.conftest` (the account of what was not run).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final, Self

from tests.conftest import could_not_run
from tests.live.house import wait_for

PERIOD_US: Final = 1_000_000
"""The longest that there is: a process that used its share waits for the rest of it."""


class Group:
    """One group of the controller `memory`, `cpu` or `pids`; `identity` names what is not run without it."""

    def __init__(self, controller: str, identity: str) -> None:
        self._controller = controller
        root, self._second = _find(controller)
        if root is None:
            could_not_run(identity, f"there is no control group of {controller} here")
        self._root = root
        try:
            if self._second:
                (root / "cgroup.subtree_control").write_text(f"+{controller}")
            self._path = Path(tempfile.mkdtemp(prefix="bkd-", dir=root))
        except OSError as error:
            could_not_run(identity, f"no control group of {controller} can be made: {error.strerror}")

    def _write(self, name: str, value: object) -> None:
        (self._path / name).write_text(str(value))

    def add(self, *pids: int) -> Self:
        """Put processes in."""
        for pid in pids:
            self._write("cgroup.procs", pid)
        return self

    def memory(self, bytes_max: int) -> Self:
        """What they may have beyond what they had before they came; whoever needs more is killed."""
        self._write("memory.max" if self._second else "memory.limit_in_bytes", bytes_max)
        return self

    def killed(self) -> int:
        """How many the kernel has killed for want of memory."""
        text = (self._path / ("memory.events" if self._second else "memory.oom_control")).read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    def cpu(self, share: float) -> Self:
        """The share of one processor that they may use of each second; 0.0 = as much as they like."""
        quota = max(1000, int(share * PERIOD_US))
        if self._second:
            self._write("cpu.max", f"{quota if share else 'max'} {PERIOD_US}")
        else:
            self._write("cpu.cfs_period_us", PERIOD_US)
            self._write("cpu.cfs_quota_us", quota if share else -1)
        return self

    def tasks(self, count: int | None) -> Self:
        """How many processes and threads there may be in it; None = any number."""
        self._write("pids.max", "max" if count is None else count)
        return self

    def close(self) -> None:
        """Lift the limit, let everybody go and remove it."""
        with contextlib.suppress(OSError):
            if self._controller == "cpu":
                self.cpu(0.0)
            elif self._controller == "pids":
                self.tasks(None)
        wait_for("the group is gone", self._removed, 5.0)

    def _removed(self) -> bool:
        for pid in (self._path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._root / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            self._path.rmdir()
        return not self._path.exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _find(controller: str) -> tuple[Path | None, bool]:
    """Where groups of that controller are made, and whether they are of the second version."""
    with open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    for _, place, kind, options, *_ in mounts:
        if kind == "cgroup" and controller in options.split(",") and os.access(place, os.W_OK):
            return Path(place), False
    for _, place, kind, *_ in mounts:
        known = Path(place) / "cgroup.controllers"
        if kind == "cgroup2" and os.access(place, os.W_OK) and controller in known.read_text().split():
            return Path(place), True
    return None, False
