"""A fault proxy: TCP on a loopback port in front of a server's UNIX socket, and all that networks do wrong.

    client ──TCP──▶ Chaos ──UNIX──▶ server

It runs on a thread with an event loop of its own, so that tests of every kind (threads, asyncio, other
processes) can stand in front of it; its methods may be called from any thread and return when the fault is
in force. It knows of the protocols behind it one word only: PostgreSQL's COMMIT. A test that forks while
connections are open keeps them open in the child: start programs instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, Self

COMMIT: Final = b"COMMIT\0"
"""In a query it asks for the commit; in an answer it is the tag that says that it is done."""

CALL_S: Final = 10.0
"""How long a call to the proxy's thread may take."""

Moment = Literal["before", "after"]


class _End(asyncio.Protocol):
    """One end of a connection: what arrives here is sent by the other end, late or never."""

    def __init__(self, pair: _Pair, from_client: bool) -> None:
        self.pair = pair
        self.from_client = from_client
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[bytes] = deque()
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; the pair begins when both ends are there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Queue what arrived and pass it on when its time has come."""
        self.waiting.append(data)
        self.pair.proxy.schedule(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """One end is closed: so is the other, after what is on its way."""
        self.pair.closing(self)

    @property
    def other(self) -> _End:
        """The end on the other side."""
        return self.pair.server if self.from_client else self.pair.client


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Chaos) -> None:
        self.proxy = proxy
        self.client = _End(self, from_client=True)
        self.server = _End(self, from_client=False)

    def closing(self, end: _End) -> None:
        if end.waiting and not self.proxy.held:
            return  # what is on its way arrives first, then `release` closes
        other = end.other
        if other.transport is not None and not self.proxy.held:
            other.transport.close()
        if all(one.transport is None or one.transport.is_closing() for one in (self.client, self.server)):
            self.proxy.pairs.discard(self)

    def abort(self, *, reset: bool = True) -> None:
        """Close both ends at once; the client sees a reset, or with `reset=False` an end of file."""
        self.proxy.pairs.discard(self)
        for end in (self.client, self.server):
            end.waiting.clear()
            if end.transport is None:
                continue
            if end.from_client and reset:
                raw = end.transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class Chaos:
    """The proxy in front of the server at `upstream` (the path of a UNIX socket). A context manager."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.port = 0
        """The loopback port, the same for its whole life."""
        self.connections = 0
        """Connections accepted so far."""
        self.cuts = 0
        """Commits cut so far."""
        self.pairs: set[_Pair] = set()
        self.held = False
        self._delay_s = 0.0
        self._every_s = 0.0
        self._cuts_wanted: deque[Moment] = deque()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _do(self, act: Callable[[], Awaitable[None]]) -> None:
        async def acting() -> None:
            await act()

        asyncio.run_coroutine_threadsafe(acting(), self._loop).result(CALL_S)

    async def _listen(self) -> None:
        if self._listening is None:
            self._listening = await self._loop.create_server(
                self._accept, "127.0.0.1", self.port, reuse_address=True, backlog=256
            )
            self.port = self._listening.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        await self._abort()

    async def _abort(self) -> None:
        for pair in list(self.pairs):
            pair.abort()
        await asyncio.sleep(0)

    # ── faults ───────────────────────────────────────────────────────────────────────────────────

    def delay(self, seconds: float) -> None:
        """Let everything take `seconds` longer, each way."""

        async def act() -> None:
            self._delay_s = seconds

        self._do(act)

    def trickle(self, every_s: float) -> None:
        """Let a byte through each `every_s`, each way; 0 ends it."""

        async def act() -> None:
            self._every_s = every_s

        self._do(act)

    def black_hole(self) -> None:
        """Accept connections and pass nothing on, in no direction, also no closing, until `heal`."""

        async def act() -> None:
            self.held = True

        self._do(act)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones until `heal`."""
        self._do(self._close)

    def reset(self) -> None:
        """Reset every connection; new ones are served."""
        self._do(self._abort)

    def cut_commit(self, moment: Moment, times: int = 1) -> None:
        """Reset the connection of each of the next `times` commits.

        "before": the server never sees the COMMIT; "after": it has applied it, and its answer is lost.
        """

        async def act() -> None:
            self._cuts_wanted.extend([moment] * times)

        self._do(act)

    def heal(self) -> None:
        """End every fault; what a black hole holds back is delivered."""

        async def act() -> None:
            self.held, self._delay_s, self._every_s = False, 0.0, 0.0
            self._cuts_wanted.clear()
            for pair in list(self.pairs):
                for end in (pair.client, pair.server):
                    while end.waiting:
                        self._release(end)
                    if end.transport is not None and end.transport.is_closing():
                        pair.closing(end)
            await self._listen()

        self._do(act)

    # ── carrying ─────────────────────────────────────────────────────────────────────────────────

    def _accept(self) -> _End:
        self.connections += 1
        pair = _Pair(self)
        self.pairs.add(pair)
        dialling = self._loop.create_task(self._dial(pair))
        dialling.add_done_callback(lambda task: task.cancelled() or task.exception())
        return pair.client

    async def _dial(self, pair: _Pair) -> None:
        try:
            await self._loop.create_unix_connection(lambda: pair.server, self.upstream)
        except OSError:
            pair.abort()
            return
        if pair not in self.pairs:
            pair.abort()
        for _ in range(len(pair.client.waiting)):
            self.schedule(pair.client)

    def schedule(self, end: _End) -> None:
        """Pass on the oldest waiting bytes of this end when the delay is over (for the proxy alone)."""
        if end.other.transport is None or self.held:
            return
        if self._delay_s or self._every_s:
            self._loop.call_later(self._delay_s or self._every_s, self._release, end)
        else:
            while end.waiting:
                self._release(end)

    def _release(self, end: _End) -> None:
        if self.held or not end.waiting:
            return
        data = end.waiting.popleft()
        if self._every_s and len(data) > 1:
            end.waiting.appendleft(data[1:])
            data = data[:1]
            self._loop.call_later(self._every_s, self._release, end)
        if self._cut(end, data):
            return
        target = end.other.transport
        if target is not None and not target.is_closing():
            target.write(data)
        if not end.waiting and end.transport is not None and end.transport.is_closing():
            end.pair.closing(end)

    def _cut(self, end: _End, data: bytes) -> bool:
        """Cut the pair if this is the commit, or the answer to it, that a test wants to be cut."""
        if not self._cuts_wanted:
            return False
        seen, end.tail = end.tail + data, data[-len(COMMIT) :]
        if COMMIT not in seen or end.from_client != (self._cuts_wanted[0] == "before"):
            return False
        self._cuts_wanted.popleft()
        self.cuts += 1
        end.pair.abort()
        return True
