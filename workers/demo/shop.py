"""The database that the demo's workers use: one SQLite file through SQLAlchemy. Knows no breaker.

The journal is a rollback journal, not WAL: only then does an exclusive lock keep readers out as well, as a
database that is down would. Writes begin with BEGIN IMMEDIATE, so that a transaction waits for its lock
where SQLite's busy timeout applies instead of failing half-way.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

BUSY_S: Final = 0.15
"""How long a statement waits for the lock before it fails with `database is locked`."""
RECENT: Final = 10
"""How many notes a query reads."""

METADATA: Final = sa.MetaData()
NOTES: Final = sa.Table(
    "notes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("agent", sa.Integer, nullable=False),
    sa.Column("body", sa.String(200), nullable=False),
)


class Shop:
    """One process's way to the database file."""

    def __init__(self, path: str) -> None:
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_S})
        self._writer = self._engine.execution_options(writes=True)
        sa.event.listen(self._engine, "connect", _prepare)
        sa.event.listen(self._engine, "begin", _begin)

    def create(self) -> None:
        """Make the table."""
        with self._writer.begin() as connection:
            METADATA.create_all(connection)

    def insert(self, agent: int, body: str) -> None:
        """Store one note. Raises sqlalchemy.exc.OperationalError while the database is locked."""
        with self._writer.begin() as connection:
            connection.execute(sa.insert(NOTES).values(agent=agent, body=body))

    def query(self, agent: int) -> list[str]:
        """The latest notes of everybody else. Raises sqlalchemy.exc.OperationalError."""
        wanted = (
            sa.select(NOTES.c.body).where(NOTES.c.agent != agent).order_by(NOTES.c.id.desc()).limit(RECENT)
        )
        with self._engine.begin() as connection:
            return list(connection.execute(wanted).scalars())

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()


def _prepare(connection: Any, _record: Any) -> None:
    """Leave BEGIN to us, and flush nothing: the demo outlives killed processes, not a power cut."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("PRAGMA synchronous = OFF")


def _begin(connection: sa.Connection) -> None:
    """Writers take their lock first."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
