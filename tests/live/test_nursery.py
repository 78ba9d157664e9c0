"""The nursery keeps what it holds, also while it cannot start a daemon."""

from __future__ import annotations

from tests.live.house import House, spare_descriptors, unlimit_descriptors, wait_for


def test_a_daemon_that_cannot_be_started_is_started_later(house: House) -> None:
    """Without a free descriptor nobody can be forked; what was counted and declared is there afterwards."""
    hand = house.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", times=20)
    wait_for("counted", lambda: house.stats()["totals"]["outcomes"]["success"] == 20, 5.0)
    nursery = house.nursery_pid
    spare_descriptors(nursery, 0)
    house.kill_daemon()
    wait_for("it says so", lambda: "the daemon cannot be started" in house.logged(), 5.0)
    unlimit_descriptors(nursery)
    house.wait_ready()
    hand.order("call", breaker="database", times=20)
    wait_for("goes on", lambda: house.stats()["totals"]["outcomes"]["success"] == 40, 5.0)
    assert set(house.stats()["lost"].values()) == {0}
    assert hand.leave() == 0
