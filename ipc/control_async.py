"""The control socket, asking side, on an event loop. asyncio is used, never imported: that takes 40 ms.

Neighbours: `control`, whose `Exchange` is driven here too. The loop is never blocked.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

from ipc.control import Exchange, ask, no_answer


def running_loop() -> Any:
    """The asyncio event loop that runs in this thread, or None."""
    events = sys.modules.get("asyncio.events")
    running = getattr(events, "_get_running_loop", None)  # absent while another thread still imports asyncio
    return running() if running is not None else None


async def ask_async(path: str, verb: str, timeout: float, **fields: Any) -> Any:
    """As `ask`, awaiting on the running asyncio loop, which is never blocked; without one it is `ask`."""
    deadline = time.monotonic() + timeout
    loop = running_loop()
    if loop is None:
        return ask(path, verb, timeout, **fields)
    exchange = Exchange(path)
    try:
        exchange.send(verb, until=deadline, **fields)
        while await readable(loop, exchange.connection, deadline - time.monotonic()):
            if exchange.receive():
                return exchange.value()
        raise no_answer(path, timeout)
    finally:
        exchange.close()


async def readable(loop: Any, connection: socket.socket, seconds: float) -> bool:
    """Await until there is something to read, at most `seconds`; the watch is removed in every case.

    Only for a connection that this task alone uses and closes: a loop keeps one watch for a descriptor.
    """
    ready = loop.create_future()
    number = connection.fileno()
    timer = loop.call_later(max(0.0, seconds), _settle, ready, False)
    loop.add_reader(number, _settle, ready, True)
    try:
        return bool(await ready)
    finally:
        loop.remove_reader(number)
        timer.cancel()


async def pause(loop: Any, seconds: float) -> None:
    """Await that so many seconds are over."""
    over = loop.create_future()
    timer = loop.call_later(seconds, _settle, over, True)
    try:
        await over
    finally:
        timer.cancel()


def _settle(ready: Any, value: bool) -> None:
    if not ready.done():
        ready.set_result(value)
