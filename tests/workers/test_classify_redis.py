"""Errors of real servers that speak Redis, as redis-py raises them, are what the table says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.chaos import Chaos
from tests.servers import RedisServer, room
from tests.workers.facts import check, provoked
from workers.kinds import ErrorType

OPERATION, LINK = ErrorType.CACHE_OPERATION, ErrorType.CACHE_CONNECTION
CLASS = "class redis.exceptions."
TIMEOUT_S = 0.2


def client(url: str, **more: Any) -> redis.Redis:
    """A client that neither retries nor waits for long."""
    wait = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    return redis.Redis.from_url(url, **{"retry": Retry(NoBackoff(), 0), **wait, **more})


@pytest.fixture(params=["valkey", "redis_server"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """Valkey and Redis, one after the other."""
    found: RedisServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def link(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of that server."""
    with client(server.url()) as made:
        yield made


def test_a_wrong_command(link: redis.Redis) -> None:
    """The caller's fault, whatever its reply is called."""
    link.set("text", "words")
    command: Any = link.execute_command
    for act, code in (
        (lambda: command("NOTHING"), "redis ERR"),
        (lambda: link.lpush("text", 1), "redis ERR"),
        (lambda: link.incr("text"), "redis ERR"),
        (lambda: link.evalsha("0" * 40, 0), f"{CLASS}RedisError"),
        (lambda: link.set("key", object()), f"{CLASS}DataError"),  # type: ignore[arg-type]  # that is it
    ):
        check(provoked(act), "C--", OPERATION, code)


def test_a_watched_key_was_changed(link: redis.Redis) -> None:
    """It passes, and says nothing about the server."""
    pipe: Any
    with link.pipeline() as pipe:
        pipe.watch("key")
        link.set("key", 1)
        pipe.multi()
        pipe.get("key")
        check(provoked(pipe.execute), "Dr-", OPERATION, f"{CLASS}WatchError")


def test_the_server_is_full(link: redis.Redis) -> None:
    """OOM: writes are refused, reads and deletions are not."""
    link.set("key", "value")
    link.config_set("maxmemory", "1")
    check(provoked(lambda: link.set("other", "value")), "S--", OPERATION, f"{CLASS}OutOfMemoryError")
    assert link.get("key") == b"value"
    assert link.delete("key") == 1


def test_a_replica_without_its_master(link: redis.Redis) -> None:
    """READONLY is a setting's fault; MASTERDOWN is an outage."""
    link.replicaof("127.0.0.1", "1")
    check(provoked(lambda: link.set("key", 1)), "S--", OPERATION, f"{CLASS}ReadOnlyError")
    link.config_set("replica-serve-stale-data", "no")
    check(provoked(lambda: link.get("key")), "Drc", LINK, f"{CLASS}MasterDownError")


def test_passwords_and_permissions(server: RedisServer, link: redis.Redis) -> None:
    """NOAUTH, WRONGPASS and NOPERM are settings' faults and never count."""
    link.acl_setuser("humble", enabled=True, passwords=["+secret"], commands=["+get"], keys=["*"])
    humble = client(server.url(), username="humble", password="secret", protocol=2)
    check(provoked(lambda: humble.set("key", 1)), "S--", OPERATION, f"{CLASS}NoPermissionError")
    wrong = client(server.url(), username="humble", password="wrong", protocol=2)
    check(provoked(lambda: wrong.get("key")), "S--", LINK, f"{CLASS}AuthenticationError")
    link.config_set("requirepass", "canary")
    stranger = client(server.url(), protocol=2)
    check(provoked(lambda: stranger.get("key")), "S--", LINK, f"{CLASS}AuthenticationError")


def test_too_many_clients(server: RedisServer, link: redis.Redis) -> None:
    """The server has no connection left: that counts. The pool of this process has none: that does not."""
    link.ping()
    link.config_set("maxclients", 1)
    other = client(server.url())
    check(provoked(other.ping), "Drc", LINK, f"{CLASS}ConnectionError, text")
    link.config_set("maxclients", 100)
    small = client(server.url(), max_connections=1)
    held = small.connection_pool.get_connection()
    check(provoked(small.ping), "Lr-", LINK, f"{CLASS}MaxConnectionsError")
    small.connection_pool.release(held)


def test_a_script_holds_the_server_up(server: RedisServer, link: redis.Redis) -> None:
    """BUSY."""
    link.config_set("lua-time-limit", "10")
    patient = client(server.url(), socket_timeout=20)

    def spin() -> None:
        with contextlib.suppress(redis.RedisError):
            patient.eval("while true do end", 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    error: Exception | None = None
    while error is None:
        try:
            link.get("key")
        except redis.ResponseError as busy:
            error = busy
        except redis.TimeoutError:
            continue
    link.script_kill()
    spinning.join(10)
    check(error, "Drc", LINK, "redis BUSY")


def test_the_server_cannot_save(redis_server: RedisServer, tmp_path: Path) -> None:
    """MISCONF: writes are refused. (Valkey does not let its folder be set.)"""
    link = client(redis_server.url())
    folder = tmp_path / "gone"
    folder.mkdir()
    link.config_set("dir", str(folder))
    link.config_set("save", "3600 1")
    folder.rmdir()
    link.bgsave()
    while link.info("persistence")["rdb_bgsave_in_progress"]:
        continue
    check(provoked(lambda: link.set("key", 1)), "S--", OPERATION, "redis MISCONF")


def test_too_few_replicas(link: redis.Redis) -> None:
    """NOREPLICAS."""
    link.config_set("min-replicas-to-write", 1)
    check(provoked(lambda: link.set("key", 1)), "Dr-", OPERATION, "redis NOREPLICAS")


def test_the_server_is_starting() -> None:
    """LOADING, of a server whose data takes its time."""
    with room() as place:
        server = RedisServer.valkey(place)
        server.start()
        with client(server.url()) as link:
            link.mset({f"key {number}": "x" * 100 for number in range(2000)})
            link.save()
        server.kill()
        server.options = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
        server.READY = "Server initialized"
        server.start()
        try:
            with client(server.url(), socket_timeout=5) as link:
                error = provoked(lambda: [link.get("key 1") for _ in range(1000)])
        finally:
            server.kill()
    check(error, "Drc", LINK, f"{CLASS}BusyLoadingError")


ENDINGS: list[tuple[str, Callable[[RedisServer], None], str]] = [
    ("killed", lambda server: server.kill(), f"{CLASS}ConnectionError, text"),
    ("frozen", lambda server: server.freeze(), f"{CLASS}TimeoutError"),
]


@pytest.mark.parametrize(("name", "end", "code"), ENDINGS, ids=[one[0] for one in ENDINGS])
def test_the_server_goes_away(
    valkey: RedisServer, name: str, end: Callable[[RedisServer], None], code: str
) -> None:
    """In the middle of a connection, and for a new one."""
    with client(valkey.url()) as link:
        link.ping()
        end(valkey)
        check(provoked(link.ping), "Drc", LINK, code)
    with client(valkey.url()) as link:
        check(provoked(link.ping), "Drc", LINK, code)


def test_the_connection_is_cut(valkey_proxy: Chaos, valkey: RedisServer) -> None:
    """And nobody listens any more."""
    with client(valkey.through(valkey_proxy)) as link:
        link.ping()
        valkey_proxy.refuse()
        check(provoked(link.ping), "Drc", LINK, f"{CLASS}ConnectionError, text")


def test_the_asynchronous_client(valkey: RedisServer) -> None:
    """Raises the same classes."""

    async def ask() -> Exception:
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        link = redis.asyncio.Redis.from_url(valkey.url(), retry=retry, socket_timeout=TIMEOUT_S)
        await link.ping()
        valkey.freeze()
        try:
            await link.ping()
        except redis.RedisError as error:
            return error
        finally:
            await link.aclose()
        raise AssertionError("it answered")

    check(asyncio.run(ask()), "Drc", LINK, f"{CLASS}TimeoutError")


def test_a_cluster_that_was_asked_wrongly() -> None:
    """MOVED and ASK: the client knows nothing of clusters. CLUSTERDOWN is an outage."""
    here, there = "a" * 40, "b" * 40
    nodes = (
        f"{here} :0@0 myself,master - 0 0 1 connected 0-16000\n"
        f"{there} 127.0.0.1:1@10001 master - 0 0 2 connected 16001-16383\n"
        "vars currentEpoch 2 lastVoteEpoch 0\n"
    )
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    more = ("--cluster-allow-reads-when-down", "yes", "--cluster-node-timeout", "60000")
    with room() as place:
        (place / "nodes.conf").write_text(nodes)
        server = RedisServer.redis(place, *options, *more).start()
        try:
            with client(server.url()) as link:
                ask: Any = link.execute_command
                tags = (f"{{{number}}}" for number in range(99_999))
                far = next(tag for tag in tags if ask("CLUSTER KEYSLOT", tag) > 16000)
                near, slot = "{1}", ask("CLUSTER KEYSLOT", "{1}")
                check(provoked(lambda: link.get(far)), "S--", OPERATION, f"{CLASS}AskError")
                ask("CLUSTER SETSLOT", slot, "MIGRATING", there)
                check(provoked(lambda: link.get(f"{near}gone")), "S--", OPERATION, f"{CLASS}AskError")
        finally:
            server.kill()
    with room() as place:
        server = RedisServer.valkey(place, *options).start()
        try:
            with client(server.url()) as link:
                check(provoked(lambda: link.get("key")), "Drc", LINK, f"{CLASS}ClusterDownError")
        finally:
            server.kill()
