"""PostgreSQL connections that keep a deadline on this side, and that notice a server that went away.

`statement_timeout` is the server's: a frozen one, or a network that swallows packets, never keeps it. So the
driver's wait is cut here as well, and a connection whose answer did not come is closed: what arrives later
would be taken for the answer to the next question. Neighbours: `engines` makes them; loaded only for
PostgreSQL.
"""

from __future__ import annotations

import select
from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.errors import ConnectionTimeout
from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

from workers.memory.deadlines import left_s

STEP_S: Final = 0.1
"""How often the driver looks up while it waits."""

NO_ANSWER: Final = "timeout: the server did not answer in time"


class PatientConnection(psycopg.Connection[Any]):
    """A connection that waits until the operation's deadline and not longer."""

    def wait(self, gen: PQGen[RV], interval: float = STEP_S, timeout: float | None = None) -> RV:
        """As the driver's own, with the operation's deadline."""
        left = left_s()
        limit = left if timeout is None else timeout if left is None else min(left, timeout)
        try:
            return super().wait(gen, interval, limit)
        except psycopg.OperationalError as error:
            if limit is None or not late(error):
                raise
            self.pgconn.finish()
            raise ConnectionTimeout(NO_ANSWER) from None


def late(error: psycopg.OperationalError) -> bool:
    """True for the driver's sign that the time is over, which has no public name."""
    return type(error).__name__ == "_WaitTimeout"


def prepare(engine: Engine) -> None:
    """Make the engine's connections patient, and let its pool notice that a server went away."""

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, cargs: Any, cparams: Any) -> object:
        left = left_s()
        if left is not None:
            cparams["connect_timeout"] = max(1, min(cparams["connect_timeout"], int(left)))
        return PatientConnection.connect(*cargs, **cparams)

    @event.listens_for(engine, "checkout")
    def look(_connection: object, record: Any, _proxy: object) -> None:
        """What is to be read from an idle connection is its end: the server was restarted."""
        driver = record.driver_connection
        if driver.closed:
            raise InvalidatePoolError("the connection is closed")
        poll = select.poll()
        poll.register(driver.fileno(), select.POLLIN)
        if poll.poll(0):
            raise InvalidatePoolError("the server closed the connection")
