"""The cache in Redis, on a real server: short limits, every answer its own, nothing of the erased."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from tests.chaos import Chaos
from tests.servers import RedisServer, room
from workers.memory.cache import key_of
from workers.memory.codec import Page, pages
from workers.memory.records import Conversation
from workers.memory.redis_cache import RedisCache

LIMIT_S = 0.2


def page(text: str, at: float | None = None) -> Page:
    """A page with one conversation, loaded now."""
    return Page(pages([Conversation.now("ann", text, "x", ["search"])]), time.time() if at is None else at)


def made(server: RedisServer, timeout_s: float = LIMIT_S) -> RedisCache:
    """A cache in an empty server."""
    return RedisCache(server.url(), timeout_s, timeout_s, 3600.0)


def test_what_is_put_is_got_and_dropped(valkey: RedisServer) -> None:
    """Whole pages come back; users are told apart; dropping takes all of one user."""
    cache = made(valkey)
    one, other = page("one"), page("other")
    cache.put("ann", {"a": one, "b": other})
    cache.put("bob", {"a": other})
    assert (cache.get("ann", "a"), cache.get("ann", "b"), cache.get("ann", "c")) == (one, other, None)
    cache.drop_user("ann")
    assert (cache.get("ann", "a"), cache.get("bob", "a")) == (None, other)
    cache.close()


def test_what_was_loaded_before_an_erasure_is_not_put_after_it(valkey: RedisServer) -> None:
    """A slow loader does not bring the erased back."""
    cache = made(valkey)
    loaded = page("secret")
    cache.drop_user("ann")
    cache.put("ann", {"a": loaded})
    assert cache.get("ann", "a") is None
    cache.put("ann", {"a": page("later", time.time() + 10.0)})
    assert cache.get("ann", "a") is not None
    cache.close()


@pytest.mark.fault("H9")
def test_h9_a_poisoned_value_is_a_miss(valkey: RedisServer) -> None:
    """Bad bytes, another version, a pickle: a miss, and nothing is unpickled."""
    cache = made(valkey)
    for value in (b"\x80\x04.", b"BM\x02\x90", b"BM\x01\xc1", b"", b"BM\x01\x93\x01"):
        cache._ask("HSET", key_of("", "ann"), "a", value)
        assert cache.get("ann", "a") is None
    cache.close()


@pytest.mark.fault("H2")
def test_h2_a_hung_server_costs_the_limit_once_and_no_answer_is_mixed_up(valkey: RedisServer) -> None:
    """Frozen in the middle of a call: the limit, then a new connection; after thawing all is right."""
    cache = made(valkey)
    first, second = page("first"), page("second")
    cache.put("ann", {"a": first, "b": second})
    with valkey.hurt():
        valkey.freeze()
        began = time.monotonic()
        with pytest.raises(RedisTimeout):
            cache.get("ann", "a")
        assert time.monotonic() - began < 3 * LIMIT_S
        assert not cache._idle
        valkey.thaw()
        assert [cache.get("ann", "b"), cache.get("ann", "a")] == [second, first]
    cache.close()


@pytest.mark.fault("H1")
def test_h1_a_refused_connection_fails_at_once_and_a_restart_is_not_noticed(valkey: RedisServer) -> None:
    """Down: no waiting. Up again: idle connections of before are not used."""
    clock = [0.0]
    cache = RedisCache(valkey.url(), LIMIT_S, LIMIT_S, 3600.0, clock=lambda: clock[0])
    cache.ping()
    with valkey.hurt():
        valkey.kill()
        with pytest.raises(RedisConnectionError):
            cache.ping()
        began = time.monotonic()
        with pytest.raises(RedisConnectionError):
            cache.ping()
        assert time.monotonic() - began < 0.1
        valkey.start()
        cache.ping()
        valkey.restart()
        clock[0] += 10.0
        cache.ping()
    cache.close()


@pytest.mark.fault("H4")
def test_h4_a_full_server_still_reads_and_drops(valkey: RedisServer) -> None:
    """OOM: writing fails, is an answer like any other, and keeps neither reading nor dropping away."""
    cache = made(valkey)
    cache.put("ann", {"a": page("one")})
    cache._ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(ResponseError):
            cache.put("ann", {"b": page("two")})
        assert len(cache._idle) == 1
        assert cache.get("ann", "a") is not None
        with pytest.raises(ResponseError):
            cache.drop_user("ann")
        assert cache.get("ann", "a") is None
    finally:
        cache._ask("CONFIG", "SET", "maxmemory", "0")
        cache.close()


@pytest.mark.fault("H7")
def test_h7_a_forked_child_has_connections_of_its_own(valkey: RedisServer) -> None:
    """Both sides go on; the parent's connection is not shut down by the child."""
    cache = made(valkey)
    kept = page("one")
    cache.put("ann", {"a": kept})
    connection = cache._idle[0][1]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if cache.get("ann", "a") == kept else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert cache.get("ann", "a") == kept
    assert cache._idle[0][1] is connection
    cache.close()


def test_threads_each_get_their_own_answers(valkey: RedisServer) -> None:
    """Eight threads, one cache: everybody reads what was put under the field asked for."""
    cache = made(valkey, 5.0)
    kept = {f"f{number}": page(f"{number}") for number in range(8)}
    cache.put("ann", kept)
    wrong: list[str] = []

    def read(field: str) -> None:
        wrong.extend(field for _ in range(100) if cache.get("ann", field) != kept[field])

    threads = [threading.Thread(target=read, args=(field,)) for field in kept]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
    cache.close()


def test_after_a_failover_no_connection_leads_to_the_former_primary() -> None:
    """READONLY: every idle connection is closed, so that the next call is told anew who is the primary."""
    with room() as place:
        (place / "one").mkdir()
        (place / "two").mkdir()
        former, primary = (RedisServer.valkey(place / name).start() for name in ("one", "two"))
        cache = made(former)
        cache.put("ann", {"a": page("one")})
        held = [cache._take() for _ in range(3)]
        for one in held:
            one.connect()
            cache._give(one)
        cache._ask("REPLICAOF", "127.0.0.1", "1")
        os.rename(former.socket, f"{former.socket}.former")  # the name leads to the new primary
        os.symlink(primary.socket, former.socket)
        with pytest.raises(ResponseError):
            cache.drop_user("ann")
        assert not cache._idle
        cache.drop_user("ann")
        cache.put("ann", {"a": page("later", time.time() + 10.0)})
        assert cache.get("ann", "a") is not None
        cache.close()
        for server in (former, primary):
            server.kill()


class Signpost:
    """A server of a cluster that has no slot: it sends everybody to another one."""

    def __init__(self, port: int) -> None:
        self._to, self.asked = port, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._door.getsockname()[1]}/0"
        self._guests: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = self._door.accept()
                self._guests.append(guest)
                threading.Thread(target=self._answer, args=(guest,), daemon=True).start()

    def _answer(self, guest: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while asked := guest.recv(65536):
                self.asked += 1
                key = next(part for part in asked.split(b"\r\n") if part.startswith(b"breakerd:"))
                slot = key_slot(key.removesuffix(b":gone"))
                guest.sendall(b"-MOVED %d 127.0.0.1:%d\r\n" % (slot, self._to))

    def close(self) -> None:
        """No more guests."""
        self._door.close()
        for one in self._guests:
            one.close()


def test_one_server_of_a_cluster_is_enough(valkey: RedisServer, valkey_proxy: Chaos) -> None:
    """What it has not, it sends on: that is followed, remembered, asked anew when it fails."""
    post = Signpost(valkey_proxy.port)
    cache = RedisCache(post.url, LIMIT_S, LIMIT_S, 3600.0)
    one = page("one")
    cache.put("ann", {"a": one})
    assert [cache.get("ann", "a") for _ in range(5)] == [one] * 5
    assert post.asked == 1
    valkey_proxy.refuse()
    for idle in cache._elsewhere.values():
        idle.pop()[1].disconnect()
    with pytest.raises(RedisConnectionError):
        cache.get("ann", "a")
    valkey_proxy.heal()
    assert cache.get("ann", "a") == one
    assert post.asked == 2
    cache.drop_user("ann")
    assert cache.get("ann", "a") is None
    cache.close()
    post.close()


def test_servers_that_send_each_other_round() -> None:
    """A cluster that does not know its slots costs a few questions, not all time."""
    post = Signpost(0)
    post._to = int(post.url.rpartition(":")[2].partition("/")[0])
    cache = RedisCache(post.url, LIMIT_S, LIMIT_S, 3600.0)
    with pytest.raises(RedisClusterException, match="sent on"):
        cache.get("ann", "a")
    cache.close()
    post.close()
