"""What leaves the process holds no password, no parameter and no row, and still says what happened."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from supervisor import checks
from tests.servers import Postgres, RedisServer
from tests.workers.facts import provoked
from workers import redact as redaction
from workers.classify import classify
from workers.handler import MemoryErrorHandler
from workers.memory.ranking import terms_of
from workers.memory.search import terms
from workers.probes.question import without
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
    f"Incorrect API key provided: {CANARY}. See https://platform.example/keys",
    f"Invalid api-key given: {CANARY}",
    f"the password is {CANARY}",
    f"passphrase was {CANARY}, try again",
    f"token {CANARY} expired",
    f"Cookie: theme=dark; sid={CANARY}; path=/",
    f"Set-Cookie: a=b; c={CANARY}",
    f"https://bucket.example/o?X-Amz-Credential=a&X-Amz-Signature={CANARY}",
    f"https://blob.example/o?sv=2024&sig={CANARY}&se=1",
    f"https://cdn.example/o?Expires=1&Signature={CANARY}",
    f"private_key = {CANARY}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
    f"no mailbox {CANARY}@mail.example",
    f"redis://:{CANARY}@cache:6379/0 is gone",
    f"amqp://app:{CANARY} with@mq",
    "x" * 3950 + f" postgresql://application:{CANARY}{'y' * 200}@db",
]
MADE = [
    "sk-live-" + "Ab12Cd34" * 3,
    "ghp_" + "q1W2e3R4" * 4,
    "xoxb-12345678-abcdefgh",
    "AKIA" + "ABCDEFGH12345678",
    "eyJ0eXAiOiJKV1QifQ.eyJpc3MiOiJ4In0.c2lnbmF0dXJl",
    "github_pat_11ABCDEFG0123456789",
    "q9ZpL2mX7vB4nK8sT1wR6yD3",
]
KNOWN = [
    'password authentication failed for user "app"',
    "token is missing",
    "no route to http://10.1.2.3:8080/health",
    "redis://[::1]:6379/0 refused",
    "the key of shop/upstream is not-a-secret",
    "job 6f1c2d3e-0a1b-4c2d-8e3f-a1b2c3d4e5f6 failed",
    'connection to server on socket "/srv/pg/.s.PGSQL.5432" failed: No such file or directory',
]
LONG = {
    "dashes": "a-" * 10_000,
    "base64": "Zm9v" * 5_000,
    "kebab": "alpha-x1-beta-" * 1_500,
    "one scheme": "a" * 19_990 + "://b:c@d",
    "schemes": "://" * 6_666,
    "addresses": "a://b:" * 3_333,
    "hosts": "//b:c" * 4_000,
    "quotes": "'" * 20_000,
    "double quotes": '"' * 20_000,
    "escaped quotes": "token='\\" * 2_500,
    "braces": "{" * 10_000 + "}" * 10_000,
    "brackets": "[SQL: " * 3_300,
    "names": "token" * 4_000,
    "names and spaces": ("token" + " " * 20) * 800,
    "credentials": "credential" * 2_000,
    "colons": ": '" * 6_666,
    "spaces": " " * 20_000,
    "lines": "LINE 1\n" * 2_800,
    "mail": "a.b+" * 5_000,
    "ats": "a@" * 10_000,
    "keys": "-----BEGIN " * 1_800,
    "cookies": "cookie " * 2_850,
    "bearers": "bearer " * 2_850,
    "digits": "1" * 20_000,
    "relations": 'relation "a' * 1_800,
    "JWTs": "eyJhbGciOi." * 1_800,
    "letters of Japan": "あ" * 20_000,
}


@pytest.mark.parametrize("text", TEXTS)
def test_no_secret_is_left(text: str) -> None:
    """In none of the places where messages carry them."""
    assert "c4n4ry" not in redact(text)


@pytest.mark.parametrize("token", MADE)
def test_a_token_is_known_by_its_looks(token: str) -> None:
    """Wherever it stands."""
    assert redact(f"rejected {token} of the caller") == "rejected *** of the caller"
    assert token[4:] not in redact(f"rejected:{token}, sorry")


@pytest.mark.parametrize("text", KNOWN)
def test_what_is_no_secret_is_left(text: str) -> None:
    """Sentences about passwords, ports, paths and ids."""
    assert redact(text) == text


def cost(text: str) -> float:
    """Seconds of the processor that redacting takes, the best of some attempts."""
    best = 1.0
    for _ in range(5):
        began = time.thread_time()
        redact(text)
        best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize("kind", LONG)
def test_any_text_takes_little_time(kind: str) -> None:
    """20,000 characters in 5 ms, with a margin for a slow machine."""
    assert cost(LONG[kind]) < 0.015


@pytest.mark.parametrize("kind", LONG)
def test_no_pattern_is_worse_than_linear(kind: str) -> None:
    """Each of them alone, on all of a text: ten times the length takes about ten times as long."""
    uses: list[Callable[[str], object]] = [
        functools.partial(pattern.sub, "") for pattern, _ in redaction._RULES
    ]
    uses += [functools.partial(pattern.sub, "") for pattern in (checks._BEHIND, checks._PASSWORD)]
    uses += [checks._FLAG.fullmatch, terms_of, terms]
    for use in uses:
        took = []
        for text in (LONG[kind][:2_000], LONG[kind]):
            began = time.thread_time()
            use(text)
            took.append(time.thread_time() - began)
        assert took[1] < 40 * took[0] + 0.02, (kind, use)


def test_a_text_is_classified_in_little_time() -> None:
    """Words that a rule begins with, again and again."""
    for word in ("pool ", "user ", "database a ", "time "):
        error = RuntimeError(word * 4_000)
        began = time.thread_time()
        classify(error)
        assert time.thread_time() - began < 0.02


class Counted(Exception):
    """Counts how often it is asked what it says."""

    asked = 0

    def __str__(self) -> str:
        """Nothing much."""
        self.asked += 1
        return "no"


def test_an_error_is_redacted_once() -> None:
    """Although it is counted, kept and logged."""
    judged, handled = Counted(), Counted()
    classify(judged)
    MemoryErrorHandler().handle_database_error(handled, "store")
    assert handled.asked == judged.asked + 1


def test_a_socket_of_a_probe_is_told() -> None:
    """Where it is said is no secret; the password is."""
    url = f"postgresql://app@/shop?host=/srv/sockets/pg&password={CANARY}"
    text = f'connection to server on socket "/srv/sockets/pg/.s.PGSQL.5432" failed: no {CANARY}'
    assert without(text, url) == (
        'connection to server on socket "/srv/sockets/pg/.s.PGSQL.5432" failed: no ***'
    )


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
