"""The nursery keeps what it holds, also while it cannot start a daemon."""

from __future__ import annotations

from collections.abc import Callable

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


def test_a_file_that_is_broken_later_stops_nobody(build: Callable[..., House]) -> None:
    """The configuration is that of the start: a daemon that dies while it is edited comes back with it."""
    house = build("[breakers.database]\nfailure_threshold = 4\n").start()
    hand = house.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database")
    wait_for("declared", lambda: house.stats()["breakers"], 5.0)
    assert house.config is not None
    house.config.write_text("[breakers.database]\nfailure_threshold = -4\n")
    house.wait_reborn(house.kill_daemon())
    assert house.breaker("database")["settings"]["failure_threshold"] == 4
    assert hand.leave() == 0
