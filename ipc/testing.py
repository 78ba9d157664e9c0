"""For the tests of programs that use breakers: no supervisor, a fresh registry, a clock to move.

    pytest_plugins = ["ipc.testing"]

    def test_orders_survive_an_outage(unattached):
        with pytest.raises(ipc.CircuitOpenError): ...
        unattached.clock.move(30.0)

Every breaker that exists is bound to the fresh registry for the length of the test, and back afterwards,
also those that were made at import. One that a test makes goes on afterwards, closed, on the real clock.
Neighbours: `guard`, `client`. Needs pytest, as nothing else here does.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Final

import pytest

from ipc.admission import NO_STATE
from ipc.client import Client
from ipc.guard import CircuitBreaker, breakers_of_this_process, rebind
from ipc.process import set_default

START_S: Final = 1_000_000.0


class MovableClock:
    """Monotonic seconds that move only when they are told to."""

    def __init__(self) -> None:
        self.now = START_S

    def __call__(self) -> float:
        """The time."""
        return self.now

    def move(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for a step back: a monotonic clock makes none."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not move by {seconds} s")
        self.now += seconds


class Unattached:
    """What the fixture gives: the clock, and the client that breakers of this test belong to."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.client = Client("off", clock=self.clock, chance=_no_chance)


_homes: Final[weakref.WeakKeyDictionary[CircuitBreaker, Client]] = weakref.WeakKeyDictionary()
"""Where breakers belong that were made during a test."""


def _no_chance() -> float:
    """No jitter: open times are exactly what the settings say."""
    return 0.0


@pytest.fixture
def unattached() -> Iterator[Unattached]:
    """Breakers without a supervisor, in their first state, on a clock that the test moves."""
    given = Unattached()
    before = set_default(given.client)
    living = breakers_of_this_process()
    stand_ins: dict[Client, Client] = {}
    bindings = []
    for breaker in living:
        home, client = _homes.get(breaker), given.client
        if home is not None:
            # What an earlier test made shares its state as before, and declares no name here.
            client = stand_ins.setdefault(home, Client("off", clock=given.clock, chance=_no_chance))
        bindings.append((breaker, rebind(breaker, client)))
    yield given
    set_default(before)
    for breaker, binding in bindings:
        breaker.bind_slowly(binding, adopts=True)
    _bring_home([one for one in breakers_of_this_process() if one not in set(living)])
    link = given.client.link
    for row in tuple(link.breakers):
        link.retire(row, NO_STATE)


def _bring_home(made: list[CircuitBreaker]) -> None:
    """What a test made, such as the first import of a module, lives on, closed, on the real clock."""
    home = Client("off") if made else None
    for breaker in made:
        if home is not None:
            rebind(breaker, home, adopts=True)
            _homes[breaker] = home
