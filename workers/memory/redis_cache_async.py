"""Pages in Redis for an event loop. Neighbours: `redis_cache` (commands, settings and why they are so).

Connections belong to the loop that made them; another loop begins with none. Each call as a whole has a
time limit, and a connection whose call was cancelled in the middle is dropped.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import SSLConnection as SyncSSL
from redis.connection import UnixDomainSocketConnection as SyncUnix
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from workers.errors import CacheBusy
from workers.memory.cache import key_of
from workers.memory.codec import Page
from workers.memory.redis_cache import (
    CONNECTIONS_MAX,
    IDLE_S,
    gone_command,
    packed,
    page_of,
    put_command,
    settings,
)

KINDS: Final[dict[Any, Any]] = {SyncSSL: SSLConnection, SyncUnix: UnixDomainSocketConnection}


class AsyncRedisCache:
    """Pages in Redis, for the tasks of one loop at a time. Nothing is connected before the first call."""

    remote = True

    def __init__(
        self,
        url: str,
        timeout_s: float,
        connect_timeout_s: float,
        hard_age_s: float,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings(url, timeout_s, connect_timeout_s)
        self._kind: Any = KINDS.get(self._settings.pop("connection_class", None), Connection)
        self._limit_s = timeout_s + connect_timeout_s
        self._timeout_s, self._hard_age_s = timeout_s, hard_age_s
        self._wall, self._clock = wall, clock
        self._idle: deque[tuple[float, Any]] = deque()
        self._used = 0
        self._home: tuple[int, Any] = (0, None)

    async def get(self, user_id: str, field: str) -> Page | None:
        """A page, None = a miss."""
        return page_of(await self._ask("HGET", key_of(user_id), field))

    async def put(self, user_id: str, pages: Mapping[str, Page]) -> None:
        """Keep pages by field, unless the user was erased after they were loaded."""
        if pages:
            await self._ask(*put_command(user_id, pages, self._hard_age_s))

    async def drop_user(self, user_id: str) -> None:
        """Forget all of a user; first what is there, for a full server still takes that."""
        await self._ask("DEL", key_of(user_id))
        await self._ask(*gone_command(user_id, self._wall(), self._hard_age_s))

    async def ping(self) -> None:
        """Raises what a call would raise."""
        await self._ask("PING")

    async def close(self) -> None:
        """Close every idle connection."""
        self._settle()
        while self._idle:
            await self._idle.pop()[1].disconnect(nowait=True)

    def _settle(self) -> None:
        """Connections of another loop, or of a parent process, are not ours."""
        home = (os.getpid(), asyncio.get_running_loop())
        if self._home != home:
            self._idle, self._used, self._home = deque(), 0, home

    async def _ask(self, *command: Any) -> Any:
        """One command, one answer, within the time limit."""
        self._settle()
        home = self._home
        if self._used >= CONNECTIONS_MAX:
            raise CacheBusy(f"{CONNECTIONS_MAX} calls of the cache are under way")
        self._used += 1
        try:
            connection = await self._take()
            # A connected one has the time of a command; connecting comes on top.
            limit_s = self._timeout_s if connection.is_connected else self._limit_s
            try:
                async with asyncio.timeout(limit_s):
                    await connection.send_packed_command(packed(command), check_health=False)
                    answer = await connection.read_response()
            except ResponseError:
                self._idle.append((self._clock(), connection))
                raise
            except TimeoutError as error:
                await connection.disconnect(nowait=True)
                raise RedisTimeout("no answer in time") from error
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._idle.append((self._clock(), connection))
            return answer
        finally:
            if self._home == home:
                self._used -= 1

    async def _take(self) -> Any:
        """An idle connection that is still good, else a new one."""
        while self._idle:
            since, connection = self._idle.pop()
            if self._clock() - since <= IDLE_S or not await _spoiled(connection):
                return connection
            await connection.disconnect(nowait=True)
        return self._kind(retry=Retry(NoBackoff(), 0), **self._settings)


async def _spoiled(connection: Any) -> bool:
    """Whether the server has closed it, or said what nobody asked for."""
    try:
        return bool(await connection.can_read())
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.startswith("redis."):
            return True
        raise
