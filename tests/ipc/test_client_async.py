"""First calls and `connect_async` on an event loop: any number at once, no descriptor but our own."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

import ipc
from ipc import CircuitBreaker, CircuitOpenError
from ipc.client import Client
from ipc.control import Exchange
from ipc.process import default_client
from ipc.vocabulary import BreakerState
from tests.ipc.fake_supervisor import FakeSupervisor

TASKS = 60


@pytest.mark.usefixtures("client", "supervisor")
def test_many_first_calls_at_once_disturb_nobody() -> None:
    """Tasks of the application watch descriptors of their own meanwhile, and hear of what comes."""
    breaker = CircuitBreaker("database")

    @breaker
    async def query(number: int) -> int:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            heard = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(ours, heard.set_result, number)
            asyncio.get_running_loop().call_later(0.001 * (number % 7), theirs.send, b".")
            try:
                return int(await asyncio.wait_for(heard, 5))
            finally:
                asyncio.get_running_loop().remove_reader(ours)

    async def burst() -> list[int]:
        return await asyncio.gather(*(query(number) for number in range(TASKS)))

    assert asyncio.run(burst()) == list(range(TASKS))
    assert default_client().attached


def test_awaited_first_calls_obey_the_board(client: Client, supervisor: FakeSupervisor) -> None:
    """A breaker that is forced open on the host admits none, also one that is declared after attaching."""
    breakers = [CircuitBreaker(f"dependency-{number}") for number in range(3)]

    async def main() -> int:
        assert await ipc.connect_async(timeout=2.0)
        worker = supervisor.worker()
        for one in worker.declared():
            worker.publish(int(one["row"]), BreakerState.FORCED_OPEN, 1)
        admitted = 0
        later = CircuitBreaker("later")
        row = worker.row_of("later")
        asyncio.get_running_loop().call_later(0.01, worker.publish, row, BreakerState.FORCED_OPEN, 1)
        for breaker in (*breakers, later):
            try:
                async with breaker:
                    admitted += 1
            except CircuitOpenError:
                pass
        return admitted

    assert asyncio.run(main()) == 0
    assert client.attached


@pytest.mark.usefixtures("client", "supervisor")
def test_connect_async_attaches_and_the_loop_goes_on() -> None:
    """The loop turns while it waits; a second call is at once."""

    async def main() -> tuple[bool, bool]:
        return await ipc.connect_async(timeout=2.0), await ipc.connect_async(timeout=0.0)

    assert asyncio.run(main()) == (True, True)


def test_connect_async_gives_up_where_nobody_answers(tmp_path: Path) -> None:
    """False after its time, and the loop was never blocked."""
    client = Client(str(tmp_path / "absent.sock"))

    async def main() -> tuple[bool, int]:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_later(0.005, turn)

        turn()
        return await client.connect_async(0.2, asyncio.get_running_loop()), turns

    connected, turns = asyncio.run(main())
    assert not connected
    assert turns > 5


def test_connecting_again_is_the_same_worker(supervisor: FakeSupervisor, client: Client) -> None:
    """As long as nothing differs the nonce stays, so that a hello that was not answered leaves no ghost."""
    nonce = client.nonce
    for _ in range(3):
        client.configure(None, None, None)
    assert client.nonce == nonce
    client.configure(None, "web-7", None)
    assert client.nonce != nonce
    nonce = client.nonce
    client.configure(None, "web-7", None)
    assert client.nonce == nonce
    client.configure(None, None, "shop")
    client.configure(None, "web-8", None)
    assert client.namespace_given == "shop", "what is not given stays"
    assert supervisor is not None


@pytest.mark.usefixtures("supervisor")
def test_connect_says_what_it_cannot_change(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A name or a namespace for a process that is attached already is a warning, not a silence."""
    assert ipc.connect()
    caplog.clear()
    assert ipc.connect(name="too-late")
    assert "name 'too-late'" in caplog.text
    assert client.attached


@pytest.mark.usefixtures("client")
def test_a_supervisor_that_hangs_up_raises_no_sigpipe(supervisor: FakeSupervisor) -> None:
    """Also where the application has the default action, which ends the process."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        ours, theirs = socket.socketpair()
        theirs.close()
        exchange = Exchange(supervisor.path)
        exchange.connection.close()
        exchange.connection = ours
        exchange.send("version")
        exchange.close()
    finally:
        signal.signal(signal.SIGPIPE, before)
