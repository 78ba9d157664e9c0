"""The control socket, asking side, on an event loop. Kept apart because importing asyncio takes 40 ms.

Neighbours: `control`, whose `Exchange` is driven here too. The loop is never blocked.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from ipc.control import Exchange, no_answer


async def ask_async(path: str, verb: str, timeout: float, **fields: Any) -> Any:
    """As `ask`, awaiting; the event loop is never blocked."""
    exchange = Exchange(path)
    try:
        exchange.send(verb, **fields)
        async with asyncio.timeout(timeout):
            while True:
                await _readable(exchange.connection)
                if exchange.receive():
                    return exchange.value()
    except TimeoutError:
        raise no_answer(path, timeout) from None
    finally:
        exchange.close()


async def _readable(connection: socket.socket) -> None:
    """Await until the socket is readable; the watch is removed in every case."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    number = connection.fileno()
    loop.add_reader(number, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(number)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
