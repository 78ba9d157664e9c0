"""The settings of the memory layer: arguments, `MEMORY_*` variables or a TOML table, checked as a whole.

Every value that is wrong is named, all at once, and a secret (`env:NAME`, `file:PATH`) is read when the
configuration is made; no text of it holds a password. Neighbours: `places` (where the files are), the
stores, caches and spools that are given it. Opens no connection and makes no directory.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from workers.errors import MemoryConfigError
from workers.memory.places import database_file, mark, spool_place

PREFIX: Final = "MEMORY_"


def number(default: float, least: float, most: float, doc: str) -> float:
    """A setting that is a number of seconds, or per second, with its bounds."""
    return field(default=default, metadata={"least": least, "most": most, "doc": doc})


def count(default: int, least: int, most: int, doc: str) -> int:
    """A setting that is a whole number with its bounds."""
    return field(default=default, metadata={"least": least, "most": most, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MemoryConfig:
    """Everything that the memory layer wants to know, in seconds and bytes. MemoryConfigError if it is wrong.

    Without any argument: one SQLite file of the user's, and a cache in the process.
    """

    database_url: str = ""
    """`postgresql://...` or `sqlite:///FILE`; "" = `$XDG_DATA_HOME/breakerd/memory.db`."""
    cache_url: str | None = None
    """`redis://...`, `rediss://...` or `unix://...`; None = a cache in this process. May be a secret."""
    spool_directory: str = ""
    """Where writes wait while the database is away; "" = beside the default file, by database."""
    spool_max_bytes: int = count(256 << 20, 1 << 20, 1 << 40, "beyond it, writes are rejected")
    database_timeout_s: float = number(5.0, 0.1, 600, "for one operation on the database as a whole")
    database_connect_timeout_s: float = number(2.0, 2, 600, "to connect; the driver knows no less than 2")
    migrate_timeout_s: float = number(60.0, 1, 86_400, "to create or migrate the tables, waiting included")
    migrate: bool = True
    """Create and migrate the tables on first use; else they must be there."""
    full_text: bool = True
    """Search with SQLite's FTS5 where it is there; else with LIKE."""
    pool_size: int = count(5, 1, 1000, "connections to the database, per process")
    cache_timeout_s: float = number(0.2, 0.001, 60, "for one command")
    cache_connect_timeout_s: float = number(0.2, 0.001, 60, "to connect to the cache")
    cache_max_entries: int = count(10_000, 1, 10_000_000, "of the cache in the process")
    soft_age_s: float = number(60.0, 0, 86_400 * 30, "older entries are read anew while the database answers")
    hard_age_s: float = number(86_400.0, 1, 86_400 * 365, "older entries are never served")
    replay_rate_per_s: float = number(500.0, 0.1, 1_000_000, "conversations replayed per second at most")
    replay_batch_max: int = count(100, 1, 10_000, "conversations replayed in one transaction")

    def __post_init__(self) -> None:
        """Fill in the places, read the secrets, check everything."""
        problems = [*self._types(), *self._bounds()]
        for key in ("database_url", "cache_url"):
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, secret(key, value) if isinstance(value, str) else value)
            except MemoryConfigError as error:
                problems += error.problems
        if not problems:
            problems += self._places()
        if problems:
            raise MemoryConfigError(*problems)

    # ── where from ───────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """From `MEMORY_DATABASE_URL` and the like; what is not set, or empty, has its default."""
        given = os.environ if environment is None else environment
        names = {f"{PREFIX}{one.name.upper()}": one.name for one in dataclasses.fields(cls)}
        texts = {name: given[variable] for variable, name in names.items() if given.get(variable)}
        return cls._made(texts, lambda key: f"{PREFIX}{key.upper()}", problems=[])

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], table: str = "memory") -> Self:
        """From one table of a TOML file; an unknown key is an error, a missing table is all defaults."""
        try:
            read = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise MemoryConfigError(f"{path}: {error}") from None
        given = read.get(table, {})
        if not isinstance(given, dict):
            raise MemoryConfigError(f"{path}: {table}: must be a table")
        known = {one.name for one in dataclasses.fields(cls)}
        problems = [f"{path}: {table}.{key}: is unknown" for key in given if key not in known]
        values = {key: value for key, value in given.items() if key in known}
        return cls._made(values, lambda key: f"{path}: {table}.{key}", problems)

    @classmethod
    def _made(cls, given: Mapping[str, object], place: Callable[[str], str], problems: list[str]) -> Self:
        values: dict[str, object] = {}
        for one in dataclasses.fields(cls):
            if one.name in given:
                try:
                    values[one.name] = _parsed(given[one.name], one.default)
                except ValueError as error:
                    problems.append(f"{place(one.name)}: {error}")
        try:
            made = cls(**values)  # type: ignore[arg-type]  # checked by the constructor, key by key
        except MemoryConfigError as error:
            for line in error.problems:
                key, _, text = line.removeprefix("memory.").partition(": ")
                problems.append(f"{place(key)}: {text}")
        if problems:
            raise MemoryConfigError(*problems)
        return made

    # ── checks ───────────────────────────────────────────────────────────────────────────────────

    def _types(self) -> list[str]:
        wrong: list[str] = []
        for one in dataclasses.fields(self):
            value, default = getattr(self, one.name), one.default
            wanted = (
                (int, float) if isinstance(default, float) else (str if default is None else type(default),)
            )
            if default is None and value is None:
                continue
            if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
                wrong.append(f"memory.{one.name}: must be {wanted[-1].__name__}, got {type(value).__name__}")
        return wrong

    def _bounds(self) -> list[str]:
        wrong: list[str] = []
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if "least" not in one.metadata or not isinstance(value, int | float):
                continue
            least, most = one.metadata["least"], one.metadata["most"]
            if not least <= value <= most:
                wrong.append(f"memory.{one.name}: must be from {least:g} to {most:g}, got {value:g}")
        if not wrong and self.soft_age_s > self.hard_age_s:
            wrong.append(
                f"memory.soft_age_s: must be <= hard_age_s ({self.hard_age_s:g}), got {self.soft_age_s:g}"
            )
        return wrong

    def _places(self) -> list[str]:
        wrong: list[str] = []
        try:
            object.__setattr__(self, "database_url", database(self.database_url))
        except MemoryConfigError as error:
            wrong += error.problems
        else:
            place = os.path.abspath(self.spool_directory or spool_place(mark(self.database_url)))
            object.__setattr__(self, "spool_directory", place)
        schemes = ("redis://", "rediss://", "unix://")
        if self.cache_url is not None and not self.cache_url.startswith(schemes):
            wrong.append(f"memory.cache_url: must begin with {', '.join(schemes)}")
        return wrong

    # ── what is shown ────────────────────────────────────────────────────────────────────────────

    def __repr__(self) -> str:
        """The values that are not the defaults, without passwords."""
        shown = []
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name.endswith("_url") and value:
                value = shown_url(value)
            if value != one.default:
                shown.append(f"{one.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _parsed(value: object, default: object) -> object:
    """A text from the environment as the type of its default; what is not a text stays what it is."""
    if not isinstance(value, str) or default is None or isinstance(default, str):
        return value
    if isinstance(default, bool):
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False}
        if value.strip().lower() not in words:
            raise ValueError(f"must be true or false, got {value!r}")
        return words[value.strip().lower()]
    try:
        return int(value) if isinstance(default, int) else float(value)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"must be {kind}, got {value!r}") from None


def secret(key: str, value: str) -> str:
    """The value, or what `env:NAME` or `file:PATH` holds; the name is told in errors, never the contents."""
    kind, _, place = value.partition(":")
    if kind == "env" and place:
        found = os.environ.get(place)
        if not found:
            raise MemoryConfigError(f"memory.{key}: the variable {place} is not set")
        return found
    if kind == "file" and place:
        try:
            return Path(place).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise MemoryConfigError(f"memory.{key}: cannot read {place}: {reason}") from None
    return value


def database(url: str) -> str:
    """The URL with its driver and an absolute path; MemoryConfigError if it is not one of ours."""
    try:
        parsed = make_url(url or f"sqlite:///{database_file()}")
    except (ArgumentError, ValueError):
        raise MemoryConfigError("memory.database_url: is not a URL") from None
    backend = parsed.drivername.partition("+")[0]
    if backend in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or "mode" in parsed.query:
            raise MemoryConfigError("memory.database_url: must name a file: sqlite:///PATH")
        path = os.path.abspath(parsed.database)
        parsed = parsed.set(drivername="sqlite+pysqlite", database=path)
    else:
        raise MemoryConfigError(f"memory.database_url: must be postgresql or sqlite, got {backend[:20]!r}")
    return parsed.render_as_string(hide_password=False)


def shown_url(url: str) -> str:
    """A URL for people: without password and without parameters, where passwords can be, too."""
    head, _, _ = url.partition("?")
    scheme, separator, rest = head.partition("://")
    login, at, place = rest.rpartition("@")
    if at:
        login = login.partition(":")[0] + (":***" if ":" in login else "")
    return f"{scheme}{separator}{login}{at}{place}"
