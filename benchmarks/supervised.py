"""A breakerd for the length of a measurement, in temporary directories, and worker processes beside it.

Workers are forked from a process that has imported everything, so that fifty of them cost what they
cost in a pre-forking server. Neighbours: every benchmark that needs a real supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from ipc import control
from ipc.errors import ControlError

ROOT: Final = Path(__file__).parent.parent
START_S: Final = 15.0
STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Supervisor:
    """A running breakerd."""

    socket: str
    nursery: int
    """Pid of the process that was started."""
    daemon: int
    """Pid of the process that answers."""

    def ask(self, verb: str, timeout: float = 5.0, **fields: Any) -> Any:
        """One exchange over the control socket. Raises ControlError."""
        return control.ask(self.socket, verb, timeout, **fields)


@contextlib.contextmanager
def supervisor(config: str = "") -> Iterator[Supervisor]:
    """A breakerd that answers; it is stopped at the end, and its directories are gone."""
    with tempfile.TemporaryDirectory(prefix="bkb-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "supervisor.main", "run"]
        command += ["--runtime-dir", f"{folder}/run", "--state-dir", f"{folder}/state"]
        if config:
            Path(folder, "breakerd.toml").write_text(config, encoding="utf-8")
            command += ["--config", f"{folder}/breakerd.toml"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        try:
            yield _answering(f"{folder}/run/breakerd.sock", process)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answering(socket: str, process: subprocess.Popen[bytes]) -> Supervisor:
    """Wait until it answers. Raises RuntimeError when it ends or stays silent instead."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"breakerd ended with {process.returncode}")
        with contextlib.suppress(ControlError):
            told = control.ask(socket, "version", 1.0)
            return Supervisor(socket, process.pid, int(told["pid"]))
        time.sleep(0.02)
    raise RuntimeError(f"breakerd did not answer within {START_S:g} s")


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a forked child, which ends when `work` does; the child's pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work()
        code = 0
    finally:
        os._exit(code)


def end(pids: list[int]) -> None:
    """End these children and wait for them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def rss_mb(pid: int) -> float:
    """Resident megabytes of a process, pages shared with its workers included."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6
