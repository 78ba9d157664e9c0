"""Asks a database for a statement, through SQLAlchemy: connects anew, never retries, rolls back.

A connection that is kept would pass while nobody new can log in. Time is kept by the server where it can
(`statement_timeout`), by the driver's own limits, and by the prober's alarm.
Neighbours: `question`, `prober`. Knows no schema.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError

from workers.probes.question import Ask, CannotAsk, Passed, ProbeFailed, Question, place

CONNECT_LEAST_S: Final = 2
"""PostgreSQL's driver knows no shorter limit; the alarm does."""
FIGURES: Final = text(
    "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int,"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
)


def prepare(question: Question) -> Ask:
    """Reads the URL and loads the driver."""
    try:
        url = make_url(place(question.url))
        engine = create_engine(
            url, poolclass=NullPool, connect_args=_limits(url, question.timeout_s), pool_reset_on_return=None
        )
    except (ArgumentError, ValueError) as error:
        raise CannotAsk("this is no URL that SQLAlchemy knows") from error
    except InvalidRequestError as error:
        raise CannotAsk("the URL names a driver that works with asyncio only, or an unknown one") from error
    if engine.dialect.is_async:
        raise CannotAsk("the URL names a driver that works with asyncio only")
    return partial(_ask, engine, question)


def _limits(url: URL, timeout_s: float) -> dict[str, Any]:
    """What the driver is told of time."""
    backend, whole = url.get_backend_name(), math.ceil(timeout_s)
    if backend == "sqlite":
        return {"timeout": timeout_s}
    if backend == "postgresql":
        return {"connect_timeout": max(CONNECT_LEAST_S, whole)}
    if url.get_driver_name() in ("pymysql", "mysqldb"):
        return {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}
    return {}


def _ask(engine: Engine, question: Question) -> Passed:
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and file != ":memory:" and not file.startswith("file:"):
        if not os.path.exists(file):
            raise ProbeFailed("there is no such file, and a probe must not make it")
    connection = engine.connect().execution_options(no_parameters=True)
    try:
        return _carry_out(connection, question)
    except BaseException:
        connection.invalidate()  # a server that is silent must not be asked to roll back
        raise
    finally:
        connection.close()


def _carry_out(connection: Connection, question: Question) -> Passed:
    """The statement in a transaction that is rolled back: what it may change does not stay."""
    on_postgres = connection.dialect.name == "postgresql"
    if on_postgres:
        # SET LOCAL, because a pooler in front may not let an option of the connection pass.
        limit_ms = max(1, int(question.timeout_s * 1000))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")
    connection.exec_driver_sql(question.statement)
    details: dict[str, int] = {}
    if on_postgres and question.details:
        details = _figures(connection)
    connection.rollback()
    return Passed("the statement was carried out", details)


def _figures(connection: Connection) -> dict[str, int]:
    """How many connections ordinary users may have, and how many there are; nothing where it is not told."""
    try:
        most, used = connection.execute(FIGURES).one()
    except DBAPIError:
        return {}
    return {"max_connections": int(most), "connections": int(used)}
