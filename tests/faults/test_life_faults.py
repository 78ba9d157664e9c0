"""B14 to B16: workers that are stopped by turns, that change their user, and that become another program."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from typing import Any, Final

import pytest

from tests.faults import oracle
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, finish, judge
from tests.live.hand import Hand
from tests.live.house import House, alive, descriptors, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

NOBODY: Final = 65_534
RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}
FOREVER_TRIED: Final[dict[str, Any]] = {
    "failure_threshold": 3, "failure_rate": None, "recovery_timeout": 0.1, "recovery_jitter": 0.0,
    "recovery_growth": 1.0, "permitted_trials": 1, "successes_to_close": 1000, "trial_timeout": 0.5,
}  # fmt: skip
"""Once it has opened, nearly every call that is admitted is the one trial that there may be."""
LEASE_S: Final = 1.5
Call = tuple[float, float, float]


@pytest.mark.fault("B14")
def test_b14_workers_stopped_by_turns_share_one_permit_and_lose_nothing(house: House) -> None:
    """STOP a random subset one by one, CONT in random order: one trial at a time, exact, never stuck."""
    dice = random.Random(14)
    hands = [house.hand(f"w{number}") for number in range(5)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, per_s=500.0, failing_every=20)
        hand.order("guard", breaker="database", **FOREVER_TRIED)
        hand.order("watch_mode")
    hands[0].order("call", breaker="database", how="fail", times=3)
    wait_for("open", lambda: house.breaker("database")["state"] != "CLOSED", 3.0)
    for hand in hands:
        hand.order("try_always", breaker="database", inside_s=0.1)
    with Watch(house):
        swizzle(house, hands[1:], LEASE_S + 0.3, dice)
        for _ in range(effort(2, 60)):
            chosen = dice.sample(hands, dice.randrange(1, len(hands)))
            swizzle(house, chosen, dice.choice((0.1, LEASE_S + 0.3)), dice)
        passed = house.breaker("database")["trials"]["passed"]
        wait_for("trials go on", lambda: house.breaker("database")["trials"]["passed"] != passed, 4.0)
        calls = [_tried(hand) for hand in hands]
        assert [hand.order("mode")["changes"] for hand in hands] == [[]] * len(hands), "nobody was local"
        assert house.breaker("database")["state"] in ("OPEN", "HALF_OPEN")
        finish(house, hands)
    flat = [(call, number) for number, seen in enumerate(calls) for call in seen]
    print(f"{len(flat)} trials, {house.breaker('database')['generation']} generations")
    assert len(flat) > 20
    assert together(flat) == []


def swizzle(house: House, chosen: list[Hand], seconds: float, dice: random.Random) -> None:
    """Stop these one by one, for that long; meanwhile no more than the one permit is out."""
    for hand in chosen:
        hand.freeze()
        _for(house, dice.uniform(0.0, 0.3))
    _for(house, seconds)
    for hand in dice.sample(chosen, len(chosen)):
        hand.thaw()
        _for(house, dice.uniform(0.0, 0.3))


def _for(house: House, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert house.breaker("database")["trials"]["in_flight"] <= 1
        time.sleep(0.01)


def _tried(hand: Hand) -> list[Call]:
    done = hand.order("tried")
    assert done["failed"] == ""
    return [(before, began, ended) for before, began, ended in done["seen"]]


def together(calls: list[tuple[Call, int]]) -> list[tuple[Call, Call]]:
    """Calls of two workers that were inside at once although the first one's lease had not ended.

    A permit was given after its call began, so its lease ended no earlier than LEASE_S after that.
    """
    ordered = sorted(calls, key=lambda one: one[0][1])
    found: list[tuple[Call, Call]] = []
    for index, (first, who) in enumerate(ordered):
        for second, other in ordered[index + 1 :]:
            if second[1] >= first[2]:
                break
            if other != who and second[1] < first[0] + LEASE_S:
                found.append((first, second))
    return found


@pytest.mark.fault("B15")
@pytest.mark.needs_root
@pytest.mark.parametrize("who_dies", ["daemon", "everything"])
@pytest.mark.parametrize("welcome", [True, False], ids=["in the group", "outside"])
def test_b15_a_worker_that_drops_its_privileges_after_attaching(
    house: House, welcome: bool, who_dies: str
) -> None:
    """Attached as root, an ordinary user since: nothing crashes, and it is counted, or refused and told."""
    group = os.stat(house.socket).st_gid
    hand = house.hand("web", count_connects=True)
    hand.order("load", breaker="web", threads=2, per_s=1000.0, failing_every=9)
    wait_for("traffic", lambda: house.stats()["totals"]["outcomes"]["success"] > 200, 5.0)
    hand.order("become", uid=NOBODY, groups=[group] if welcome else [])
    for _ in range(effort(1, 20)):
        if who_dies == "daemon":
            house.wait_reborn(house.kill_daemon())
        else:
            house.kill_all()
            house.start()
        if welcome or who_dies == "daemon":
            wait_for("it is read again", lambda: (house.worker(hand.pid) or {}).get("ring_slots"), 10.0)
    # A segment that the nursery kept is read without another word of its worker, whoever that is by now.
    if welcome or who_dies == "daemon":
        wait_for("it obeys", lambda: not hand.order("mode")["local"], 10.0)
        finish(house, [hand])
        return
    wait_for("it is told", lambda: "group" in hand.wrote(), 10.0)
    assert hand.order("mode")["local"]
    assert hand.order("unload")["failed"] == []
    assert hand.leave() == 0
    told = [line for line in hand.wrote().splitlines() if line.startswith("WARNING") and "group" in line]
    assert len(told) == 1
    assert oracle.too_many(house.stats(), house.ledgers) == []
    wait_for("its segment is told as lost", lambda: house.stats()["lost"]["segment_lost"] == 1, 5.0)
    assert house.workers() == []


@pytest.mark.fault("B16")
def test_b16_a_worker_that_executes_another_program_leaves_nothing_in_it(house: House) -> None:
    """os.execv under load: no descriptor of ours over there, every outcome counted, the slot retired."""
    plain = house.hand("plain", connect=False)
    usual = sorted(_kinds(plain))
    assert plain.leave() == 0
    hand = house.hand("before")
    nursery, daemon = house.nursery_pid, house.daemon_pid
    before = [descriptors(pid) for pid in (nursery, daemon)]
    for number in range(effort(5, 100)):
        hand.order("load", breaker=f"image{number}", threads=2, per_s=2000.0, failing_every=9)
        wait_for("it is counted", partial(_counted, house, f"image{number}.0"), 5.0)
        hand.tell("execute", name=f"after{number}", connect=False)
        hand.hear("up", 20.0)
        assert sorted(_kinds(hand)) == usual
        hand.order("connect")
        wait_for("one attachment is left", lambda: len(house.workers()) == 1, 3.0)
        (worker,) = house.workers()
        assert (worker["pid"], worker["name"]) == (hand.pid, f"after{number}")
    wait_for(
        "descriptors are flat",
        lambda: all(descriptors(pid) <= one + 2 for pid, one in zip((nursery, daemon), before, strict=True)),
        3.0,
    )
    house.wait_reborn(house.kill_daemon())
    assert alive(hand.pid)
    assert [worker["pid"] for worker in house.workers()] == [hand.pid]
    assert hand.leave() == 0
    wait_for("nobody is left", lambda: not house.workers(), 3.0)
    judge(house)


@pytest.mark.fault("B16")
def test_b16_a_program_that_does_not_attach_keeps_the_slot_until_it_ends(house: House) -> None:
    """Nobody can tell by its pidfd that it is another program: what it was is counted, and goes with it."""
    hand = house.hand("before")
    hand.order("guard", breaker="image", **RULES_OFF)
    hand.order("call", breaker="image", times=50)
    hand.tell("execute", name="after", connect=False)
    hand.hear("up", 20.0)
    wait_for("all is counted", lambda: _counted(house, "image") == 50, 3.0)
    assert hand.leave() == 0
    wait_for("nobody is left", lambda: not house.workers(), 3.0)
    judge(house)


def _kinds(hand: Hand) -> list[str]:
    """What its descriptors stand for, without their numbers and but for its log."""
    opened = [target for target in hand.order("descriptors")["open"].values() if target != str(hand.log)]
    return [target.partition(":")[0] if ":[" in target else target for target in opened]


def _counted(house: House, breaker: str) -> int:
    figures = oracle.counted(house.stats(), breaker)
    return sum(figures["outcomes"].values()) if figures else 0
