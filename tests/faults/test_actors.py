"""Each actor of the daemon raises: once, and it alone starts anew; again and again, and the daemon does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest

from ipc.errors import ControlError
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, judge
from tests.live.hand import Hand
from tests.live.house import House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

FAST_DISK: Final = "[supervisor]\ndisk_interval_s = 0.1\n"
ACTORS: Final = ("mind", "intake", "control", "disk")


def attach(house: House, hand: Hand) -> None:
    """Have it attached, also where the first hello met the actor that raised."""
    wait_for("attached", lambda: hand.order("connect") and house.worker(hand.pid), 15.0)


@pytest.mark.parametrize("at", effort((1, 2, 23), tuple(range(1, 60))))
@pytest.mark.parametrize("actor", ACTORS)
def test_actor_that_raises_is_restarted_alone(build: Callable[..., House], actor: str, at: int) -> None:
    """One actor raises at its n-th message: the daemon lives, the others answer, every outcome is counted."""
    house = build(FAST_DISK, BREAKERD_RAISE_AT=f"{actor}:{at}")
    house.nursery = house.spawn()
    wait_for("breakerd answers", house.answers, 10.0)
    pid = house.daemon_pid
    hand = house.hand()
    attach(house, hand)
    hand.order("load", breaker="beside", threads=2, per_s=1000.0, failing_every=20)
    victim = house.hand("victim")
    attach(house, victim)
    victim.order("load", breaker="victim", per_s=1000.0)
    with Watch(house):
        wait_for("it raised", lambda: f"actor {actor} failed" in house.logged(), 10.0, 0.02)
        assert house.ask_patiently("health", 6.0, level="live")["status"] == "pass"
        victim.kill()
        assert hand.order("unload")["failed"] == []
        assert hand.leave() == 0
        judge(house)
    wait_for("both have left", lambda: not house.workers(), 5.0)
    assert house.daemon_pid == pid


@pytest.mark.parametrize("actor", ACTORS)
def test_actor_that_always_raises_ends_the_daemon_and_then_the_nursery(
    build: Callable[..., House], actor: str
) -> None:
    """Beyond its limit an actor ends the daemon (70), the nursery starts it again, and gives up with 71."""
    house = build(FAST_DISK, BREAKERD_RAISE_AT=f"{actor}:{effort(5, 50)}+")
    house.nursery = house.spawn()
    hand = house.hand()
    attach(house, hand)
    hand.order("load", breaker="beside", per_s=500.0, failing_every=5)
    over = time.monotonic() + 60.0
    while house.nursery.poll() is None:
        assert time.monotonic() < over, "the nursery does not give up"
        try:
            house.ask("version", timeout=0.5)
        except ControlError:
            time.sleep(0.02)
    assert house.nursery.returncode == 71
    assert "exit code 70" in house.logged()
    house.environment.clear()
    house.start()
    wait_for("it is back", lambda: bool(house.worker(hand.pid)["ring_slots"]), 5.0)  # type: ignore[index]
    assert hand.order("unload")["failed"] == []
    assert hand.leave() == 0
    judge(house)
