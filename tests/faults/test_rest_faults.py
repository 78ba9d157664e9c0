"""L4, L5 and what is left behind: at rest everything is counted, everybody is back, and nothing has grown."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from ipc import layout as at
from ipc.ring import NO_EPOCH, Reader, epoch_of
from tests.faults import oracle
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.hostile import Inside
from tests.faults.judge import Watch, finish, judge
from tests.live.hand import Hand
from tests.live.house import House, Size, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

COMMITTED_S: Final = 1.0
"""From the last outcome to its commit; a tick is 20 ms, the rest is for a busy machine."""
BACK_S: Final = 10.0
RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}


def working(house: House, count: int) -> list[Hand]:
    """Workers that call all the time."""
    hands = [house.hand(f"w{number}", wait=False) for number in range(count)]
    for hand in hands:
        hand.hear("up", 30.0)
        hand.order("load", breaker=hand.log.stem, threads=2, per_s=300.0, failing_every=9)
    return hands


def unread(hand: Hand) -> int:
    """Words of the worker's ring that were put and are not committed."""
    inside = Inside(hand.pid)
    words, layout, position = inside.words, inside.layout, inside.committed
    first = words[layout.ring + (position // at.BLOCK * at.BLOCK & (layout.slots - 1))]
    epoch = epoch_of(first) if position % at.BLOCK else NO_EPOCH
    return len(list(Reader(words, layout, position=position, epoch=epoch).read(layout.slots)))


def issued_more_than(house: House, enough: int) -> bool:
    """True if the workers have issued more than so many outcomes."""
    return oracle.issued(house.ledgers) > enough


@pytest.mark.fault("L4")
@pytest.mark.parametrize("fault", ["none", "killed", "stopped"])
def test_l4_every_outcome_is_committed_soon_and_the_rings_are_empty_at_rest(house: House, fault: str) -> None:
    """Each time the calls pause, whatever was done to the daemon meanwhile."""
    hands = working(house, 4)
    for _ in range(effort(2, 50)):
        pid = house.daemon_pid
        if fault == "killed":
            house.wait_reborn(house.kill_daemon())
        elif fault == "stopped":
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.4)  # the length of the fault
            os.kill(pid, signal.SIGCONT)
        enough = oracle.issued(house.ledgers) + 500
        wait_for("traffic", partial(issued_more_than, house, enough), 5.0)
        for hand in hands:
            assert hand.order("unload")["failed"] == []
        paused = time.monotonic()
        wait_for("all is counted", lambda: not oracle.differences(house.stats(), house.ledgers), COMMITTED_S)
        print(f"{fault}: all was counted {time.monotonic() - paused:.3f} s after the last call")
        wait_for("the rings are empty", lambda: [unread(hand) for hand in hands] == [0] * 4, COMMITTED_S)
        for number, hand in enumerate(hands):
            hand.order("load", breaker=f"again{number}", threads=2, per_s=300.0, shared=True, failing_every=9)
    finish(house, hands)


def kill_the_daemon(house: House) -> None:
    """Its nursery starts the next one."""
    house.wait_reborn(house.kill_daemon())


def kill_everything(house: House) -> None:
    """A new nursery knows no segment: everybody has to hand back its own."""
    house.kill_all()
    house.start()


def end_and_start(house: House) -> None:
    """In order."""
    assert house.stop() == 0
    house.start()


def stop_the_daemon(house: House) -> None:
    """For longer than workers wait."""
    pid = house.daemon_pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5)  # the length of the fault
    os.kill(pid, signal.SIGCONT)


FAULTS: Final[tuple[Callable[[House], None], ...]] = (
    kill_the_daemon, kill_everything, end_and_start, stop_the_daemon,
)  # fmt: skip


@pytest.mark.fault("L5")
def test_l5_every_worker_is_back_ten_seconds_after_a_supervisor_is(house: House) -> None:
    """Whatever ended the one before, in any order: nobody stays on its own for ever."""
    dice = random.Random(5)
    hands = working(house, 6)
    mine = {hand.pid for hand in hands}

    def together() -> bool:
        attached = {one["pid"] for one in house.workers() if one["ring_slots"]}
        return mine <= attached and not any(hand.order("mode")["local"] for hand in hands)

    with Watch(house):
        for round_ in range(effort(1, 25)):
            for fault in dice.sample(FAULTS, len(FAULTS)):
                fault(house)
                began = time.monotonic()
                wait_for(f"all are back after {fault.__name__}", together, BACK_S, 0.02)
                print(f"round {round_}: {time.monotonic() - began:.2f} s after {fault.__name__}")
        finish(house, hands)


@pytest.mark.fault("S17")
@pytest.mark.timeout(600)
def test_a_thousand_attachments_leave_the_supervisor_as_it_was(house: House) -> None:
    """Descriptors, threads, mappings and memory of nursery and daemon are flat, and every count is right."""
    hand = house.hand("parent")
    hand.order("guard", breaker="short", **RULES_OFF)
    # What is kept of the last so many, such as events, is full after these.
    hand.order("short_lives", 120.0, count=700, breaker="short")
    wait_for("only the parent is left", lambda: len(house.workers()) == 1, 5.0)
    pids = (house.nursery_pid, house.daemon_pid)
    before = [Size.of(pid) for pid in pids]
    for _ in range(effort(1, 10)):
        assert hand.order("short_lives", 300.0, count=1000, breaker="short")["bad"] == []
    wait_for("only the parent is left", lambda: len(house.workers()) == 1, 5.0)

    def flat() -> bool:
        return not any(Size.of(pid).exceeds(one) for pid, one in zip(pids, before, strict=True))

    wait_for(f"all is flat: {before}, {[Size.of(pid) for pid in pids]}", flat, 5.0, 0.1)
    print(f"before {before}, after {[Size.of(pid) for pid in pids]}")
    assert hand.leave() == 0
    judge(house)
