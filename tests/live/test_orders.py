"""Commands of a worker to a real supervisor: the first thing that it does, and right after a declaration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipc import CircuitBreaker, CircuitOpenError, Client
from ipc.process import set_default
from tests.live.house import House


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    """The default client of this process, bound to the house and not attached yet."""
    mine = Client(house.socket, name="orders")
    before = set_default(mine)
    yield mine
    set_default(before)
    mine.close()


def test_an_order_before_the_first_call_holds_for_the_host(house: House, client: Client) -> None:
    """A script that only forces a breaker open has done so for everybody, and for its own calls."""
    breaker = CircuitBreaker("database")
    breaker.force_open(for_s=60, reason="maintenance")
    assert client.supervised
    assert house.breaker("database")["manual"]["reason"] == "maintenance"
    with pytest.raises(CircuitOpenError):
        breaker.call(int)


def test_a_breaker_can_be_commanded_as_soon_as_it_is_declared(house: House, client: Client) -> None:
    """The order waits until the supervisor has read the declaration before it."""
    assert client.connect()
    for number in range(40):
        breaker = CircuitBreaker(f"new-{number}")
        breaker.disable(for_s=None)
        assert house.breaker(f"new-{number}")["state"] == breaker.state.value.name == "DISABLED"
