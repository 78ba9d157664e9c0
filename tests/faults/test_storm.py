"""The promise P1 where more than one process dies: worker and daemon, the nursery, all of breakerd."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, judge
from tests.live.hand import Hand, leave
from tests.live.house import House, alive, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)


def working(house: House, count: int, per_s: float = 2000.0) -> list[Hand]:
    """Workers with two busy threads each."""
    hands = [house.hand(f"w{number}") for number in range(count)]
    for number, hand in enumerate(hands):
        hand.order("load", breaker=f"w{number}", threads=2, per_s=per_s, failing_every=30)
    return hands


def finish(house: House, hands: list[Hand]) -> None:
    """All segments are back, the load ends, everything is accounted for."""
    wait_for("all are back", lambda: _back(house) == len(hands), 10.0, 0.02)
    leave(hands)
    judge(house)


def _back(house: House) -> int:
    return sum(bool(one["ring_slots"]) for one in house.workers())


@pytest.mark.fault("B1")
def test_b1_worker_and_daemon_killed_within_five_milliseconds(house: House) -> None:
    """The dead worker's ring is in the nursery's hands: the next daemon counts what is in it."""
    dice = random.Random(5)
    hands = working(house, 1)
    with Watch(house):
        for number in range(effort(8, 300)):
            victim = house.hand(f"v{number}")
            victim.order("load", breaker=f"v{number}", threads=2, failing_every=9)
            time.sleep(dice.uniform(0.0, 0.1))  # the instant of the kill is random
            pid = house.daemon_pid
            doomed = [pid, victim.pid]
            dice.shuffle(doomed)
            os.kill(doomed[0], signal.SIGKILL)
            time.sleep(dice.uniform(0.0, 0.005))  # as above
            os.kill(doomed[1], signal.SIGKILL)
            victim.kill()
            house.wait_reborn(pid)
            wait_for("retired", lambda pid=victim.pid: house.worker(pid) is None, 4.0)  # type: ignore[misc]
        finish(house, hands)


@pytest.mark.fault("A5")
def test_p1_a_killed_nursery_takes_its_daemon_along_and_nothing_is_lost(house: House) -> None:
    """Kill -9 of the nursery: the daemon writes its last checkpoint and is gone within a second."""
    hands = working(house, 3)
    for _ in range(effort(3, 40)):
        nursery, daemon = house.nursery_pid, house.daemon_pid
        os.kill(nursery, signal.SIGKILL)
        wait_for("the daemon is gone", lambda pid=daemon: not alive(pid), 1.5)  # type: ignore[misc]
        house.start()
        wait_for("all are back", lambda: _back(house) == 3, 10.0, 0.02)
    finish(house, hands)


@pytest.mark.fault("A5")
def test_p1_everything_of_breakerd_is_killed_while_workers_live(house: House) -> None:
    """Kill -9 of nursery and daemon at once: the workers hand their rings back, and all is counted."""
    hands = working(house, 3)
    for _ in range(effort(3, 40)):
        house.kill_all()
        house.start()
        wait_for("all are back", lambda: _back(house) == 3, 10.0, 0.02)
    finish(house, hands)


@pytest.mark.fault("A5")
def test_p1_a_stopped_orphan_does_not_keep_the_next_start_away(house: House) -> None:
    """The nursery is killed while its daemon is stopped: the next nursery ends that daemon and serves."""
    hands = working(house, 2)
    daemon = house.daemon_pid
    os.kill(daemon, signal.SIGSTOP)
    os.kill(house.nursery_pid, signal.SIGKILL)
    started = time.monotonic()
    house.nursery = house.spawn()
    # The kernel may let it go on, because nobody else could any more: then it answers until it sees why.
    house.wait_reborn(daemon)
    assert time.monotonic() - started <= 3.0
    assert not alive(daemon)
    finish(house, hands)
