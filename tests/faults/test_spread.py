"""What one worker finds out all know, and what is one worker's own trouble stays its own: end to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from ipc.layout import END_STEPS_PER_S
from tests.faults.effort import PATIENCE_S
from tests.faults.judge import judge
from tests.faults.weather import FINE, FOUL, Weather
from tests.live.hand import Hand
from tests.live.house import House, percentile, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

END_STEP_S: Final = 2.0 / END_STEPS_PER_S
SETTINGS: Final[dict[str, Any]] = {
    "failure_threshold": 5, "failure_rate": None, "recovery_timeout": 0.5, "recovery_jitter": 0.0,
    "recovery_growth": 1.0, "permitted_trials": 2, "successes_to_close": 3, "trial_timeout": 2.0,
}  # fmt: skip


def four(
    house: House, sick: int, per_s: float = 100.0, sick_per_s: float = 100.0, **settings: Any
) -> tuple[list[Hand], Weather]:
    """Four workers that call one breaker, the first `sick` of which have bad weather of their own."""
    weather = Weather(house.root)
    hands = [house.hand(f"w{number}") for number in range(4)]
    for number, hand in enumerate(hands):
        more = {"weather": weather.path, "per_s": sick_per_s} if number < sick else {"per_s": per_s}
        hand.order("load", breaker="database", shared=True, settings={**SETTINGS, **settings}, **more)
    wait_for("all call", lambda: house.breaker("database")["workers"] == 4, 5.0)
    wait_for("peers' successes", lambda: house.breaker("database")["window"]["calls"] > 40, 5.0)
    return hands, weather


def end(house: House, hands: list[Hand]) -> None:
    """All leave well, and everything is accounted for."""
    for hand in hands:
        assert hand.order("unload")["failed"] == []
        assert hand.leave() == 0
    judge(house)


def test_refusal_reaches_every_worker(house: House) -> None:
    """Five failures of one worker: the others, who have made none, are refused at once; then all recover."""
    hands = [house.hand(f"w{number}") for number in range(5)]
    for hand in hands:
        hand.order("guard", breaker="database", **{**SETTINGS, "recovery_timeout": 0.3})
    waits: list[float] = []
    for _ in range(10):
        time.sleep(2 * END_STEP_S)  # within one step of an end nobody can tell which came first
        last = hands[0].order("call", breaker="database", how="fail", times=5)["at"]
        wait_for("open", lambda: house.breaker("database")["state"] == "OPEN", 2.0, 0.001)
        waits.append(time.monotonic() - last)
        assert [hand.order("call", breaker="database")["refused"] for hand in hands[1:]] == [1, 1, 1, 1]
        for hand in hands:
            hand.order("call_until", breaker="database", result="ok")
        wait_for("closed", lambda: _recovering(house, hands), 5.0)
    assert percentile(waits, 0.5) <= 0.02
    assert max(waits) <= 0.5
    end(house, hands)


def _recovering(house: House, hands: list[Hand]) -> bool:
    for hand in hands:
        hand.order("call", breaker="database")
    return bool(house.breaker("database")["state"] == "CLOSED")


def test_one_sick_worker_of_four_is_isolated_alone(house: House) -> None:
    """At equal rates the sick one is refused and its peers never; when it is well it is let in again."""
    hands, weather = four(house, sick=1)
    weather.turns(FOUL)
    hands[0].hear("turned", 5.0, to="refused")
    isolated = wait_for("isolated", lambda: house.breaker("database")["isolated"], 3.0)
    assert [one["pid"] for one in isolated] == [hands[0].pid]
    assert house.breaker("database")["state"] == "CLOSED"
    weather.turns(FINE)
    wait_for("let in again", lambda: not house.breaker("database")["isolated"], 10.0)
    refused = [hand.order("unload")["refused"] for hand in hands]
    assert refused[0] > 0
    assert refused[1:] == [0, 0, 0]
    end(house, hands)


def test_a_sick_worker_that_is_much_faster_opens_for_all_once_at_most(house: House) -> None:
    """It fails a hundred times faster than its peers call: a wrong opening heals in half-open, once.

    A quarter of the open time is what its peers have for their trials, on a busy machine too.
    """
    hands, weather = four(house, sick=1, per_s=10.0, sick_per_s=1000.0, recovery_timeout=2.0)
    weather.turns(FOUL)
    hands[0].hear("turned", 5.0, to="refused")
    wait_for("it is isolated alone", lambda: _alone(house, hands[0].pid), 20.0)
    wait_for("a while of peace", _calls_more(house, 40), 10.0)
    found = house.breaker("database")
    assert found["opened_total"] <= 1
    assert _alone(house, hands[0].pid)
    end(house, hands)


def _alone(house: House, pid: int) -> bool:
    found = house.breaker("database")
    return found["state"] == "CLOSED" and [one["pid"] for one in found["isolated"]] == [pid]


def _calls_more(house: House, count: int) -> Callable[[], bool]:
    """A condition: so many more successes were counted."""
    name = house.breaker("database")["name"]
    begun = house.stats()["breakers"][name]["outcomes"]["success"]
    return lambda: house.stats()["breakers"][name]["outcomes"]["success"] >= begun + count


@pytest.mark.parametrize("sick", [3, 4])
def test_more_than_half_of_the_workers_sick_is_an_outage(house: House, sick: int) -> None:
    """Three or all of four sick: open for all; and closed again for all when the weather is fine."""
    hands, weather = four(house, sick=sick)
    weather.turns(FOUL)
    wait_for("open for all", lambda: house.breaker("database")["state"] in ("OPEN", "HALF_OPEN"), 5.0)
    for hand in hands:
        hand.hear("turned", 5.0, to="refused")
    weather.turns(FINE)
    wait_for("closed for all", lambda: _all_closed(house), 15.0)
    end(house, hands)


def _all_closed(house: House) -> bool:
    found = house.breaker("database")
    return found["state"] == "CLOSED" and not found["isolated"]
