"""Programs of dead probers are found, whatever group they are in; others never are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ipc.vocabulary import PROBER_VARIABLE
from supervisor.strays import kill_strays, start_tick
from tests.conftest import could_not_run

FAMILY = "setsid sleep 600 & sleep 600 & echo $!; wait"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs with that mark; they are ended in every case."""
    started: list[subprocess.Popen[bytes]] = []

    def go(*command: str, mark: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, PROBER_VARIABLE: mark}
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True)
        )
        return started[-1]

    yield go
    for process in started:
        process.kill()
        process.communicate()


def dead() -> str:
    """The mark of a prober that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = f"{process.pid}:{start_tick(process.pid)}"
        process.communicate(b"\n")
    return mark


def test_programs_of_dead_probers_are_killed_with_all_that_they_have_started(start: Start) -> None:
    """Those of a living one are not, nor those of a later process with the same pid taken for it."""
    mine = f"{os.getpid()}:{start_tick(os.getpid())}"
    well = start("/bin/sleep", "600", mark=mine)
    strange = start("/bin/sleep", "600", mark="nonsense")
    stray = start("/bin/sh", "-c", FAMILY, mark=dead())
    reused = start("/bin/sleep", "600", mark=f"{os.getpid()}:1")
    assert stray.stdout is not None
    assert stray.stdout.readline().strip().isdigit()
    assert kill_strays() >= 3
    assert (stray.wait(10.0), reused.wait(10.0)) == (-signal.SIGKILL, -signal.SIGKILL)
    assert stray.stdout.read() == b"", "all that hold its output are gone"
    assert (well.poll(), strange.poll()) == (None, None)
    kill_strays()
    assert well.poll() is None


def test_a_program_of_another_pid_namespace_is_left_alone(start: Start) -> None:
    """What the pid of its prober means there, nobody knows here."""
    inside = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        could_not_run("pid-namespace", "no new PID namespace can be made here")
    script = "echo ready; read line"
    mark = dead()
    with subprocess.Popen(
        [*inside, "env", f"{PROBER_VARIABLE}={mark}", "/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        kill_strays()
        process.communicate(b"\n")
        assert process.returncode == 0


def test_what_is_not_there_has_no_start() -> None:
    """Nor has a zombie."""
    with subprocess.Popen(["/bin/true"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_tick(process.pid) == ""
    assert start_tick(process.pid) == ""
