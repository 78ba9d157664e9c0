"""Waiting for the oracle's verdict on a house, and watching its totals while things are killed.

Neighbours: `oracle` (what was issued), `tests.live.house` (what was counted).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

from ipc.errors import ControlError
from tests.faults import oracle
from tests.live.hand import Hand, leave
from tests.live.house import House

SETTLE_S: Final = 10.0
"""Time from the last outcome until everything must be counted; a tick is 20 ms."""
RISING: Final = ("rejected", "permit_timeout", "ramped", "local", "overflow")
STAYS_S: Final = 0.3
"""How long the figures must then stay: a doubled outcome would come with one of the next ticks."""


class Judged(Protocol):
    """A supervisor, wherever it runs, and what its workers issued."""

    ledgers: Path

    def stats(self) -> Any:
        """What the supervisor has counted."""


def judge(house: Judged, forgive: Iterable[str] = (), seconds: float = SETTLE_S) -> Any:
    """Wait until everything issued is counted, and make sure that it stays so; the final figures."""
    forgiven = tuple(forgive)
    deadline = time.monotonic() + seconds
    while found := oracle.differences(stats := house.stats(), house.ledgers, forgiven):
        assert time.monotonic() < deadline, "not exact: " + "; ".join(found[:20])
        time.sleep(0.02)
    until = time.monotonic() + STAYS_S
    while time.monotonic() < until:
        found = oracle.differences(stats := house.stats(), house.ledgers, forgiven)
        assert not found, "was exact, and then: " + "; ".join(found[:20])
        time.sleep(0.02)
    # For the account of a long run: `pytest -rP` shows it.
    print(f"exact: {oracle.issued(house.ledgers):,} issued, incarnation {stats['supervisor']['incarnation']}")
    return stats


def finish(house: Judged, hands: Sequence[Hand]) -> None:
    """The load ends, everybody leaves, and everything is counted, once."""
    leave(hands)
    judge(house)


def figures(stats: Any) -> dict[str, int]:
    """Every total that may only rise, flat."""
    flat = {f"total {kind}": number for kind, number in stats["totals"]["outcomes"].items()}
    for name, values in stats["breakers"].items():
        flat.update({f"{name} {kind}": number for kind, number in values["outcomes"].items()})
        flat.update({f"{name} {key}": values[key] for key in RISING})
    return flat


class Watch:
    """Asks for the totals all the time: none may go down, none may be above what was intended.

    Use as a context; what it saw is raised at the end.
    """

    def __init__(self, house: House, every_s: float = 0.05) -> None:
        self._house = house
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.wrong: list[str] = []
        self.looks = 0

    def _look(self) -> None:
        before: dict[str, int] = {}
        while not self._over.wait(self._every_s):
            try:
                stats = self._house.ask("stats", timeout=0.4)
            except ControlError:
                continue  # the daemon is between two lives
            self.looks += 1
            self.wrong += oracle.too_many(stats, self._house.ledgers)
            now = figures(stats)
            fallen = [name for name, number in before.items() if now.get(name, 0) < number]
            self.wrong += [f"{name} went down from {before[name]} to {now.get(name)}" for name in fallen]
            before = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        self._thread.join(10.0)
        if kind is None:
            assert not self.wrong, "; ".join(self.wrong[:10])
            assert self.looks, "the supervisor never answered"
