"""A real prober asks real databases and caches: healthy, stopped, silent, and with a wrong password."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.chaos import Chaos
from tests.servers import Postgres, RedisServer, room
from tests.workers.talking import CANARY, SHORT_S, TalkingProber, is_late

# --- PostgreSQL ---------------------------------------------------------------------------------------


def test_postgres_passes_and_tells_its_figures_when_asked(prober: TalkingProber, postgres: Postgres) -> None:
    """A probe of the schedule asks for no more than its statement."""
    url = postgres.url()
    told = prober.ask("sqlalchemy", url=url, statement="SELECT 1")
    assert {**told, "took_s": 0} == {
        "number": 1,
        "verdict": "passed",
        "text": "the statement was carried out",
        "took_s": 0,
        "details": {},
    }
    assert [list(one) for one in prober.said[:-1]] == [["number", "begun"]]
    details = prober.ask("sqlalchemy", url=url, statement="SELECT 1", details=True)["details"]
    assert details["max_connections"] == 50 - 3
    assert 1 <= details["connections"] < 47


def test_postgres_keeps_nothing_of_a_probe(prober: TalkingProber, postgres: Postgres) -> None:
    """What the statement changes is rolled back, and no connection stays."""
    name = postgres.database()
    postgres.execute("CREATE TABLE kept (id int)", name)
    statement = "INSERT INTO kept SELECT 5 % 3"
    assert prober.verdict("sqlalchemy", url=postgres.url(name), statement=statement)[0] == "passed"
    assert postgres.execute("SELECT count(*) FROM kept", name) == [(0,)]
    links = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    assert postgres.execute(links) == [(0,)]


def test_postgres_that_is_stopped_is_late(prober: TalkingProber, postgres: Postgres) -> None:
    """It accepts the connection (the kernel does) and says nothing."""
    postgres.freeze()
    is_late(prober, "sqlalchemy", url=postgres.url(), statement="SELECT 1")
    postgres.thaw()
    assert prober.verdict("sqlalchemy", url=postgres.url(), statement="SELECT 1")[0] == "passed"


def test_postgres_behind_a_black_hole_is_late(
    prober: TalkingProber, postgres_proxy: Chaos, postgres: Postgres
) -> None:
    """Packets vanish, before and in the middle of a probe."""
    url = postgres.through(postgres_proxy)
    assert prober.verdict("sqlalchemy", url=url, statement="SELECT 1")[0] == "passed"
    postgres_proxy.black_hole()
    is_late(prober, "sqlalchemy", url=url, statement="SELECT 1")


def test_a_statement_that_takes_too_long_fails(prober: TalkingProber, postgres: Postgres) -> None:
    """The server ends it, too: nothing goes on running there."""
    is_late(prober, "sqlalchemy", url=postgres.url(), statement="SELECT pg_sleep(60)")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'"
    assert postgres.execute(f"{sleeping} AND pid <> pg_backend_pid()") == [(0,)]


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ("SELECT 1 FORM x", "error"),
        (f"SELECT '{CANARY}'::int", "failed"),
        (f"SELECT * FROM nowhere WHERE name = '{CANARY}'", "failed"),
    ],
)
def test_a_statement_that_is_refused(
    prober: TalkingProber, postgres: Postgres, statement: str, verdict: str
) -> None:
    """Mistyped, it asks nothing; what it asks for and is not there, is a failure. No value of it is told."""
    assert prober.verdict("sqlalchemy", url=postgres.url(), statement=statement)[0] == verdict


def test_a_wrong_password_is_no_verdict(prober: TalkingProber) -> None:
    """The server lives; whether it serves is not known."""
    with room() as place:
        server = Postgres(place).initialise()
        rules = place / "data" / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
        server.start()
        try:
            server.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
            url = sa.make_url(server.url(user="locked")).set(password=CANARY)
            verdict, text = prober.verdict(
                "sqlalchemy", url=url.render_as_string(False), statement="SELECT 1"
            )
            assert (verdict, "password authentication failed" in text) == ("error", True), text
            server.kill()
            verdict, text = prober.verdict(
                "sqlalchemy", url=url.render_as_string(False), statement="SELECT 1"
            )
            assert verdict == "failed"
        finally:
            server.kill()


# --- SQLite -------------------------------------------------------------------------------------------


def test_sqlite(prober: TalkingProber, tmp_path: Path) -> None:
    """A file that is not there is not made; one that another process holds is late."""
    file = tmp_path / "data.db"
    url = f"sqlite:///{file}"
    assert prober.verdict("sqlalchemy", url=url, statement="SELECT 1") == (
        "failed",
        "there is no such file, and a probe must not make it",
    )
    assert not file.exists()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE kept (id int)")
        count = "SELECT count(*) FROM kept"
        assert prober.verdict("sqlalchemy", url=url, statement=count)[0] == "passed"
        assert prober.ask("sqlalchemy", url=url, statement=count, details=True)["details"] == {}
        other.execute("BEGIN EXCLUSIVE")
        verdict, text = prober.verdict("sqlalchemy", SHORT_S, url=url, statement=count)
        assert verdict == "failed"
        assert "locked" in text or "no answer" in text
    verdict, text = prober.verdict("sqlalchemy", url="sqlite:////", statement="SELECT 1")
    assert verdict == "failed", text


@pytest.mark.parametrize(
    "url",
    [f"nodriver://u:{CANARY}@h/d", f"postgresql+asyncpg://u:{CANARY}@h/d", f"{CANARY}", f"mysql+pymysql://u:{CANARY}@h/d"],
)  # fmt: skip
def test_a_url_without_a_driver_is_no_verdict(prober: TalkingProber, url: str) -> None:
    """A mistake here says nothing of the database."""
    assert prober.verdict("sqlalchemy", url=url, statement="SELECT 1")[0] == "error"


# --- Redis --------------------------------------------------------------------------------------------


@pytest.fixture(params=["valkey", "redis_server"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """Valkey and Redis, one after the other."""
    found: RedisServer = request.getfixturevalue(request.param)
    return found


def test_redis(prober: TalkingProber, server: RedisServer) -> None:
    """PONG, while it lives; a stopped one is late, a dead one refuses."""
    assert prober.verdict("redis", url=server.url()) == ("passed", "PONG")
    server.freeze()
    is_late(prober, "redis", url=server.url())
    server.thaw()
    assert prober.verdict("redis", url=server.url()) == ("passed", "PONG")
    server.kill()
    assert prober.verdict("redis", url=server.url())[0] == "failed"


def test_a_wrong_password_of_redis_is_no_verdict(prober: TalkingProber) -> None:
    """Nor is one that is missing. Both are told, without the password."""
    with room() as place:
        server = RedisServer.valkey(place, "--requirepass", "right").start()
        try:
            for url in (server.url(), f"{server.url()}&password={CANARY}"):
                verdict, text = prober.verdict("redis", url=url)
                assert verdict == "error", text
            assert prober.verdict("redis", url=f"{server.url()}&password=right")[0] == "passed"
        finally:
            server.kill()


def test_secrets_are_read_anew_for_each_probe(
    prober: TalkingProber, valkey: RedisServer, tmp_path: Path
) -> None:
    """Whoever changes a password changes the file. An error names the place, never what is there."""
    secret = tmp_path / "url"
    secret.write_text(f"redis://:{CANARY}@127.0.0.1:1/0\n")
    assert prober.verdict("redis", url=f"file:{secret}")[0] == "failed"
    secret.write_text(valkey.url())
    assert prober.verdict("redis", url=f"file:{secret}") == ("passed", "PONG")
    secret.write_text(f"nothing {CANARY}")
    assert prober.verdict("redis", url=f"file:{secret}")[0] == "error"
    secret.unlink()
    assert prober.verdict("redis", url=f"file:{secret}") == (
        "error",
        f"cannot read {secret}: No such file or directory",
    )
    assert prober.verdict("redis", url="env:CANARY_URL")[0] == "failed"
    assert prober.verdict("redis", url="env:NOT_THERE") == (
        "error",
        "the variable NOT_THERE is not set in the environment of breakerd",
    )
