"""What Alembic runs for every command: the migrations, on the connection that `schema` hands over.

The connection is in a transaction and holds the lock already, and whoever handed it over commits. Only for
Alembic; nothing imports this.
"""

from __future__ import annotations

from alembic import context

from workers.memory.models import Model
from workers.memory.schema import VERSION_TABLE


def run() -> None:
    """Run the migrations inside the transaction that is open."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Model.metadata,
        version_table=VERSION_TABLE,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
