"""Pages in Redis: one hash per user, so that all of a user goes with one key.

Driver retries are off and time limits short; a connection on which anything but an answer came (a time-out,
an interrupt, a cut) is dropped, so that no answer can ever be taken for another's. Neighbours: `cache`
(what is asked of it), `codec`. Knows no breaker.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.connection import Connection, DefaultParser, parse_url
from redis.crc import key_slot
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry
from redis.utils import SENTINEL

from workers.errors import CacheBusy, CacheValueError
from workers.memory.cache import key_of
from workers.memory.codec import Page, decode, encode

Node = tuple[str, int]
"""Host and port of a server of a cluster."""

CONNECTIONS_MAX: Final = 64
MOVES_MAX: Final = 5
"""How often a question is sent on from one server of a cluster to another."""
FIELDS_MAX: Final = 64
"""Pages of one user; beyond it they all go."""
IDLE_S: Final = 0.5
"""A connection that was idle for longer is looked at before it is used."""
SKEW_MS: Final = 2000
"""By how much the clocks of two hosts may differ."""

ELSEWHERE: Final = (ReadOnlyError, MasterDownError, BusyLoadingError)
"""What a server answers that is not the one to be asked (any more): its connections are of no use."""

PUT: Final = """
local gone = redis.call('GET', KEYS[2])
if gone and tonumber(gone) + tonumber(ARGV[3]) >= tonumber(ARGV[1]) then return 0 end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then redis.call('DEL', KEYS[1]) end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
"""Keep what was loaded unless the user was erased since. KEYS: hash, gone; ARGV: loaded, age, skew, max..."""


def put_command(key: str, pages: Mapping[str, Page], hard_age_s: float) -> tuple[Any, ...]:
    """The command that keeps pages."""
    loaded = min(int(page.loaded_at * 1000) for page in pages.values())
    flat = [part for field, page in pages.items() for part in (field, encode(page))]
    return "EVAL", PUT, 2, key, f"{key}:gone", loaded, int(hard_age_s * 1000), SKEW_MS, FIELDS_MAX, *flat


def gone_command(key: str, now: float, hard_age_s: float) -> tuple[Any, ...]:
    """The command that keeps away what was loaded before now."""
    return "SET", f"{key}:gone", int(now * 1000), "PX", int(hard_age_s * 1000)


def page_of(value: object) -> Page | None:
    """A page from what was there; what cannot be read is a miss."""
    try:
        return decode(value) if isinstance(value, bytes) else None
    except CacheValueError:
        return None


def packed(command: Sequence[bytes | str | int]) -> list[bytes]:
    """A command as the protocol wants it: an array of strings."""
    parts = [b"*%d\r\n" % len(command)]
    for one in command:
        value = one if isinstance(one, bytes) else str(one).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return [b"".join(parts)]


def settings(url: str, timeout_s: float, connect_timeout_s: float) -> dict[str, Any]:
    """How a connection is made; raises ValueError for what is no URL."""
    parse: Callable[[str], dict[str, Any]] = parse_url
    given = parse(url)
    given.update(
        socket_timeout=timeout_s,
        socket_connect_timeout=connect_timeout_s,
        retry_on_timeout=False,
        health_check_interval=0,
        decode_responses=False,
        protocol=2,
        driver_info=None,  # no CLIENT SETINFO: two exchanges less on every new connection
    )
    return given


class PatientParser(DefaultParser):  # type: ignore[misc, valid-type] # the driver chooses which it is
    """Waits for an answer as long as the socket may, and not so long again for each piece of it."""

    _until: float | None = None

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """As the driver's own."""
        self._until = None
        return super().read_response(*args, **kwargs)

    def read_from_socket(self, timeout: Any = SENTINEL, raise_on_timeout: bool = True) -> Any:
        """One piece of an answer; raises the driver's TimeoutError when the whole took too long."""
        if timeout is not SENTINEL or self._socket_timeout is None:
            return super().read_from_socket(timeout, raise_on_timeout)
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._socket_timeout
            return super().read_from_socket(timeout, raise_on_timeout)
        if now >= self._until:
            raise RedisTimeout("no whole answer in time")
        return super().read_from_socket(self._until - now, raise_on_timeout)


class RedisCache:
    """Pages in Redis, for any thread. Nothing is connected before the first call."""

    remote = True

    def __init__(
        self,
        url: str,
        timeout_s: float,
        connect_timeout_s: float,
        hard_age_s: float,
        namespace: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings(url, timeout_s, connect_timeout_s)
        self._settings["parser_class"] = PatientParser
        self._kind: Callable[..., Any] = self._settings.pop("connection_class", Connection)
        self._hard_age_s, self._namespace = hard_age_s, namespace
        self._clock = clock
        self.wall = time.time
        """What the moment of an erasure is read from, which other hosts compare."""
        self._begin()

    def _begin(self) -> None:
        """No connection is ours; those of a parent are closed as they are let go of, not shut down."""
        self._idle: deque[tuple[float, Any]] = deque()
        self._moved: dict[int, Node] = {}
        """Which server of a cluster has a slot, where it is not the one that is configured."""
        self._elsewhere: dict[Node, deque[tuple[float, Any]]] = {}
        self._permits = deque(range(CONNECTIONS_MAX))
        self._pid = os.getpid()

    def _key(self, user_id: str) -> str:
        return key_of(self._namespace, user_id)

    def get(self, user_id: str, field: str) -> Page | None:
        """A page, None = a miss."""
        return page_of(self._ask_about(user_id, "HGET", self._key(user_id), field))

    def put(self, user_id: str, pages: Mapping[str, Page]) -> None:
        """Keep pages by field, unless the user was erased after they were loaded."""
        if pages:
            self._ask_about(user_id, *put_command(self._key(user_id), pages, self._hard_age_s))

    def drop_user(self, user_id: str) -> None:
        """Forget all of a user; first what is there, for a full server still takes that."""
        self._ask_about(user_id, "DEL", self._key(user_id))
        self._ask_about(user_id, *gone_command(self._key(user_id), self.wall(), self._hard_age_s))

    def ping(self) -> None:
        """Raises what a call would raise."""
        self._ask("PING")

    def close(self) -> None:
        """Close every idle connection."""
        if self._pid == os.getpid():
            for idle in (self._idle, *list(self._elsewhere.values())):
                while idle:
                    idle.pop()[1].disconnect()

    def _ask_about(self, user_id: str, *command: Any) -> Any:
        """Ask the server that has the user's keys: in a cluster, the one that is configured tells which."""
        node = self._moved.get(key_slot(self._key(user_id).encode())) if self._moved else None
        for _ in range(MOVES_MAX):
            try:
                return self._ask(*command, node=node)
            except MovedError as moved:
                node = (moved.host or self._settings.get("host", "localhost"), moved.port)
                self._moved[moved.slot_id] = node
            except RedisConnectionError:
                self._moved.clear()  # the cluster may have changed: ask the configured one again
                raise
        raise RedisClusterException(f"sent on more than {MOVES_MAX} times")

    def _ask(self, *command: Any, node: Node | None = None) -> Any:
        """One command, one answer."""
        if self._pid != os.getpid():
            self._begin()
        permits = self._permits
        try:
            permit = permits.pop()
        except IndexError:
            raise CacheBusy(f"{CONNECTIONS_MAX} calls of the cache are under way") from None
        try:
            connection = self._take(node)
            try:
                connection.send_packed_command(packed(command), check_health=False)
                answer = connection.read_response()
            except ResponseError as error:
                if isinstance(error, ELSEWHERE):
                    connection.disconnect()
                    self.close()  # the others lead to the same server
                else:
                    self._give(connection, node)  # it was an answer, and all of it
                raise
            except BaseException:
                connection.disconnect()
                raise
            self._give(connection, node)
            return answer
        finally:
            permits.append(permit)

    def _take(self, node: Node | None = None) -> Any:
        """An idle connection that is still good, else a new one."""
        idle = self._idle if node is None else self._elsewhere.setdefault(node, deque())
        while True:
            try:
                since, connection = idle.pop()
            except IndexError:
                return self._made(node)
            if self._clock() - since <= IDLE_S or not _spoiled(connection):
                return connection
            connection.disconnect()

    def _made(self, node: Node | None) -> Any:
        settings, kind = self._settings, self._kind
        if node is not None:
            settings = {**settings, "host": node[0], "port": node[1]}
            if settings.pop("path", None) is not None:
                kind = Connection
        return kind(retry=Retry(NoBackoff(), 0), **settings)

    def _give(self, connection: Any, node: Node | None = None) -> None:
        idle = self._idle if node is None else self._elsewhere.setdefault(node, deque())
        idle.append((self._clock(), connection))


def _spoiled(connection: Any) -> bool:
    """Whether the server has closed it, or said what nobody asked for."""
    try:
        return bool(connection.can_read(timeout=0))
    except (OSError, ConnectionError):
        return True
    except Exception as error:
        if type(error).__module__.startswith("redis."):
            return True
        raise
