"""Workers whose supervisor has to begin with nothing: what they did before is closed, what follows is judged.

Neighbours: `judge` (the verdict), `test_poison_faults` and `test_version_faults` (why it has to).
"""

from __future__ import annotations

from typing import Any

from tests.faults.judge import Watch, judge
from tests.live.hand import Hand, leave
from tests.live.house import House, wait_for


def settled(house: House) -> list[Hand]:
    """Two workers, everything of whom is counted and whose account is closed: it goes with the poison."""
    hands = [house.hand(f"w{number}") for number in range(2)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, threads=2, per_s=1000.0, failing_every=9)
    wait_for("traffic", lambda: house.stats()["totals"]["outcomes"]["success"] > 500, 5.0)
    for hand in hands:
        assert hand.order("unload")["failed"] == []
    judge(house)
    aside = house.root / "before"
    aside.mkdir()
    for path in house.ledgers.iterdir():
        path.rename(aside / path.name)
    return hands


def goes_on(house: House, hands: list[Hand]) -> int:
    """The workers attach again by themselves, and what is new is counted exactly; how much was lost."""
    for hand in hands:
        hand.order("load", breaker=f"after-{hand.log.stem}", threads=2, per_s=1000.0, failing_every=9)
    wait_for("they are back", lambda: sum(bool(one["ring_slots"]) for one in house.workers()) == 2, 10.0)
    with Watch(house):
        house.wait_reborn(house.kill_daemon())
        leave(hands)
        stats = judge(house, forgive=("checkpoint_lost",))
    assert stats["supervisor"]["incarnation"] >= 2, "the life after the empty one goes on from its checkpoint"
    return int(stats["lost"]["checkpoint_lost"])


def degraded(house: House) -> str:
    """What health says of the state that was set aside; it is a warning."""
    found: list[dict[str, Any]] = house.ask("health", level="full")["checks"]["supervisor:degraded"]
    assert [one["status"] for one in found] == ["warn"] * len(found)
    return "; ".join(one["output"] for one in found)
