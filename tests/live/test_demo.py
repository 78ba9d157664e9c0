"""The whole demo, as a person or a pipeline would run it: what it claims, and that nothing of it is left."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.sources import ROOT

DEMO = [sys.executable, "-m", "supervisor.main", "demo"]
WHOLE_S = 40.0
GONE_S = 10.0
"""How long processes may take to be gone after the demo was killed."""
ENTER_ALTERNATE, LEAVE_ALTERNATE = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def place() -> Iterator[Path]:
    """A short temporary directory for the demo: a socket's path has little room."""
    directory = Path(tempfile.mkdtemp(prefix="d-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def surroundings(place: Path) -> dict[str, str]:
    """The environment of a demo that keeps its files there."""
    return {**os.environ, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1", "TERM": "xterm-256color"}


def left_over(place: Path) -> list[str]:
    """Command lines of every process that belongs to the demo of that directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(place) in line:
            found.append(line)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def begin(place: Path, *options: str) -> subprocess.Popen[str]:
    """Start a demo that prints lines."""
    return subprocess.Popen(
        [*DEMO, *options], cwd=ROOT, env=surroundings(place), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def read_until(demo: subprocess.Popen[str], phase: str) -> None:
    """Read its lines until a phase begins."""
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if f"== {phase}" in line:
            return
    raise AssertionError(f"the demo never came to {phase}:\n{''.join(said)}")


def test_the_demo_is_exact(place: Path) -> None:
    """Not on a terminal it prints lines, ends within 40 s with 0 and an exact account, and leaves nothing."""
    began = time.monotonic()
    done = subprocess.run(
        DEMO, cwd=ROOT, env=surroundings(place), capture_output=True, text=True, timeout=90, check=False
    )
    took = time.monotonic() - began
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert took <= WHOLE_S
    for phase in ("in-process breakers: outage", "host-wide breaker: outage", "kill -9 of the daemon"):
        assert f"{phase}\n" in done.stdout
    hits = re.search(r"calls that hit the dead database +([\d,]+) +([\d,]+)", done.stdout)
    assert hits is not None, done.stdout
    alone, together = (int(text.replace(",", "")) for text in hits.groups())
    assert 0 < together < alone
    everywhere = re.search(r"first failure -> refused everywhere +(.+?) {2,}(.+)", done.stdout)
    assert everywhere is not None, done.stdout
    assert "never" not in everywhere.groups(), done.stdout
    exact = re.search(r"^EXACT: ([\d,]+) outcomes issued = ([\d,]+) counted", done.stdout, re.MULTILINE)
    assert exact is not None, done.stdout
    assert left_over(place) == []
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGINT, "in-process breakers: outage"),
        (signal.SIGTERM, "host-wide breaker: outage"),
    ],
)
def test_a_signal_ends_it_and_leaves_nothing(place: Path, number: signal.Signals, phase: str) -> None:
    """Ctrl-C and SIGTERM, in the middle of an outage, end every process and remove every file."""
    demo = begin(place, "--outage", "1")
    read_until(demo, phase)
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=20)
    assert demo.returncode == 128 + number
    assert said.endswith(f"breakerd demo: {number.name}: stopped, nothing is left\n")
    assert left_over(place) == []
    assert list(place.iterdir()) == []


def test_kill_9_of_the_demo_leaves_no_process(place: Path) -> None:
    """Even when the demo itself is killed with kill -9, its workers and its breakerd end by themselves."""
    demo = begin(place, "--outage", "1")
    read_until(demo, "host-wide breaker: all is well")
    assert left_over(place)
    demo.kill()
    demo.communicate(timeout=20)
    assert wait_until(lambda: not left_over(place), GONE_S), left_over(place)


def test_a_terminal_sees_a_live_picture_and_gets_its_screen_back(place: Path) -> None:
    """On a terminal a picture is drawn on the alternate screen, and Ctrl-C leaves that screen again."""
    master, slave = pty.openpty()
    demo = subprocess.Popen(DEMO, cwd=ROOT, env=surroundings(place), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while b"calls/s" not in seen:
        seen += os.read(master, 65_536)
    demo.send_signal(signal.SIGINT)
    while LEAVE_ALTERNATE not in seen:
        seen += os.read(master, 65_536)
    assert demo.wait(20) == 128 + signal.SIGINT
    os.close(master)
    assert seen.index(ENTER_ALTERNATE) < seen.index(b"in-process breakers") < seen.index(LEAVE_ALTERNATE)
    assert left_over(place) == []
    assert list(place.iterdir()) == []


def test_bad_arguments_are_refused() -> None:
    """A number of workers that makes no sense is a usage error, and nothing is started."""
    done = subprocess.run(
        [*DEMO, "--workers", "1"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert "must be 2 to 24, got 1" in done.stderr
