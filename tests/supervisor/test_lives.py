"""The daemon's lives, with a clock that the test turns; the daemons are real, and have nothing to serve."""

from __future__ import annotations

import gc
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.descriptors import Inheritance
from supervisor.lives import HUNG_S, STOOD_S, Lives


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    """None has begun; whatever has, is ended."""
    anything = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    folder = str(tmp_path)

    def inherit(channel: int, fresh: bool) -> Inheritance:
        numbers = (anything, anything, channel, anything, anything)
        return Inheritance(*numbers, os.getpid(), 0.0, "", folder, folder, fresh, ())

    poll = select.poll()
    made = Lives(poll, inherit, lambda _data, _numbers: None, lambda _pid: None)
    yield made
    now = time.monotonic()
    made.ask(now)
    made.kill()
    while made.pid:
        made.turn({number for number, _ in poll.poll(1000.0)}, now)
    os.close(anything)
    gc.collect()


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
