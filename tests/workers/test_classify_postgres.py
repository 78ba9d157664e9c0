"""Errors of a real PostgreSQL, as psycopg and as SQLAlchemy raise them, are what the table says."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tests.chaos import Chaos
from tests.servers import Postgres, room
from tests.workers.facts import check, provoked
from workers.kinds import ErrorType

QUERY, LINK = ErrorType.DATABASE_QUERY, ErrorType.DATABASE_CONNECTION
TABLES = """
    CREATE TABLE parent (id int PRIMARY KEY, name varchar(3) NOT NULL);
    CREATE TABLE child (id int REFERENCES parent);
    INSERT INTO parent VALUES (1, 'one'), (2, 'two');
    DO $$ BEGIN CREATE ROLE humble; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
"""


@pytest.fixture(scope="module")
def engine(shared_postgres: Postgres) -> Iterator[sa.Engine]:
    """An engine on a database with two tables."""
    name = shared_postgres.database()
    shared_postgres.execute(TABLES, name)
    made = sa.create_engine(shared_postgres.url(name), pool_size=3)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def small() -> Iterator[Postgres]:
    """A server of this file's own, with few connections and a user that needs a password."""
    with room() as place:
        server = Postgres(place).initialise()
        rules = place / "data" / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
        server.options = {"max_connections": "3", "superuser_reserved_connections": "0"}
        server.start()
        server.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        server.execute("CREATE ROLE idle NOLOGIN")
        yield server
        server.kill()


STATEMENTS = [
    ("SELECT 1 FORM parent", "C--", "42601"),
    ("SELECT * FROM nowhere", "C--", "42P01"),
    ("SELECT nothing FROM parent", "C--", "42703"),
    ("SET ROLE humble; SELECT * FROM parent", "S--", "42501"),
    ("INSERT INTO parent VALUES (1, 'uno')", "C--", "23505"),
    ("INSERT INTO parent VALUES (3, NULL)", "C--", "23502"),
    ("INSERT INTO child VALUES (99)", "C--", "23503"),
    ("INSERT INTO parent VALUES (3, 'three')", "C--", "22001"),
    ("SELECT 'three'::int", "C--", "22P02"),
    ("SELECT 1 / 0", "C--", "22012"),
    ("SET TRANSACTION READ ONLY; DELETE FROM child", "S--", "25006"),
    ("SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(9)", "Drc", "57014"),
    ("SELECT 1; SELECT pg_terminate_backend(pg_backend_pid())", "Drc", "57P01"),
    ("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$", "C--", "P0001"),
    ("DO $$ BEGIN RAISE SQLSTATE '53200'; END $$", "Drc", "53200"),
    ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", "D--", "53100"),
    ("DO $$ BEGIN RAISE SQLSTATE '58030'; END $$", "Drc", "58030"),
    ("DO $$ BEGIN RAISE SQLSTATE 'XX001'; END $$", "D--", "XX001"),
    ("DO $$ BEGIN RAISE SQLSTATE '08006'; END $$", "Drc", "08006"),
]


@pytest.mark.parametrize(("statement", "flags", "state"), STATEMENTS, ids=[one[2] for one in STATEMENTS])
def test_statements(engine: sa.Engine, statement: str, flags: str, state: str) -> None:
    """The same by the driver's error and by SQLAlchemy's around it."""
    with engine.connect() as connection:
        error = provoked(lambda: connection.exec_driver_sql(statement))
        connection.invalidate()
    kind = LINK if state.startswith(("08", "57P")) else QUERY
    assert isinstance(error, sa.exc.DBAPIError)
    check(error, flags, kind, f"sqlstate {state}")
    assert error.orig is not None
    check(error.orig, flags, kind, f"sqlstate {state}")


def test_somebody_else_was_quicker(engine: sa.Engine) -> None:
    """40001: an update of what changed since the snapshot; 55P03: a lock that is not free."""
    with engine.connect() as slow, engine.connect() as quick:
        slow.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        slow.exec_driver_sql("SELECT * FROM parent")
        quick.exec_driver_sql("UPDATE parent SET name = 'uno' WHERE id = 1")
        busy = provoked(lambda: slow.exec_driver_sql("SELECT * FROM parent FOR UPDATE NOWAIT"))
        slow.rollback()
        slow.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        slow.exec_driver_sql("SELECT * FROM parent")
        quick.commit()
        late = provoked(lambda: slow.exec_driver_sql("UPDATE parent SET name = 'ein' WHERE id = 1"))
        aborted = provoked(lambda: slow.exec_driver_sql("SELECT 1"))
    check(busy, "Dr-", QUERY, "sqlstate 55P03")
    check(late, "Dr-", QUERY, "sqlstate 40001")
    check(aborted, "C--", QUERY, "sqlstate 25P02")


def test_a_deadlock(engine: sa.Engine) -> None:
    """40P01: one of two is chosen to give way."""
    raised: list[Exception] = []

    def take(first: int, second: int, meet: threading.Barrier) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10ms'")
            connection.exec_driver_sql(f"SELECT * FROM parent WHERE id = {first} FOR UPDATE")
            meet.wait(10)
            try:
                connection.exec_driver_sql(f"SELECT * FROM parent WHERE id = {second} FOR UPDATE")
            except SQLAlchemyError as error:
                raised.append(error)

    meet = threading.Barrier(2)
    threads = [threading.Thread(target=take, args=(*pair, meet)) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    (error,) = raised
    check(error, "Dr-", QUERY, "sqlstate 40P01")


def test_the_pool_of_this_process_is_used_up(shared_postgres: Postgres) -> None:
    """No evidence against the database, though a retry may help."""
    made = sa.create_engine(shared_postgres.url(), pool_size=1, max_overflow=0, pool_timeout=0.01)
    with made.connect():
        error = provoked(made.connect)
    made.dispose()
    check(error, "Lr-", LINK, "class sqlalchemy.exc.TimeoutError")


def test_a_program_that_is_wrong(engine: sa.Engine) -> None:
    """Errors of SQLAlchemy's own, and values that the driver cannot bind."""
    with engine.connect() as connection:
        unbound = provoked(lambda: connection.execute(sa.text("SELECT :value"), {"value": object()}))
        connection.close()
        closed = provoked(lambda: connection.exec_driver_sql("SELECT 1"))
    check(unbound, "C--", QUERY, "class psycopg.ProgrammingError")
    check(closed, "C--", QUERY, "class sqlalchemy.exc.SQLAlchemyError")
    missing = provoked(lambda: sa.create_engine("postgresql+nothing://"))
    check(missing, "S--", ErrorType.CONFIGURATION, "class sqlalchemy.exc.NoSuchModuleError")


@pytest.mark.parametrize(
    ("user", "database", "flags"),
    [("nobody", "postgres", "S--"), ("idle", "postgres", "S--"), ("postgres", "nowhere", "S--")],
)
def test_connecting_as_nobody_or_to_nowhere(small: Postgres, user: str, database: str, flags: str) -> None:
    """A driver that could not connect has no SQLSTATE: 28000 and 3D000 are known by their text."""
    error = provoked(sa.create_engine(small.url(database, user), poolclass=sa.NullPool).connect)
    check(error, flags, LINK, "class psycopg.OperationalError, text")


def test_a_wrong_password(small: Postgres) -> None:
    """28P01 is the configuration's fault, is not retried and never counts."""
    url = sa.make_url(small.url(user="locked")).set(password="wrong-canary")
    error = provoked(sa.create_engine(url, poolclass=sa.NullPool).connect)
    check(error, "S--", LINK, "class psycopg.OperationalError, text")
    none = provoked(sa.create_engine(url.set(password=None), poolclass=sa.NullPool).connect)
    check(none, "S--", LINK, "class psycopg.OperationalError, text")


def test_too_many_connections_and_shutting_down(small: Postgres) -> None:
    """53300 and 57P03 count for the breaker."""
    place = str(small.directory)
    held = [psycopg.connect(host=place, user="postgres") for _ in range(3)]
    full = provoked(lambda: psycopg.connect(host=place, user="postgres"))
    check(full, "Drc", LINK, "class psycopg.OperationalError, text")
    assert "too many clients" in str(full)
    held.pop().close()
    os.kill(small.pid, signal.SIGTERM)  # it waits for those who are connected
    stopping = None
    for _ in range(100_000):
        try:
            psycopg.connect(host=place, user="postgres").close()
        except psycopg.OperationalError as error:
            if "too many" not in str(error):
                stopping = error
                break
    assert stopping is not None
    check(stopping, "Drc", LINK, "class psycopg.OperationalError, text")
    assert "shutting down" in str(stopping)
    small.kill()
    lost = provoked(lambda: held[0].execute("SELECT 1"))
    assert isinstance(lost, psycopg.OperationalError)
    assert lost.sqlstate is None or lost.sqlstate.startswith("57P0")
    code = f"sqlstate {lost.sqlstate}" if lost.sqlstate else "class psycopg.OperationalError, text"
    check(lost, "Drc", LINK, code)
    gone = provoked(lambda: psycopg.connect(host=place, user="postgres"))
    check(gone, "Drc", LINK, "class psycopg.OperationalError, text")
    for one in held:
        one.close()


def test_nobody_listens() -> None:
    """A port that was just given back, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = provoked(lambda: psycopg.connect(host="127.0.0.1", port=port, user="postgres"))
    check(error, "Drc", LINK, "class psycopg.OperationalError, text")


def test_the_connection_is_cut(postgres: Postgres, postgres_proxy: Chaos) -> None:
    """A reset in the middle: the driver tells no code; SQLAlchemy says that the connection is invalid."""
    made = sa.create_engine(postgres.through(postgres_proxy))
    with made.connect() as connection:
        postgres_proxy.reset()
        error = provoked(lambda: connection.exec_driver_sql("SELECT 1"))
        connection.invalidate()
    made.dispose()
    assert isinstance(error, sa.exc.DBAPIError)
    check(error, "Drc", LINK, "class psycopg.OperationalError, text")


def test_nobody_answers(postgres: Postgres) -> None:
    """A frozen server: the kernel accepts, the client gives up after its own time limit."""
    postgres.freeze()
    place = str(postgres.directory)
    error = provoked(lambda: psycopg.connect(host=place, user="postgres", connect_timeout=2))
    check(error, "Drc", LINK, "class psycopg.OperationalError, text")
