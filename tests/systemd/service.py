"""breakerd as a service in a box: installed by its own command, asked from out here, with workers beside it.

The workers (`tests.faults.crew`) run in the box but outside of the unit, as the applications of a host do.
Neighbours: `box` (systemd), `tests.live.hand` (the line to a worker), `tests.faults.judge` (the verdict).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from ipc import control
from ipc.errors import ControlError
from tests.live.hand import Hand
from tests.live.house import alive, wait_for
from tests.systemd.box import PYTHON, SHARED, Box

UNIT: Final = "breakerd.service"
SOCKET: Final = "/run/breakerd/breakerd.sock"
BACK_S: Final = 15.0
"""Within this a killed service answers again."""


class Service:
    """The unit breakerd.service of one box, and its workers."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.ledgers = box.shared / "ledgers"
        self.ledgers.mkdir()
        self.ledgers.chmod(0o777)
        self.hands: list[Hand] = []

    def install(self, *settings: str) -> Service:
        """Write the units with `breakerd install-units`; `settings` are lines of a drop-in's [Service]."""
        self.box.run("/opt/env/bin/breakerd", "install-units")
        if settings:
            text = "\n".join(("[Service]", *settings, ""))
            self.box.write("/etc/systemd/system/breakerd.service.d/test.conf", text)
        self.box.run("systemd-sysusers")
        self.box.run("systemd-tmpfiles", "--create", "breakerd.conf")
        self.box.run("systemctl", "daemon-reload")
        return self

    def start(self) -> Service:
        """Start it; returns when systemd says that it is ready."""
        self.systemctl("start", UNIT)
        return self

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command to systemd."""
        return self.box.run("systemctl", *words, check=check)

    def show(self, name: str, unit: str = UNIT) -> str:
        """One property of the unit."""
        return self.systemctl("show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, *words: str) -> str:
        """What the unit logged."""
        return self.box.run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, *words).stdout

    def drop_in(self, unit: str, name: str) -> str:
        """The path of a drop-in of that unit in the box, whose directory is made."""
        path = f"/etc/systemd/system/{unit}.d/{name}"
        self.box.path(path).parent.mkdir(parents=True, exist_ok=True)
        return path

    # --- what it says -------------------------------------------------------------------------------

    @property
    def socket(self) -> str:
        """The control socket as it is reached from out here."""
        return str(self.box.path(SOCKET))

    def ask(self, verb: str, timeout: float = 2.0, **fields: Any) -> Any:
        """One exchange, asked again while the service is between two lives."""

        def answer() -> list[Any] | None:
            with contextlib.suppress(ControlError):
                return [control.ask(self.socket, verb, timeout, **fields)]
            return None

        return wait_for(f"an answer to {verb}", answer, BACK_S)[0]

    def stats(self) -> Any:
        """What the supervisor has counted."""
        return self.ask("stats")

    def state(self, breaker: str) -> str:
        """The state of one breaker."""
        return str(self.ask("breaker", name=breaker)["breaker"]["state"])

    # --- its processes ------------------------------------------------------------------------------

    @property
    def processes(self) -> list[int]:
        """The unit's process ids as they are called out here: the nursery first."""
        group = self.box.cgroup / "system.slice" / UNIT / "cgroup.procs"
        with contextlib.suppress(OSError):
            return sorted(map(int, group.read_text().split()))
        return []

    @property
    def nursery(self) -> int:
        """The nursery's process id out here."""
        return self._pid("supervisor.daemon", False)

    @property
    def daemon(self) -> int:
        """The daemon's process id out here."""
        return self._pid("supervisor.daemon", True)

    def _pid(self, word: str, has: bool) -> int:
        def found() -> int:
            for pid in self.processes:
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_text()
                    # Between fork and exec the daemon still has the nursery's command line.
                    if line and (word in line) is has:
                        return pid
            return 0

        return wait_for("the unit has its processes", found, BACK_S)

    def life(self) -> tuple[int, int]:
        """Which lives answer now: the supervisor's own ids of nursery and daemon."""
        told = self.ask("version")
        return told["nursery_pid"], told["pid"]

    def wait_back(self, old: tuple[int, int], seconds: float = BACK_S) -> None:
        """Wait until a nursery and a daemon other than these answer."""
        wait_for("another life answers", lambda: not set(self.life()) & set(old), seconds)

    # --- its workers --------------------------------------------------------------------------------

    def hand(self, name: str = "web", **options: Any) -> Hand:
        """Start a worker process in the box, outside of every unit."""
        hand = Hand.start(
            [*self.box.enter(), PYTHON, "-m", "tests.faults.crew"],
            {"name": name, "ledgers": f"{SHARED}/ledgers", **options},
            {"PATH": os.environ["PATH"], "BREAKERD_SOCKET": SOCKET},
            self.box.shared / f"{name}-{len(self.hands)}.log",
        )
        self.hands.append(hand)
        hand.hear("up", 20.0)
        return hand

    def worker_pid(self, hand: Hand) -> int:
        """The worker itself: the hand's process is the one that entered the box for it."""
        children = Path(f"/proc/{hand.pid}/task/{hand.pid}/children").read_text().split()
        return int(children[0])

    def kill_worker(self, hand: Hand) -> None:
        """Kill -9 the worker itself."""
        with contextlib.suppress(ProcessLookupError, IndexError, OSError):
            os.kill(self.worker_pid(hand), signal.SIGKILL)

    def close(self) -> None:
        """End the workers; the rest ends with the box."""
        for hand in self.hands:
            if alive(hand.pid):
                self.kill_worker(hand)
            hand.kill()
