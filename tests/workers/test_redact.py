"""What leaves the process holds no password, no parameter and no row, and still says what happened."""

from __future__ import annotations

import functools
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import Postgres, RedisServer
from tests.workers.facts import provoked
from workers.redact import MESSAGE_MAX, describe, redact

CANARY = "c4n4ry-7f3a"

TEXTS = [
    f"cannot reach postgresql://app:{CANARY}@db/prod",
    f"cannot reach postgresql://app:p@{CANARY}@db/prod",
    f"postgresql://app@db/prod?sslpassword={CANARY}&sslmode=require",
    f"host=db password={CANARY} user=app",
    f"host=db password='{CANARY} and more' user=app",
    f"host=db password='it\\'s {CANARY}' user=app",
    f"PGPASSWORD={CANARY} psql",
    f'{{"password": "{CANARY}", "user": "app"}}',
    f"{{'api_key': '{CANARY}'}}",
    f"--auth-token={CANARY}",
    f"Authorization: Bearer {CANARY}",
    f"AUTH app {CANARY}",
    f"KeyError: '{CANARY}'",
    f'invalid input syntax for type integer: "{CANARY}"',
    f'invalid input syntax for type integer: "it "is" {CANARY}"',
    f"Duplicate entry '{CANARY}' for key 'email'",
    f"DETAIL:  Key (email)=({CANARY}) already exists.",
    f"DETAIL:  Failing row contains (1, x\ny {CANARY}, 2).",
    f"LINE 1: SELECT '{CANARY}'\n        ^",
    f"(x.Error) no\n[SQL: INSERT INTO t VALUES ('{CANARY}')]\n[parameters: {{'a': '{CANARY}'}}]\n(B)",
    f"CONTEXT:  unnamed portal parameter $1 = '{CANARY}'",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_secret_is_left(text: str) -> None:
    """In none of the places where messages carry them."""
    assert "c4n4ry" not in redact(text)


def test_what_happened_is_left() -> None:
    """Names of hosts, users, tables and columns, and what the statement was about."""
    assert redact('connection to server at "10.0.0.7", port 5432 failed: Connection refused') == (
        'connection to server at "10.0.0.7", port 5432 failed: Connection refused'
    )
    assert redact('relation "users" does not exist') == 'relation "users" does not exist'
    assert redact("UNIQUE constraint failed: users.email") == "UNIQUE constraint failed: users.email"
    assert redact("postgresql://app:x@db/prod") == "postgresql://app:***@db/prod"
    assert (
        redact("no\n[SQL: INSERT INTO users VALUES (1)]\n[parameters: (1)]")
        == "no [SQL: INSERT INTO users ...]"
    )
    assert redact("app:f cannot be imported: No module named 'psycopg.sql'") == (
        'app:f cannot be imported: No module named "psycopg.sql"'
    )
    assert redact("No module named 'not a name'") == "No module named '***'"
    assert redact("") == ""
    assert describe(TimeoutError()) == "TimeoutError"


def test_a_message_is_one_line_of_bounded_length() -> None:
    """Nothing in it looks like another line of the log."""
    text = redact("first\nERROR root: second\r\n\x1b[31m\u2028third " + "x" * 9999)
    assert text.startswith("first ERROR root: second [31m third xxx")
    assert len(text) == MESSAGE_MAX


@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    """Whatever it is, and twice is the same as once."""
    once = redact(text)
    assert len(once) <= MESSAGE_MAX
    assert "\n" not in once


def test_real_errors_of_postgresql(postgres: Postgres) -> None:
    """Violations, bad values, failing rows and syntax errors that carry the canary; and wrong passwords."""
    engine = sa.create_engine(postgres.url(), poolclass=sa.NullPool)
    statements = [
        "CREATE TEMP TABLE t (a text UNIQUE); INSERT INTO t VALUES ('{0}'); INSERT INTO t VALUES ('{0}')",
        "CREATE TEMP TABLE t (a text, b text NOT NULL); INSERT INTO t VALUES ('{0}', NULL)",
        "SELECT '{0}'::int",
        "SELECT '{0}' FORM t",
        "DO $$ BEGIN RAISE EXCEPTION 'value is %', quote_literal('{0}'); END $$",
    ]
    for statement in statements:
        with engine.connect() as connection:
            run = functools.partial(connection.exec_driver_sql, statement.format(CANARY))
            error = provoked(run)
        assert CANARY in str(error)
        assert "c4n4ry" not in describe(error), describe(error)
        assert error.__class__.__name__ in describe(error)
    with engine.connect() as connection:
        query = sa.text("SELECT * FROM nowhere WHERE a = :a")
        error = provoked(lambda: connection.execute(query, {"a": CANARY}))
    assert CANARY in str(error)
    known = '(psycopg.errors.UndefinedTable) relation "nowhere" does not exist [SQL: SELECT ...]'
    assert describe(error) == f"ProgrammingError: {known}"
    url = f"postgresql://app:{CANARY}@127.0.0.1:1/x?sslpassword={CANARY}"
    assert "c4n4ry" not in describe(provoked(lambda: psycopg.connect(url, connect_timeout=1)))
    assert "c4n4ry" not in describe(provoked(lambda: psycopg.connect(f"passwort={CANARY}")))


def test_real_errors_of_sqlite(tmp_path: Path) -> None:
    """Tokens that SQLite quotes."""
    link = sqlite3.connect(tmp_path / "one.db")
    for statement in (f"SELECT '{CANARY}", f"SELECT 1 '{CANARY}' '{CANARY}'", f'SELECT "{CANARY}" 1 FROM'):
        assert "c4n4ry" not in describe(provoked(functools.partial(link.execute, statement)))
    link.close()


def test_real_errors_of_redis(valkey: RedisServer) -> None:
    """A command that Redis does not know is quoted with its arguments."""
    with redis.Redis.from_url(valkey.url()) as link:
        command: Any = link.execute_command
        error = provoked(lambda: command("NOTHING", "word", CANARY))
        assert CANARY in str(error)
        assert "c4n4ry" not in describe(error)
        wrong = provoked(
            lambda: redis.Redis.from_url(f"{valkey.url()}&username=nobody&password={CANARY}").ping()
        )
        assert "c4n4ry" not in describe(wrong)
