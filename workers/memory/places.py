"""Where the memory layer's files are when nothing else is said. Neighbours: `config`. Makes nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sqlalchemy.engine import make_url


def home() -> Path:
    """The user's folder for this program's data: `$XDG_DATA_HOME/breakerd`, else below `~/.local/share`."""
    given = os.environ.get("XDG_DATA_HOME", "")
    base = Path(given) if given.startswith("/") else Path("~/.local/share").expanduser()
    return base / "breakerd"


def database_file() -> Path:
    """The SQLite file."""
    return home() / "memory.db"


def spool_place(of: str) -> str:
    """The folder of the spool of one database, by its mark."""
    return str(home() / f"spool-{of}")


def mark(database_url: str) -> str:
    """A short name of a database that does not change with its password: 16 hexadecimal digits."""
    url = make_url(database_url)
    facts = (url.get_backend_name(), url.host, url.port, url.database, url.username, url.query.get("host"))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
