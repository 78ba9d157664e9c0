"""The private servers and the fault proxy do what the tests that use them rely on."""

from __future__ import annotations

import time

import psycopg
import pytest
import redis

from tests.chaos import Chaos, Moment
from tests.servers import Postgres, RedisServer


def dial(proxy: Chaos, connect_timeout: int = 20) -> psycopg.Connection:
    """A connection to PostgreSQL through the proxy."""
    return psycopg.connect(
        host="127.0.0.1", port=proxy.port, user="postgres", dbname="postgres", connect_timeout=connect_timeout
    )


def knock(proxy: Chaos) -> int:
    """One query on a connection of its own."""
    with dial(proxy, 2) as link:
        row = link.execute("SELECT 1").fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize(("moment", "rows"), [("before", 0), ("after", 1)])
def test_a_commit_is_cut(postgres: Postgres, postgres_proxy: Chaos, moment: Moment, rows: int) -> None:
    """Cut before, the commit never happened; cut after, it did, and the client cannot tell."""
    postgres.execute("CREATE TABLE cut (a int)")
    try:
        postgres_proxy.cut_commit(moment)
        link = dial(postgres_proxy)
        link.execute("INSERT INTO cut VALUES (1)")
        with pytest.raises(psycopg.OperationalError):
            link.commit()
        link.close()
        assert postgres_proxy.cuts == 1
        assert postgres.execute("SELECT count(*) FROM cut") == [(rows,)]
        assert knock(postgres_proxy) == 1
    finally:
        postgres.execute("DROP TABLE cut")


def test_refused_reset_and_healed(postgres_proxy: Chaos) -> None:
    """Refused means ECONNREFUSED, a reset ends what is open, and a healed proxy keeps its port."""
    link = dial(postgres_proxy)
    postgres_proxy.reset()
    with pytest.raises(psycopg.OperationalError):
        link.execute("SELECT 1")
    link.close()
    postgres_proxy.refuse()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        dial(postgres_proxy)
    postgres_proxy.heal()
    assert knock(postgres_proxy) == 1


def test_black_hole_and_delay(valkey: RedisServer, valkey_proxy: Chaos) -> None:
    """A black hole answers nothing and closes nothing; a delay is paid each way; both end with `heal`."""
    with redis.Redis.from_url(valkey.through(valkey_proxy), retry=None, socket_timeout=0.2) as client:
        assert client.ping()
        valkey_proxy.black_hole()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        valkey_proxy.heal()
        valkey_proxy.delay(0.05)
        began = time.monotonic()
        assert client.ping()
        assert time.monotonic() - began >= 0.1
        valkey_proxy.delay(0)
        assert client.set("a", "1")


def test_postgres_is_frozen_and_killed(postgres: Postgres) -> None:
    """A frozen server answers nothing, and goes on when thawed; what was committed survives a kill."""
    postgres.execute("CREATE TABLE kept AS SELECT 1 AS a")
    try:
        postgres.freeze()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(host=str(postgres.directory), user="postgres", connect_timeout=2)
        postgres.thaw()
        assert postgres.execute("SELECT a FROM kept") == [(1,)]
        postgres.restart()
        assert postgres.execute("SELECT a FROM kept") == [(1,)]
    finally:
        postgres.execute("DROP TABLE kept")


def test_a_database_of_its_own(postgres: Postgres) -> None:
    """Each test may have an empty database."""
    first, second = postgres.database(), postgres.database()
    postgres.execute("CREATE TABLE mine (a int)", first)
    assert postgres.execute("SELECT to_regclass('mine')::text", second) == [(None,)]


def test_redis_and_valkey_answer(valkey: RedisServer, redis_server: RedisServer) -> None:
    """Both speak the protocol, each in its own version."""
    versions = []
    for server in (valkey, redis_server):
        with redis.Redis.from_url(server.url()) as client:
            versions.append(client.info("server")["redis_version"])
    assert versions == ["7.2.4", "6.2.14"]
