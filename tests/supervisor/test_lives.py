"""The daemon's lives, with a clock that the test turns; the daemons are real, and have nothing to serve."""

from __future__ import annotations

import gc
import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from supervisor.descriptors import (
    PHASE_CHECKPOINT,
    PHASE_COPY,
    PHASE_STARTED,
    PHASE_STARTING,
    Inheritance,
)
from supervisor.lives import (
    EXIT_CONFIGURATION,
    EXIT_FAILED,
    FAILURE_WINDOW_S,
    FRESH_AFTER,
    HUNG_S,
    PACKAGE_QUIET_S,
    PAUSE_MAX_S,
    STOOD_S,
    Lives,
)


@dataclass
class Rig:
    """The lives of a daemon, and what each was given as `fresh`."""

    lives: Lives
    poll: select.poll
    fresh: list[int]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """None has begun; whatever has, is ended."""
    anything = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    folder = str(tmp_path)
    given: list[int] = []

    def inherit(channel: int, fresh: int) -> Inheritance:
        given.append(fresh)
        numbers = (anything, channel, made.pulse_fd, anything)
        return Inheritance(*numbers, os.getpid(), 0.0, "", folder, folder, fresh, ())

    poll = select.poll()
    made = Lives(poll, inherit, lambda _data, _numbers: None, lambda _pid: None)
    yield Rig(made, poll, given)
    now = time.monotonic()
    made.ask(now)
    made.kill()
    while made.pid:
        made.turn({number for number, _ in poll.poll(1000.0)}, now)
    os.close(anything)
    gc.collect()


@pytest.fixture
def lives(rig: Rig) -> Lives:
    """Those of the rig."""
    return rig.lives


def test_a_loop_that_stood_still_gives_the_daemon_its_time_again(
    lives: Lives, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever paused the loop may have paused the daemon, too; one that stays silent is killed later."""
    now = time.monotonic()
    lives.turn(set(), now)
    assert lives.pid
    now += 10 * HUNG_S
    lives.turn(set(), now)
    assert "gave no sign" not in caplog.text
    for _ in range(int(HUNG_S / STOOD_S) + 1):
        assert "gave no sign" not in caplog.text
        now += STOOD_S
        lives.turn(set(), now)
    assert "gave no sign" in caplog.text


@pytest.fixture
def told(rig: Rig, tmp_path: Path) -> Path:
    """Daemons become a program that says a phase over the pulse page and ends as it is told to."""
    program = tmp_path / "ends"
    rig.lives.program = str(program)
    rig.lives.package_age_s = lambda: 1000.0
    return program


def ends(told: Path, phase: int, how: str) -> None:
    """What the next daemons do."""
    told.write_text(ENDS.format(python=os.path.realpath("/proc/self/exe"), phase=phase, how=how))
    told.chmod(0o755)


ENDS: Final = """#!{python}
import json, mmap, os, sys
table = json.load(open(int(sys.argv[-1]), closefd=False)) if not os.lseek(int(sys.argv[-1]), 0, 0) else 0
page = memoryview(mmap.mmap(table["pulse"], mmap.PAGESIZE)).cast("Q")
page[1] = {phase}
{how}
"""


def lifetimes(lives: Lives, poll: select.poll, now: float, times: int) -> float:
    """Let so many daemons start and end; the time after them, by a clock that waits for no pause."""
    for _ in range(times):
        now = max(now, lives.next_time(now)) if not lives.pid else now
        lives.turn(set(), now)
        assert lives.pid
        while lives.pid:
            lives.turn({number for number, _ in poll.poll(1000.0)}, now)
    return now


FAILS: Final = "sys.exit(1)"


@pytest.mark.parametrize(
    ("phase", "how", "fresh"),
    [
        (PHASE_STARTING, FAILS, 0),
        (PHASE_STARTED, FAILS, 0),
        (PHASE_CHECKPOINT, "os.kill(os.getpid(), 9)", 0),
        (PHASE_CHECKPOINT, "os.kill(os.getpid(), 15)", 0),
        (PHASE_CHECKPOINT, "sys.exit(0)", 0),
        (PHASE_CHECKPOINT, FAILS, PHASE_CHECKPOINT),
        (PHASE_CHECKPOINT, "os.kill(os.getpid(), 11)", PHASE_CHECKPOINT),
        (PHASE_COPY, FAILS, PHASE_COPY),
    ],
)
def test_only_an_error_with_what_was_read_sets_it_aside(
    rig: Rig, told: Path, phase: int, how: str, fresh: int
) -> None:
    """Kills, an end that was asked for and errors of the program itself say nothing of the state."""
    rig.lives.keep = lambda: True
    ends(told, phase, how)
    lifetimes(rig.lives, rig.poll, time.monotonic(), FRESH_AFTER + 1)
    assert rig.fresh == [0] * FRESH_AFTER + [fresh]


def test_what_changes_under_it_is_blamed_first(rig: Rig, told: Path) -> None:
    """Half an upgrade may fail anywhere, also while it reads the checkpoint."""
    rig.lives.package_age_s = lambda: PACKAGE_QUIET_S / 2
    rig.lives.keep = lambda: True
    ends(told, PHASE_CHECKPOINT, FAILS)
    lifetimes(rig.lives, rig.poll, time.monotonic(), 2 * FRESH_AFTER)
    assert rig.fresh == [0] * 2 * FRESH_AFTER


def test_a_checkpoint_is_set_aside_once_and_then_the_copy_has_its_tries(rig: Rig, told: Path) -> None:
    """What a life after it fails with is the copy; the new file in the checkpoint's place is not to blame."""
    rig.lives.keep = lambda: True
    ends(told, PHASE_CHECKPOINT, FAILS)
    now = lifetimes(rig.lives, rig.poll, time.monotonic(), FRESH_AFTER)
    ends(told, PHASE_COPY, FAILS)
    lifetimes(rig.lives, rig.poll, now, FRESH_AFTER + 1)
    assert rig.fresh[FRESH_AFTER:] == [PHASE_CHECKPOINT, *[0] * (FRESH_AFTER - 1), PHASE_COPY]


def test_failing_starts_have_a_minute_and_pauses_that_double(rig: Rig, told: Path) -> None:
    """A package that is incomplete for seconds ends nobody."""
    ends(told, PHASE_STARTING, FAILS)
    began = now = time.monotonic()
    while rig.lives.code is None:
        now = lifetimes(rig.lives, rig.poll, now, 1)
    assert now - began > FAILURE_WINDOW_S
    assert len(rig.fresh) < 15
    assert rig.lives.code == EXIT_FAILED


def test_where_something_lives_here_it_never_gives_up(rig: Rig, told: Path) -> None:
    """Whatever the daemon ends by, its configuration too: the managed workers go on without it."""
    rig.lives.keep = lambda: True
    ends(told, PHASE_STARTING, "sys.exit(78)")
    began = now = time.monotonic()
    now = lifetimes(rig.lives, rig.poll, now, 15)
    assert now - began > 3 * FAILURE_WINDOW_S
    assert rig.lives.code is None
    assert rig.lives.next_time(now) - now == pytest.approx(PAUSE_MAX_S)


def test_a_first_daemon_that_refuses_its_configuration_ends_it(rig: Rig, told: Path) -> None:
    """Nothing lives here that could be lost."""
    ends(told, PHASE_STARTING, "sys.exit(78)")
    lifetimes(rig.lives, rig.poll, time.monotonic(), 1)
    assert rig.lives.code == EXIT_CONFIGURATION


def test_a_slow_start_gets_more_time_after_each_that_was_killed(
    rig: Rig, told: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy host must not kill each of its daemons just before it would have served."""
    rig.lives.keep = lambda: True
    ends(told, PHASE_CHECKPOINT, "import time; time.sleep(100)")
    now = time.monotonic()
    waited = []
    for _ in range(3):
        now = max(now, rig.lives.next_time(now))
        caplog.clear()
        rig.lives.turn(set(), now)
        began = now = time.monotonic()
        while "gave no sign" not in caplog.text:
            now += 1.0
            rig.lives.turn(set(), now)
        waited.append(now - began)
        while rig.lives.pid:
            rig.lives.turn({number for number, _ in rig.poll.poll(1000.0)}, now)
    assert [round(one / HUNG_S) for one in waited] == [1, 2, 4]
    assert rig.fresh == [0, 0, 0]
