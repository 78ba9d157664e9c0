"""Lines of forked workers: in order, whole, and never at the cost of another worker or of the nursery."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import struct
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from multiprocessing_logging import MultiProcessingHandler

from supervisor.logs import PATIENCE_S, Life
from tests.supervisor.pretend_nursery import LogNursery, Time, has_said, say, until

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


# --- what a line looks like ---------------------------------------------------------------------------


def test_lines_arrive_in_order_under_their_workers_name(nursery: LogNursery) -> None:
    """On standard error with the name, in the file with the time; of one worker as it said them."""
    texts = [f"line {number}" for number in range(200)]
    life = nursery.live("web:1", say(*texts))
    assert nursery.lines("web:1") == [f"INFO app.web: {text}" for text in texts]
    kept = nursery.kept("web:1")
    assert [line.split(" ", 1)[1] for line in kept] == [f"INFO app.web: {text}" for text in texts]
    assert kept[0].split(" ")[0].endswith("+00:00")
    assert (life.lines, life.gaps) == (200, 0)
    assert (nursery.runtime / "logs" / "web:1.log").stat().st_mode & 0o777 == 0o600


def test_each_life_has_a_handler_and_a_pipe_of_its_own(nursery: LogNursery) -> None:
    """The library's, also for the next life of the same worker: one dead producer would silence the rest."""
    lives = [nursery.live(title, say("here")) for title in ("web:1", "web:1", "web:2")]
    assert all(isinstance(life.handler, MultiProcessingHandler) for life in lives)
    assert len({id(life.handler) for life in lives}) == len({id(life.handler.mouth) for life in lives}) == 3


def test_every_line_has_its_priority_for_journald(tmp_path: Path, clock: Time) -> None:
    """A traceback is one error, each of its lines with the worker's name."""
    nursery = LogNursery(tmp_path, clock, journal=True)

    def work(_: Life) -> None:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("it failed")

    nursery.live("web", work)
    lines = nursery.output.read_text().splitlines()
    assert lines[0] == "<3>web: ERROR app.web: it failed"
    assert lines[-2:] == ["<3>web: ValueError: two", "<3>web: lines"]
    assert all(line.startswith("<3>web: ") for line in lines)
    assert nursery.kept("web")[1:] == [line.removeprefix("<3>web: ") for line in lines[1:]]


def test_json_is_one_object_a_line(nursery: LogNursery) -> None:
    """The same on standard error and in the file: with the worker's name, and what was given as extra."""

    def work(_: Life) -> None:
        try:
            raise ValueError("wrong\nhere")
        except ValueError:
            log.exception("order %d: \u2603", 7, extra={"user": "ann", "tries": 2, "odd": {"a": 1}})

    nursery.live("web", work, log_format="json")
    (line,) = nursery.output.read_text().splitlines()
    assert nursery.kept("web") == [line]
    found = json.loads(line)
    assert found.pop("at").endswith("+00:00")
    assert found.pop("pid") > 0
    assert found.pop("exception").endswith("ValueError: wrong\nhere")
    assert found == {
        "level": "ERROR",
        "logger": "app.web",
        "worker": "web",
        "text": "order 7: \u2603",
        "user": "ann",
        "tries": 2,
        "odd": "{'a': 1}",
    }


def test_the_level_decides_in_the_child(nursery: LogNursery) -> None:
    """What is below it costs nothing and counts as nothing."""

    def work(_: Life) -> None:
        log.info("quiet")
        log.warning("loud")

    process, life = nursery.fork("web", work, level="warning")
    nursery.reap(process, life)
    nursery.settle(life)
    assert nursery.lines("web") == ["WARNING app.web: loud"]
    assert (life.lines, life.gaps) == (1, 0)


def test_a_child_of_the_worker_logs_too(nursery: LogNursery) -> None:
    """As a pre-forking server does: after os.fork no thread sends any more, until one is started anew."""

    def work(_: Life) -> None:
        log.info("before")
        child = os.fork()
        if child == 0:
            log.info("in the child")
            sys.exit(0)  # through multiprocessing's end, which sends what waits
        os.waitpid(child, 0)
        log.info("after")

    life = nursery.live("web", work)
    assert sorted(nursery.lines("web")) == [f"INFO app.web: {t}" for t in ("after", "before", "in the child")]
    assert (life.lines, life.gaps) == (3, 0)


# --- killed in the middle -----------------------------------------------------------------------------


def test_a_hundred_killed_workers_silence_nobody_and_leave_nothing(nursery: LogNursery) -> None:
    """B: each is killed while it logs without a pause; the other one's lines are all there, in order."""
    parent = os.getpid()

    def steady(_: Life) -> None:
        number = 0
        while os.getppid() == parent and number < 100_000:
            log.info("steady %d", number)
            number += 1
            select.select([], [], [], 0.002)

    def flood(_: Life) -> None:
        number = 0
        while True:
            log.info("flood %d %s", number, "x" * (number % 3 * 30_000))
            number += 1

    other, other_life = nursery.fork("other", steady)
    until("it has its file", partial(has_said, other_life, 1))
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(100):
        process, life = nursery.fork("web", flood)
        until("it logs", partial(has_said, life, 2))
        nursery.reap(process, life, kill=True)
    until("all are closed", lambda: (threading.active_count(), len(os.listdir("/proc/self/fd"))) <= before)
    assert nursery.logs.gaps("web") > 0
    said = other_life.lines
    until("the other one still logs", lambda: other_life.lines > said)
    nursery.reap(other, other_life, kill=True)
    nursery.settle(other_life)
    numbers = [int(line.rpartition(" ")[2]) for line in nursery.lines("other")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 100


def test_a_record_that_was_cut_ends_the_thread_at_once(nursery: LogNursery) -> None:
    """The length says more than there is: no five seconds, no thread that stays."""

    def work(life: Life) -> None:
        os.write(life.descriptors[1], struct.pack("!i", 100_000) + b"only this")
        os.kill(os.getpid(), signal.SIGKILL)

    assert nursery.live("web", work).lines == 0


def test_the_last_lines_of_a_killed_worker_are_counted_as_lost(nursery: LogNursery) -> None:
    """What was said and never sent is known by the semaphore that counts both."""

    def work(life: Life) -> None:
        log.info("sent")
        until("it is sent", lambda: life.handler.mouth.qsize() == 0)
        life.handler.mouth._inner._wlock.acquire()  # the sending thread is as slow as can be
        for _ in range(5):
            log.info("lost")
        os.kill(os.getpid(), signal.SIGKILL)

    life = nursery.live("web", work)
    assert (nursery.lines("web"), life.gaps) == (["INFO app.web: sent"], 5)
    nursery.logs.end(life)  # again, which changes nothing
    until("they are counted for the worker", lambda: nursery.logs.gaps("web") == 5)


@pytest.mark.parametrize("begun", [b"", struct.pack("!i", 100_000) + b"only this"])
def test_orphans_of_a_dead_worker_are_heard_and_then_cut(
    nursery: LogNursery, clock: Time, begun: bytes
) -> None:
    """They keep its pipe, even in the middle of a record; after PATIENCE_S thread and descriptor go."""
    reading, writing = os.pipe()
    gate, opening = os.pipe()

    def work(life: Life) -> None:
        os.write(life.descriptors[1], begun)
        if os.fork() == 0:
            os.close(opening)  # so that it ends with this test, whatever comes of it
            os.read(gate, 1)
        os._exit(0)

    low, high = sorted((gate, writing))
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    life = nursery.logs.begin("web")
    with nursery.logs.lock:
        child = os.fork()
        if child == 0:
            work(life)
    life.parent()
    os.waitpid(child, 0)
    nursery.logs.end(life)
    assert life.handler.receiving
    clock.now += PATIENCE_S + 0.1

    def cut() -> bool:
        """Its thread has ended, and nothing is left of it; what earlier tests have left may go meanwhile."""
        now = (threading.active_count(), len(os.listdir("/proc/self/fd")))
        return not life.handler.receiving and now[0] <= before[0] and now[1] <= before[1]

    until("it is cut", cut)
    os.write(opening, b"x")
    for number in (low, high, reading, opening):
        os.close(number)


def test_closing_never_waits_for_a_worker_that_lives(nursery: LogNursery) -> None:
    """As the interpreter does at its end; the library alone would wait five seconds for each."""
    life = nursery.logs.begin("web")
    life.handler.close()
    assert not life.handler.receiving
    life.parent()
    nursery.logs.end(life)
