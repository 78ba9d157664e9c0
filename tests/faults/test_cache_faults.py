"""Group H: the cache is down, hung, slow, full, read-only, locked, or runs hot; the memory goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis.exceptions import TimeoutError as RedisTimeout

from benchmarks.figures import share
from tests.chaos import Chaos
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.talkers import memory, programs, read, wait_until
from tests.servers import Postgres, RedisServer
from workers.memory.codec import Page, pages
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation, Deletion, Source
from workers.memory.redis_cache import RedisCache

pytestmark = pytest.mark.timeout(PATIENCE_S)

LIMIT_S: Final = 0.2
"""The configured time limit of the cache."""
SLACK_S: Final = 0.1
"""What a busy machine may add to it."""
CALLS: Final = effort(400, 10_000)
REFUSED_S: Final = 0.005
PROCESSES: Final = 4
READERS: Final = effort(50, 250)
"""Threads of each process that want the hot key."""


class Room:
    """A manager over a SQLite file and a cache behind the fault proxy."""

    def __init__(self, folder: Path, cache_url: str, **given: Any) -> None:
        self.config = MemoryConfig(
            database_url=f"sqlite:///{folder}/memory.db",
            spool_directory=str(folder / "spool"),
            cache_url=cache_url,
            cache_timeout_s=LIMIT_S,
            cache_connect_timeout_s=LIMIT_S,
            **given,
        )
        self.manager = memory(self.config)
        for text in ("one", "two"):
            assert self.manager.store_conversation_safe("ann", f"hello {text}", "x")

    def read(self, query: str = "hello") -> float:
        """Search, which always gives both; how long it took."""
        began = time.monotonic()
        found = self.manager.retrieve_context_safe(query, "ann")
        took = time.monotonic() - began
        assert sorted(one.conversation.user_message for one in found) == ["hello one", "hello two"]
        return took

    def source(self) -> Source:
        """Where a search is answered from."""
        return self.manager.retrieve_context_safe("hello", "ann")[0].source

    @property
    def breaker(self) -> Any:
        """The cache's breaker."""
        return self.manager.error_handler.get_circuit_breaker("cache")


@pytest.fixture
def place(valkey: RedisServer, valkey_proxy: Chaos, tmp_path: Path) -> Iterator[Room]:
    """A manager whose cache is behind the fault proxy, and is warm."""
    made = Room(tmp_path, valkey.through(valkey_proxy))
    made.read()
    assert made.source() is Source.CACHE
    yield made
    valkey_proxy.heal()
    made.manager.close()


def healed(place: Room) -> None:
    """It is used again by itself, and every answer is the question's."""

    def cached() -> bool:
        place.read()
        return place.source() is Source.CACHE

    wait_until("the cache is used again", cached)
    for number in range(20):
        place.read(f"hello {number}")
        place.read()


@pytest.mark.fault("H1")
def test_h1_refused_costs_nothing(place: Room, valkey_proxy: Chaos) -> None:
    """Nobody listens: every call is answered from the database, and the breaker soon asks no more."""
    usual = share([place.read(f"hello {number}") for number in range(20)], 0.5)
    valkey_proxy.refuse()
    for _ in range(6):
        place.read()
    assert place.breaker.state.is_open
    took = [place.read() for _ in range(30)]
    assert share(took, 0.5) < usual + REFUSED_S
    valkey_proxy.heal()
    healed(place)


@pytest.mark.fault("H2")
@pytest.mark.parametrize("fault", ["black hole", "frozen"])
def test_h2_hung_keeps_the_budget(place: Room, valkey: RedisServer, valkey_proxy: Chaos, fault: str) -> None:
    """No answer: a call costs the cache's limit at most once, p99 of all calls is within it; it heals."""
    if fault == "frozen":
        valkey.freeze()
    else:
        valkey_proxy.black_hole()
    took = [place.read() for _ in range(CALLS)]
    assert share(took, 0.99) <= LIMIT_S + SLACK_S
    assert sum(one > LIMIT_S / 2 for one in took) <= 5 + sum(took) / 0.2
    assert share(took, 0.5) < 0.05
    if fault == "frozen":
        valkey.thaw()
    else:
        valkey_proxy.heal()
    healed(place)


@pytest.mark.fault("H3")
@pytest.mark.parametrize("fault", ["latency", "slicer"])
def test_h3_slow_is_hung(place: Room, valkey_proxy: Chaos, fault: str) -> None:
    """Half a second late, or a byte at a time: as hung, however steadily the bytes drip."""
    if fault == "latency":
        valkey_proxy.delay(0.5)
    else:
        valkey_proxy.trickle(0.05)
    took = [place.read() for _ in range(30)]
    assert max(took) <= LIMIT_S + 2 * SLACK_S
    assert share(took, 0.5) < 0.05
    valkey_proxy.heal()
    healed(place)


@pytest.mark.fault("H3")
def test_h3_an_answer_that_drips_has_one_limit(valkey: RedisServer, valkey_proxy: Chaos) -> None:
    """The limit is that of the whole answer, not of each piece of it."""
    cache = RedisCache(valkey.through(valkey_proxy), LIMIT_S, LIMIT_S, 3600.0)
    cache.put("ann", {"a": Page(pages([Conversation.now("ann", "x" * 500, "y")]), time.time())})
    valkey_proxy.trickle(0.001)
    began = time.monotonic()
    with pytest.raises(RedisTimeout):
        cache.get("ann", "a")
    assert time.monotonic() - began < LIMIT_S + SLACK_S
    cache.close()


def _configured(place: Room, word: str) -> None:
    """The error is told as one of the configuration, and the breaker has not counted it."""
    assert place.breaker.state.failure_count == 0
    assert not place.breaker.state.is_open
    metrics = place.manager.get_system_health()["error_metrics"]
    assert word in str([one for one in metrics.values() if one["error_count"]])


@pytest.mark.fault("H4")
def test_h4_full(place: Room, valkey: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """OOM: what is cached is still read, what is new comes from the database, and a user can be dropped."""
    side = RedisCache(valkey.url(), 1.0, 1.0, 3600.0)
    side._ask("CONFIG", "SET", "maxmemory", "1")
    for number in range(12):
        place.read(f"hello {number}")
    assert place.source() is Source.CACHE
    _configured(place, "OutOfMemoryError")
    assert "[configuration, class redis.exceptions.OutOfMemoryError;" in caplog.text
    assert place.manager.delete_user("ann") in (Deletion.ACCEPTED, Deletion.DELETED)
    assert place.manager.retrieve_context_safe("hello", "ann") == []
    assert side._ask("KEYS", "breakerd:*") == []
    side._ask("CONFIG", "SET", "maxmemory", "0")
    assert place.manager.flush(20.0)
    side.close()


@pytest.mark.fault("H4")
def test_h4_read_only(place: Room, valkey: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """READONLY: a replica is still read, and is no cache that is down."""
    side = RedisCache(valkey.url(), 1.0, 1.0, 3600.0)
    side._ask("REPLICAOF", "127.0.0.1", "1")
    for number in range(12):
        place.read(f"hello {number}")
    assert place.source() is Source.CACHE
    _configured(place, "ReadOnlyError")
    assert "[configuration, class redis.exceptions.ReadOnlyError;" in caplog.text
    side._ask("REPLICAOF", "NO", "ONE")
    side.close()


@pytest.mark.fault("H4")
def test_h4_a_password_is_wanted(place: Room, valkey: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """NOAUTH: everything comes from the database, and the breaker does not count it."""
    side = RedisCache(valkey.url(), 1.0, 1.0, 3600.0)
    side._ask("CONFIG", "SET", "requirepass", "canary-4711")
    place.manager._cache.close()  # its connections were made without one
    for _ in range(12):
        place.read()
    assert place.source() is Source.DATABASE
    _configured(place, "AuthenticationError")
    assert "[configuration, class redis.exceptions.AuthenticationError;" in caplog.text
    side._ask("CONFIG", "SET", "requirepass", "")
    side.close()


@pytest.mark.fault("H8")
def test_h8_a_stampede_loads_once(postgres: Postgres, valkey: RedisServer, tmp_path: Path) -> None:
    """Hundreds of threads of several processes want a page that has just expired: one of them loads it."""
    given: dict[str, Any] = {
        "database_url": postgres.url(postgres.database()),
        "spool_directory": str(tmp_path / "spool"),
        "cache_url": valkey.url(),
        "cache_timeout_s": 5.0,
    }
    with memory(MemoryConfig(**given)) as manager:
        for number in range(5):
            assert manager.store_conversation_safe("ann", f"hello {number}", "x")
    ledgers = [tmp_path / f"ledger{number}" for number in range(PROCESSES)]
    orders = [
        {"play": "stampede", "config": given, "ledger": str(path), "threads": READERS, "expected": 5}
        | {"user": "ann", "query": "hello"}
        for path in ledgers
    ]
    with programs(orders) as running:
        warm = len(read(ledgers))
        for one in running:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        for one in running:
            assert one.stdout is not None
            assert one.stdout.readline() == "0\n"
    assert len(read(ledgers)) - warm == 1
