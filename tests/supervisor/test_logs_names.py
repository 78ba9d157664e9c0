"""The log of a worker over its lives: what is counted and kept under its name, and when that goes."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from supervisor.logs import Life
from tests.supervisor.pretend_nursery import LogNursery, Time, has_said, say, until

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
log = logging.getLogger("app.web")


@pytest.fixture
def nursery(tmp_path: Path) -> LogNursery:
    """A nursery whose workers only log."""
    return LogNursery(tmp_path, Time())


def lossy(life: Life) -> None:
    """Says two lines; one between them is lost."""
    log.info("one")
    life.handler._number += 1
    log.info("three")


def counted(nursery: LogNursery, title: str, gaps: int) -> None:
    """Wait until the lives that are over have so many gaps."""
    until(f"{title} has {gaps} gaps", lambda: nursery.logs.gaps(title) == gaps)


def test_gaps_are_counted_over_all_lives(nursery: LogNursery) -> None:
    """One by one, when each life is closed."""
    for number in (1, 2):
        nursery.live("web", lossy)
        counted(nursery, "web", number)
    assert nursery.logs.gaps("mail") == 0


def test_a_worker_that_is_called_otherwise_goes_on_in_its_file(nursery: LogNursery) -> None:
    """A reload has made two of one: what the first one says and said is its own under the new name."""
    nursery.live("web", lossy)
    counted(nursery, "web", 1)
    reading, writing = os.pipe()

    def work(_: Life) -> None:
        log.info("before")
        os.read(reading, 1)
        log.info("after")

    process, life = nursery.fork("web", work, keep=(reading,))
    until("it logs", lambda: has_said(life, 0))
    nursery.logs.rename(life, "web", "web:1")
    os.write(writing, b"x")
    nursery.reap(process, life)
    nursery.settle(life)
    assert nursery.lines("web:1") == ["INFO app.web: after"]
    said = [line.rpartition(" ")[2] for line in nursery.kept("web:1")]
    assert said == ["one", "three", "before", "after"]
    assert sorted(os.listdir(nursery.runtime / "logs")) == ["web:1.log"]
    assert (nursery.logs.gaps("web"), nursery.logs.gaps("web:1")) == (0, 1)
    os.close(reading)
    os.close(writing)


def test_one_that_does_not_live_is_called_otherwise_too(nursery: LogNursery) -> None:
    """Its file and its count."""
    nursery.live("web", lossy)
    counted(nursery, "web", 1)
    nursery.logs.rename(None, "web", "web:1")
    nursery.logs.rename(None, "never", "said")
    assert len(nursery.kept("web:1")) == 2
    assert nursery.logs.gaps("web:1") == 1


def test_one_whose_table_is_gone_leaves_nothing(nursery: LogNursery) -> None:
    """Not even what its last life says after that; its name can be used again."""
    nursery.live("web", lossy)
    counted(nursery, "web", 1)
    reading, writing = os.pipe()

    def work(_: Life) -> None:
        os.read(reading, 1)
        log.info("bye")

    process, life = nursery.fork("web", work, keep=(reading,))
    nursery.logs.forget("web")
    assert os.listdir(nursery.runtime / "logs") == ["web.log"]
    os.write(writing, b"x")
    nursery.reap(process, life)
    until("its file is gone", lambda: os.listdir(nursery.runtime / "logs") == [])
    assert nursery.logs.gaps("web") == 0
    nursery.live("mail", say("here"))
    until("it is closed", lambda: not nursery.logs._lives)
    nursery.logs.forget("mail")
    assert os.listdir(nursery.runtime / "logs") == []
    nursery.live("web", say("again"))
    assert len(nursery.kept("web")) == 1
    os.close(reading)
    os.close(writing)


def test_the_end_waits_for_last_lines_and_not_for_the_living(tmp_path: Path) -> None:
    """What an ended worker put is read, in bounded time."""
    nursery = LogNursery(tmp_path, time.monotonic)
    reading, writing = os.pipe()

    def work(_: Life) -> None:
        os.read(reading, 1)

    other, other_life = nursery.fork("other", work, keep=(reading,))
    process, life = nursery.fork("web", say(*map(str, range(3000))))
    nursery.reap(process, life)
    began = time.monotonic()
    nursery.logs.settle(10.0)
    assert time.monotonic() - began < 9.0
    assert len(nursery.lines("web")) == 3000
    os.write(writing, b"x")
    nursery.reap(other, other_life)
    os.close(reading)
    os.close(writing)
