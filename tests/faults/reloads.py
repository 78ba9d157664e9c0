"""What the tests of reloads share: an old file and a new one, a load from outside, and the questions.

Neighbours: `test_reload_faults` and `test_reload_deaths`, `tests.live.house` (the supervisor).
"""

from __future__ import annotations

from typing import Any, Final

from tests.live.hand import Hand
from tests.live.house import House, wait_for

OLD: Final = """
[supervisor]
tick_s = 0.02
[breakers.database]
failure_threshold = 50
[breakers.cache]
failure_threshold = 51
"""
NEW: Final = """
[supervisor]
tick_s = 0.01
disk_interval_s = 0.5
[breakers.database]
failure_threshold = 60
[breakers.orders]
failure_threshold = 61
[namespaces.shop]
users = ["nobody"]
"""


def in_force(house: House) -> Any:
    """The configuration in force."""
    return house.ask_patiently("config")["config"]


def reload(house: House) -> Any:
    """Ask for a reload; the answer."""
    return house.ask("reload", timeout=10.0)


def thresholds(house: House) -> tuple[int, ...]:
    """What tells the old file from the new one, in the settings and in the engine."""
    told = in_force(house)["breakers"]
    engine = house.breaker("database")["settings"]["failure_threshold"]
    return (told["database"]["failure_threshold"], engine)


def loaded(house: House, count: int = 2) -> list[Hand]:
    """Workers from outside that call `database` all the time, and now and then fail."""
    hands = [house.hand(f"web{number}") for number in range(count)]
    for hand in hands:
        hand.order("guard", breaker="database", failure_threshold=None, failure_rate=None)
        hand.order("load", breaker="database", shared=True, threads=2, per_s=500.0, failing_every=7)
    wait_for("traffic", lambda: house.stats()["totals"]["outcomes"]["success"] > 100, 5.0)
    return hands
