"""The demo's database: what the workers do in it, and that an exclusive lock really takes it away."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from workers.demo.shop import RECENT, Shop


def test_queries_see_what_others_inserted(tmp_path: Path) -> None:
    """An agent reads the latest notes of everybody else, newest first."""
    shop = Shop(str(tmp_path / "shop.db"))
    shop.create()
    for number in range(RECENT + 2):
        shop.insert(1, f"note {number}")
    shop.insert(2, "mine")
    assert shop.query(2) == [f"note {number}" for number in range(RECENT + 1, 1, -1)]
    shop.close()


def test_an_exclusive_lock_stops_readers_and_writers(tmp_path: Path) -> None:
    """While another connection holds the exclusive lock both fail as locked; then both work."""
    path = tmp_path / "shop.db"
    shop = Shop(str(path))
    shop.create()
    shop.insert(1, "before")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OperationalError, match="database is locked"):
        shop.query(2)
    with pytest.raises(OperationalError, match="database is locked"):
        shop.insert(1, "never")
    other.execute("ROLLBACK")
    other.close()
    shop.insert(1, "after")
    assert shop.query(2) == ["after", "before"]
    shop.close()
