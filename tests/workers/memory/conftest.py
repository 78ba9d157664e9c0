"""Stores to test: `shelf` is each of them in turn, `postgres_url` an empty database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.testing import unattached
from tests.servers import Postgres
from tests.workers.memory.shelves import KINDS, Shelf
from workers.memory.config import MemoryConfig

__all__ = ["unattached"]


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The URL of an empty database."""
    return postgres.url(postgres.database())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path / 'memory.db'}"


@pytest.fixture(params=KINDS)
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    """An empty store of each kind."""
    kind: str = request.param
    url = request.getfixturevalue("postgres_url" if "postgres" in kind else "sqlite_url")
    config = MemoryConfig(database_url=url, full_text="like" not in kind, database_timeout_s=20.0)
    made = Shelf(config)
    yield made
    made.close()
