"""What may go wrong with a worker's log, and must hurt neither the nursery nor another worker."""

from __future__ import annotations

import gc
import json
import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from supervisor.log_pipe import RECORD_MAX, TEXT_MAX, WAITING_MAX
from supervisor.logs import Life, Logs
from supervisor.stderr import Stderr
from tests.supervisor.pretend_nursery import WAIT_S, LogNursery, Time, say, until

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
log = logging.getLogger("app.web")


@pytest.fixture
def clock() -> Time:
    """A clock that stands still."""
    return Time()


@pytest.fixture
def nursery(tmp_path: Path, clock: Time) -> LogNursery:
    """A nursery whose workers only log."""
    return LogNursery(tmp_path, clock)


@dataclass(frozen=True)
class Trap:
    """An object whose unpickling makes a directory."""

    path: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "odd",
    [
        Trap,
        b"",
        {"level": 1},
        (1, 2),
        (0,) * 6,
        None,
        (1, 10**5000, 1.0, 20, False, "a number that no JSON has"),
        (1, -1, 1.0, 20, False, "a number below all"),
        (1, 2, float("inf"), 20, False, "a time that no calendar has"),
        (1, 2, float("nan"), 20, False, "no time"),
    ],
)
def test_a_record_of_something_else_is_a_gap_and_nothing_more(
    nursery: LogNursery, odd: Any, tmp_path: Path
) -> None:
    """It is not called, not imported and not shown; the next line is heard."""
    trapped = tmp_path / "trapped"
    sent = Trap(str(trapped)) if odd is Trap else odd

    def work(life: Life) -> None:
        log.info("before")
        life.handler._number += 1
        life.handler.mouth._inner.put(sent)
        log.info("after")

    life = nursery.live("web", work)
    assert nursery.lines("web") == ["INFO app.web: before", "INFO app.web: after"]
    assert (life.lines, life.gaps) == (2, 1)
    assert not trapped.exists()


@pytest.mark.parametrize("raw", [b"garbage", b"", pickle.dumps("x")[:-3]])
def test_bytes_that_are_no_pickle_are_a_gap(nursery: LogNursery, raw: bytes) -> None:
    """Also those that end too early, which look like the end of the pipe and are not."""

    def work(life: Life) -> None:
        life.handler._number += 1
        life.handler.mouth._inner._sem.acquire()
        os.write(life.descriptors[1], struct.pack("!i", len(raw)) + raw)
        log.info("after")

    life = nursery.live("web", work)
    assert (nursery.lines("web"), life.gaps) == (["INFO app.web: after"], 1)


def test_a_record_beyond_all_bounds_ends_this_life_of_the_log(nursery: LogNursery) -> None:
    """Nobody waits for what it says is coming; the worker goes on, and is not heard."""

    def deaf(life: Life) -> bool:
        try:
            os.write(life.descriptors[1], b"x")
        except BrokenPipeError:
            return True
        return False

    def work(life: Life) -> None:
        os.write(life.descriptors[1], struct.pack("!i", RECORD_MAX + 1))
        until("the pipe is closed", lambda: deaf(life))
        log.info("too late")
        os._exit(0)  # without the complaint of its sending thread

    process, life = nursery.fork("web", work)
    process.join(2.0 * WAIT_S)
    assert process.exitcode == 0
    nursery.reap(process, life)
    nursery.settle(life)
    assert (nursery.lines("web"), life.lines) == ([], 0)


def test_long_texts_are_cut_and_longer_records_told_of(nursery: LogNursery) -> None:
    """A line has a limit, and JSON stays JSON."""

    def work(_: Life) -> None:
        log.info("x" * 100_000)
        log.info("y", extra={f"key{number}": "z" * 60_000 for number in range(40)})

    nursery.live("web", work, log_format="json")
    first, second = map(json.loads, nursery.output.read_text().splitlines())
    assert first["text"].endswith("(34464 more characters)")
    assert second["text"].startswith("y (")
    assert len(first["text"]) < TEXT_MAX


def test_an_argument_that_cannot_be_shown_costs_no_line(nursery: LogNursery) -> None:
    """A wrong form, an object whose text raises, one that no pickle takes."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    unpicklable = threading.Lock()

    def work(_: Life) -> None:
        log.info("%d apples", "two")
        log.info("%s", Bad())
        log.info("%s", unpicklable)
        log.info(["a", "list"])

    life = nursery.live("web", work)
    assert nursery.lines("web") == [
        "INFO app.web: %d apples (its arguments cannot be shown: TypeError)",
        "INFO app.web: %s (its arguments cannot be shown: RuntimeError)",
        f"INFO app.web: {unpicklable}",
        "INFO app.web: ['a', 'list']",
    ]
    assert life.gaps == 0


def test_a_worker_whose_nursery_does_not_read_drops_lines_and_goes_on(nursery: LogNursery) -> None:
    """What waits is bounded; the numbers tell how much was dropped."""
    done, saying_done = os.pipe()
    go, saying_go = os.pipe()
    total = WAITING_MAX + 3000

    def work(life: Life) -> None:
        for number in range(total - 1):
            log.info("%d", number)
        os.write(saying_done, b"x")
        os.read(go, 1)
        until("there is room", lambda: life.handler.mouth.qsize() < WAITING_MAX)
        log.info("last")

    process, life = nursery.fork("web", work, keep=(saying_done, go))
    with nursery.logs.lock:
        assert os.read(done, 1) == b"x"
    os.write(saying_go, b"x")
    nursery.reap(process, life)
    nursery.settle(life)
    assert life.gaps > 0
    assert life.lines + life.gaps == total
    assert nursery.lines("web")[-1] == "INFO app.web: last"
    for number in (done, saying_done, go, saying_go):
        os.close(number)


def test_a_worker_without_a_file_is_heard_on_standard_error(nursery: LogNursery, clock: Time) -> None:
    """F3: the place of the files cannot be written; said once in ten seconds, and every line is counted."""
    (nursery.runtime / "logs").write_text("in the way")
    nursery.live("web", say(*"abc"))
    assert nursery.logs.unwritten == 3
    lines = nursery.output.read_text().splitlines()
    assert [line for line in lines if line.startswith("web: ")] == [f"web: INFO app.web: {x}" for x in "abc"]
    assert len([line for line in lines if "not in their files" in line]) == 1
    clock.now += 10.0
    nursery.live("web", say("d"))
    assert "4 lines of workers" in nursery.output.read_text()


def test_a_closed_standard_error_costs_no_file(tmp_path: Path, clock: Time) -> None:
    """F3: whoever reads the file reads everything."""
    nursery = LogNursery(tmp_path, clock)
    nursery.logs = Logs(str(tmp_path), Stderr(-1, clock), False, clock)
    nursery.live("web", say("a", "b"))
    assert [line.rpartition(" ")[2] for line in nursery.kept("web")] == ["a", "b"]


def test_without_a_descriptor_there_is_an_error_and_no_leak(tmp_path: Path) -> None:
    """The worker is then started later: EMFILE is an OSError like every failed fork."""
    program = (
        "import os, resource, threading, time\n"
        "from supervisor.logs import Logs\n"
        "from supervisor.stderr import Stderr\n"
        f"logs = Logs({str(tmp_path)!r}, Stderr(2, time.monotonic), False)\n"
        "logs.begin('a')\n"
        "before = len(os.listdir('/proc/self/fd'))\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1, limits[1]))\n"
        "for _ in range(3):\n"
        "    try:\n"
        "        logs.begin('b')\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "print(threading.active_count())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["24", "24", "24", "3"]


def test_without_a_thread_there_is_an_error_and_no_leak(nursery: LogNursery) -> None:
    """What was opened is closed at once, not when somebody collects garbage: perhaps a child, its own."""
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    threading.stack_size(1 << 46)
    try:
        with pytest.raises(OSError, match="no thread"):
            nursery.logs.begin("web")
    finally:
        threading.stack_size(0)
    opened = len(os.listdir("/proc/self/fd"))
    gc.enable()
    assert opened == before


def test_a_child_of_the_worker_killed_while_it_writes_silences_nobody(nursery: LogNursery) -> None:
    """A pre-forking server goes on logging, and ends when it wants to."""

    def work(life: Life) -> None:
        child = os.fork()
        if child == 0:
            life.handler.mouth._inner._wlock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        log.info("after")

    process, life = nursery.fork("web", work)
    process.join(WAIT_S)
    nursery.reap(process, life, kill=process.exitcode is None)
    nursery.settle(life)
    assert nursery.lines("web") == ["INFO app.web: after"]


def test_a_worker_to_whom_nobody_listens_any_more_is_silent(nursery: LogNursery) -> None:
    """Its nursery is dead, or cut it: what it still logs is lost, without a traceback for each line."""
    noise = nursery.runtime / "noise"
    gate, opener = os.pipe()

    def work(_: Life) -> None:
        sys.stderr = noise.open("w", buffering=1)
        log.info("heard")
        os.read(gate, 1)
        for number in range(3):
            log.info("lost %d", number)
            threading.Event().wait(0.1)

    process, life = nursery.fork("web", work, keep=(gate,))
    until("it is heard", lambda: life.lines == 1)
    life.finish()
    os.write(opener, b"x")
    nursery.reap(process, life)
    os.close(gate)
    os.close(opener)
    assert noise.read_text() == ""
