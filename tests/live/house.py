"""A whole breakerd for one test: nursery and daemon in private directories, and worker processes beside them.

Everything that a `House` starts it knows by its process id, and `close` ends all of it, stopped or not,
whatever the test did. Waiting is always for a condition with a deadline (`wait_for`), never for luck.
Neighbours: `hand` (one worker process), `conftest` (the fixtures), `tests.faults` (what is done to a house).
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import psutil

from ipc import control
from ipc.errors import ControlError
from tests.live.hand import Hand

ROOT: Final = Path(__file__).resolve().parents[2]
READY_S: Final = 10.0
"""A start that takes longer than this has failed."""
STOP_S: Final = 8.0
Found = TypeVar("Found")


class Late(AssertionError):
    """A condition did not come true before its deadline."""


def wait_for(
    what: str, condition: Callable[[], Found | None], seconds: float, every_s: float = 0.005
) -> Found:
    """The first true value of `condition`, asked every `every_s`; Late, which says `what`, if none comes."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise Late(f"not within {seconds:g} s: {what} (last: {found!r})")
        time.sleep(every_s)


def alive(pid: int) -> bool:
    """True while the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(*pids: int) -> bool:
    """True if none of these processes runs."""
    return not any(map(alive, pids))


class House:
    """One supervisor, its directories and its workers. `start` it, and `close` it in every case."""

    def __init__(self, config: str = "", environment: Mapping[str, str] | None = None) -> None:
        # pytest's own directories are too deep for the 107 bytes of a socket path.
        self.root = Path(tempfile.mkdtemp(prefix="bkd-", dir="/tmp"))
        self.runtime = self.root / "run"
        self.state = self.root / "state"
        self.log = self.root / "breakerd.log"
        self.ledgers = self.root / "ledgers"
        self.ledgers.mkdir()
        # Workers of other users must reach the socket's directory, and have a place for their ledgers.
        self.root.chmod(0o755)
        self.ledgers.chmod(0o777)
        self.environment = dict(environment or {})
        self.tree: Path = ROOT
        """Whose code is run by what is started from now on."""
        self.prefix: tuple[str, ...] = ()
        """What stands before the interpreter in every command line, such as `unshare -m`."""
        self.config: Path | None = None
        if config:
            self.configure(config)
        self.nursery: subprocess.Popen[bytes] | None = None
        self.hands: list[Hand] = []
        self._started: list[subprocess.Popen[bytes]] = []
        self._seen: set[int] = set()

    # --- the supervisor -----------------------------------------------------------------------------

    def configure(self, text: str) -> None:
        """Put this configuration file in the old one's place, if there is one, as an editor does: whole."""
        self.config = self.root / "breakerd.toml"
        made = self.config.with_suffix(".new")
        made.write_text(text)
        made.rename(self.config)

    @property
    def socket(self) -> str:
        """Path of the control socket."""
        return str(self.runtime / "breakerd.sock")

    def surroundings(self, **more: str) -> dict[str, str]:
        """The environment of a child: this one's, without what would lead it to another supervisor."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BREAKERD_")}
        return {**kept, "PYTHONPATH": str(self.tree), "BREAKERD_SOCKET": self.socket, **more}

    def command(self, *more: str) -> list[str]:
        """The command line of `breakerd run` for this house."""
        line = [*self.prefix, sys.executable, "-m", "supervisor.main", "run"]
        line += ["--runtime-dir", str(self.runtime), "--state-dir", str(self.state)]
        return line + (["--config", str(self.config)] if self.config else []) + list(more)

    def spawn(self, *more: str, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start `breakerd run` and wait for nothing; its output goes to the log, or to that descriptor."""
        surroundings = self.surroundings(**self.environment)
        del surroundings["BREAKERD_SOCKET"]
        with self.log.open("ab") as log:
            out = log.fileno() if output is None else output
            process = subprocess.Popen(
                self.command(*more),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=surroundings, cwd=self.root,
            )  # fmt: skip
        self._started.append(process)
        return process

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """End this one, too, with everything else."""
        self._started.append(process)

    def start(self) -> House:
        """Start breakerd and wait until it answers."""
        self.nursery = self.spawn()
        self.wait_ready()
        return self

    def wait_ready(self, seconds: float = READY_S) -> None:
        """Wait until the supervisor answers; fail at once, with its log, if it ended instead."""

        def ready() -> bool:
            if self.nursery is not None and self.nursery.poll() is not None:
                ended = f"breakerd ended with {self.nursery.returncode}"
                raise AssertionError(f"{ended}:\n{self.logged()[-3000:]}")
            return self.answers()

        wait_for("breakerd answers", ready, seconds)

    def answers(self) -> bool:
        """True if the supervisor answers now."""
        with contextlib.suppress(ControlError):
            self._note(self.ask("version", timeout=0.5))
            return True
        return False

    def ask(self, verb: str, timeout: float = 2.0, **fields: Any) -> Any:
        """One exchange over the control socket. Raises ControlError."""
        return control.ask(self.socket, verb, timeout, **fields)

    def ask_patiently(self, verb: str, seconds: float = READY_S, **fields: Any) -> Any:
        """As `ask`, again and again while the daemon is between two lives."""

        def answer() -> list[Any] | None:
            with contextlib.suppress(ControlError):
                return [self.ask(verb, **fields)]
            return None

        return wait_for(f"an answer to {verb}", answer, seconds)[0]

    def stats(self) -> Any:
        """What the supervisor has counted."""
        return self.ask_patiently("stats")

    def breaker(self, name: str) -> Any:
        """One breaker as the supervisor knows it."""
        return self.ask_patiently("breaker", name=name)["breaker"]

    def workers(self) -> list[Any]:
        """The attached workers."""
        found: list[Any] = self.ask_patiently("workers")["workers"]
        return found

    def worker(self, pid: int) -> Any | None:
        """The attached worker of that process, or None."""
        return next((found for found in self.workers() if found["pid"] == pid), None)

    def _note(self, version: Any) -> Any:
        self._seen.update((version["pid"], version["nursery_pid"]))
        return version

    @property
    def nursery_pid(self) -> int:
        """The nursery's process id."""
        assert self.nursery is not None
        if not self.prefix:
            return self.nursery.pid
        return int(self._note(self.ask_patiently("version"))["nursery_pid"])

    @property
    def daemon_pid(self) -> int:
        """The daemon's process id, asked for now."""
        return int(self._note(self.ask_patiently("version"))["pid"])

    @property
    def incarnation(self) -> int:
        """Which life of the daemon this is."""
        return int(self.stats()["supervisor"]["incarnation"])

    def kill_daemon(self) -> int:
        """Kill -9 the daemon; its process id."""
        pid = self.daemon_pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_reborn(self, old: int, seconds: float = READY_S) -> int:
        """Wait until a daemon other than `old` answers; its process id."""

        def reborn() -> int:
            with contextlib.suppress(ControlError):
                pid = int(self._note(self.ask("version", timeout=0.5))["pid"])
                return 0 if pid == old else pid
            return 0

        return wait_for("a new daemon answers", reborn, seconds)

    def signal_nursery(self, number: int) -> None:
        """Send the nursery a signal."""
        assert self.nursery is not None
        self.nursery.send_signal(number)

    def stop(self, seconds: float = STOP_S) -> int:
        """SIGTERM, and the exit code."""
        assert self.nursery is not None
        self.nursery.send_signal(signal.SIGTERM)
        return self.nursery.wait(seconds)

    def kill_all(self) -> None:
        """Kill -9 nursery and daemon at once: nothing of breakerd is left but its files."""
        daemon, nursery = self.daemon_pid, self.nursery_pid
        os.kill(nursery, signal.SIGSTOP)  # so that it cannot start another daemon in between
        os.kill(daemon, signal.SIGKILL)
        os.kill(nursery, signal.SIGKILL)
        assert self.nursery is not None
        self.nursery.wait(STOP_S)
        wait_for("the daemon is gone", lambda: not alive(daemon), STOP_S)

    def logged(self) -> str:
        """What breakerd wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # --- the workers --------------------------------------------------------------------------------

    def hand(self, name: str = "web", wait: bool = True, **options: Any) -> Hand:
        """Start an obedient worker process (`tests.faults.crew`); `wait` until it says that it is up."""
        hand = Hand.start(
            [sys.executable, "-m", "tests.faults.crew"],
            {"name": name, "ledgers": str(self.ledgers), **options},
            self.surroundings(),
            self.root / f"{name}-{len(self.hands)}.log",
            self.root,
        )
        self.hands.append(hand)
        if wait:
            hand.hear("up", 20.0)
        return hand

    def run_tool(self, *words: str, timeout: float = 10.0) -> subprocess.CompletedProcess[str]:
        """Run `supervisorctl` with these words against this house."""
        return subprocess.run(
            [sys.executable, "-m", "supervisor.ctl.main", *words],
            env=self.surroundings(), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """End every process that was started here and remove the directories."""
        for hand in self.hands:
            hand.kill()
        for process in self._started:
            self._note_children(process.pid)
        for process in self._started:
            _end(process)
        for pid in self._seen - {os.getpid()}:
            if alive(pid) and "supervisor" in _command_line(pid):
                _signal(pid, signal.SIGCONT)
                _signal(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    def _note_children(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error):
            self._seen.update(child.pid for child in psutil.Process(pid).children(recursive=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a nursery: politely first, so that its daemon goes with it."""
    if process.poll() is None:
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _command_line(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


def descriptors(pid: int) -> int:
    """How many descriptors the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kib(pid: int) -> int:
    """Resident memory of the process, in KiB."""
    return int(psutil.Process(pid).memory_info().rss) // 1024


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


class Size(NamedTuple):
    """What a process has."""

    descriptors: int
    threads: int
    maps: int
    memory_kib: int

    @classmethod
    def of(cls, pid: int) -> Size:
        """Of that process, now."""
        with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
            maps = len(file.readlines())
        return cls(descriptors(pid), psutil.Process(pid).num_threads(), maps, memory_kib(pid))

    def exceeds(self, before: Size) -> list[str]:
        """In what it is more than `before` by what is not chance."""
        most = Size(before.descriptors + 2, before.threads + 1, before.maps + 8, before.memory_kib + 2048)
        return [name for name in self._fields if getattr(self, name) > getattr(most, name)]


def spare_descriptors(pid: int, spare: int) -> None:
    """Let the process open `spare` more descriptors and no more: the limit is one on their numbers."""
    used = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    limit = 0
    while spare or limit in used:
        spare -= limit not in used
        limit += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def unlimit_descriptors(pid: int) -> None:
    """Lift the limit again."""
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
