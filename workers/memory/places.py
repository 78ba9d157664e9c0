"""Where the memory layer's files are when nothing else is said, and the mark that tells databases apart.

Neighbours: `config`, `spool_places`. Makes nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from sqlalchemy import URL
from sqlalchemy.engine import make_url

OPTION: Final = re.compile(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)")
"""One setting of the server in the `options` of a URL, as libpq reads them."""
FURTHER: Final = ("hostaddr", "port", "dbname", "user", "service")
"""Parameters of a URL that say which database it is, beside its host."""


def home() -> Path:
    """The user's folder for this program's data: `$XDG_DATA_HOME/breakerd`, else below `~/.local/share`.

    Raises RuntimeError if the user has no home directory.
    """
    given = os.environ.get("XDG_DATA_HOME", "")
    base = Path(given) if given.startswith("/") else Path("~/.local/share").expanduser()
    return base / "breakerd"


def database_file() -> Path:
    """The SQLite file. Raises RuntimeError if the user has no home directory."""
    return home() / "memory.db"


def spool_place(of: str) -> str:
    """The folder of the spool of one database, by its mark. Raises RuntimeError, too."""
    return str(home() / f"spool-{of}")


def is_by_mark(path: str) -> bool:
    """Whether a folder's name was made of the mark of a database."""
    return bool(re.fullmatch("spool-[0-9a-f]{16}", os.path.basename(path)))


def server_options(url: URL) -> dict[str, str]:
    """The server settings that a URL's `options` hold, by name."""
    given = url.query.get("options", "")
    text = given if isinstance(given, str) else " ".join(given)
    return {
        name.replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", value) for name, value in OPTION.findall(text)
    }


def mark(database_url: str, schema: str = "") -> str:
    """A short name of a database and schema that no password changes: 16 hexadecimal digits.

    A `search_path` in the URL is a schema, too.
    """
    url = make_url(database_url)
    facts = (url.get_backend_name(), url.host, url.port, url.database, url.username, url.query.get("host"))
    path = [one.strip().strip('"') for one in server_options(url).get("search_path", "").split(",")]
    further = [(key, url.query[key]) for key in FURTHER if key in url.query]
    if tenant := schema or ",".join(filter(None, path)):
        further.append(("schema", tenant))
    shown = repr(facts) + (repr(further) if further else "")
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
