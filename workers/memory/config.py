"""The settings of the memory layer: arguments, `MEMORY_*` variables or a TOML table, checked as a whole.

Every value that is wrong is named, all at once, and a secret (`env:NAME`, `file:PATH`) is read when the
configuration is made; no text of it holds a password. Neighbours: `places` (where the files are), the
stores, caches and spools that are given it. Opens no connection and makes no directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from redis.connection import parse_url
from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ipc.vocabulary import check_name
from workers.errors import MemoryConfigError
from workers.memory.places import database_file, is_by_mark, mark, spool_place

CACHE_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
}
"""Which schemes a cache's URL may have, and what the driver calls them."""
SCHEMA_BYTES_MAX: Final = 63
CACHE_PREFIX_CHARS_MAX: Final = 100

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

    Without any argument, and without the variables that the URLs name: one SQLite file of the user's, and a
    cache in the process.
    """

    database_url: str = ""
    """`postgresql://...` or `sqlite:///FILE`; "" = `$MEMORY_DATABASE_URL`, else
    `$XDG_DATA_HOME/breakerd/memory.db`."""
    schema: str = ""
    """The schema of PostgreSQL that the tables are in; made with them. "" = what the server chooses."""
    cache_url: str | None = None
    """`redis://...`, `rediss://...`, `valkey://...`, `valkeys://...` or `unix://...`; "" = a cache in this
    process; None = `$MEMORY_CACHE_URL`, else a cache in this process. May be a secret."""
    cache_prefix: str = ""
    """Before every key, beside the mark of the database: tells apart what has the same database URL."""
    breaker: str = ""
    """The name of the database's breaker; "" = `memory.MARK.database`, one for each database and schema."""
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
            if not getattr(self, key) and getattr(self, key) != _OFF[key]:
                object.__setattr__(self, key, os.environ.get(f"{PREFIX}{key.upper()}") or _NOT_SET[key])
        if self.cache_url == "":
            object.__setattr__(self, "cache_url", None)
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
        known = [one.upper() for one in names.values()]
        problems = []
        for variable in given:
            if variable.startswith(PREFIX) and variable not in names:
                # Others have variables of this kind, such as MEMORY_LIMIT: those are not ours to refuse.
                if meant := _meant(variable.removeprefix(PREFIX), known, PREFIX):
                    problems.append(f"{variable}: is unknown{meant}")
        return cls._made(texts, lambda key: f"{PREFIX}{key.upper()}", problems)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], table: str = "memory") -> Self:
        """From one table of a TOML file; an unknown key is an error, and so is a missing table."""
        try:
            read = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise MemoryConfigError(f"{path}: {error}") from None
        given = read.get(table)
        if given is None:
            raise MemoryConfigError(f"{path}: has no table [{table}]{_meant(table, read)}")
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
            wrong += self._schema()
            try:
                own = spool_place(self.mark)
                place = os.path.abspath(self.spool_directory or own)
                if is_by_mark(place) and os.path.dirname(place) == os.path.dirname(own):
                    place = own  # `dataclasses.replace` has brought along that of another database
                object.__setattr__(self, "spool_directory", place)
            except RuntimeError:
                place = self.spool_directory and os.path.abspath(self.spool_directory)
                object.__setattr__(self, "spool_directory", place)
                wrong += [] if place else [f"memory.spool_directory: {_HOMELESS}"]
        if self.cache_url is not None:
            try:
                object.__setattr__(self, "cache_url", cache(self.cache_url))
            except MemoryConfigError as error:
                wrong += error.problems
        if len(self.cache_prefix) > CACHE_PREFIX_CHARS_MAX or not self.cache_prefix.isprintable():
            wrong.append(f"memory.cache_prefix: must be at most {CACHE_PREFIX_CHARS_MAX} printable letters")
        try:
            check_name(self.breaker or "x", "breaker")
        except ValueError as error:
            wrong.append(f"memory.breaker: {error}")
        return wrong

    def _schema(self) -> list[str]:
        if not self.schema:
            return []
        if not self.database_url.startswith("postgresql"):
            return ["memory.schema: only PostgreSQL has schemas; give every tenant a file of its own"]
        if len(self.schema.encode("utf-8", "replace")) > SCHEMA_BYTES_MAX or not self.schema.isprintable():
            return [f"memory.schema: must be at most {SCHEMA_BYTES_MAX} bytes of printable characters"]
        if self.schema.startswith("pg_"):
            return ["memory.schema: PostgreSQL keeps names that begin with pg_ for itself"]
        return []

    # ── what belongs to this database and schema alone ───────────────────────────────────────────

    @property
    def mark(self) -> str:
        """A short name of the database and schema: 16 hexadecimal digits."""
        return mark(self.database_url, self.schema)

    @property
    def database_breaker(self) -> str:
        """The name of the breaker that guards the database, the same in every process that uses it."""
        return self.breaker or f"memory.{self.mark}.database"

    @property
    def cache_breaker(self) -> str:
        """The name of the breaker that guards the cache, the same in every process that uses it."""
        where = shown_url(self.cache_url or "").encode()
        return f"memory.{hashlib.sha256(where).hexdigest()[:16]}.cache"

    @property
    def cache_namespace(self) -> str:
        """What every key in the cache begins with. A file of SQLite belongs to its host, too."""
        host = os.uname().nodename if self.database_url.startswith("sqlite") else ""
        facts = repr((self.cache_prefix, self.mark, host)).encode()
        own = f"{self.cache_prefix}:" if self.cache_prefix else ""
        return own + hashlib.sha256(facts).hexdigest()[:16]

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


_parse_url: Final[Callable[[str], object]] = parse_url

_OFF: Final = {"database_url": None, "cache_url": ""}
"""What says that the variable of a URL is not looked at."""
_NOT_SET: Final = {"database_url": "", "cache_url": None}
_HOMELESS: Final = "this user has no home directory: name a place, or set XDG_DATA_HOME"


def _meant(given: str, known: Iterable[str], prefix: str = "") -> str:
    """The known name that was probably meant, as the end of a sentence; "" = none is like it."""
    near = difflib.get_close_matches(given, list(known), 1)
    return f"; {prefix}{near[0]} is meant?" if near else ""


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
    except RuntimeError:
        raise MemoryConfigError(f"memory.database_url: {_HOMELESS}") from None
    except (ArgumentError, ValueError):
        raise MemoryConfigError("memory.database_url: is not a URL") from None
    backend = parsed.drivername.partition("+")[0]
    if backend in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        _check_parameters(parsed)
    elif backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or "mode" in parsed.query:
            raise MemoryConfigError("memory.database_url: must name a file: sqlite:///PATH")
        path = os.path.abspath(parsed.database)
        parsed = parsed.set(drivername="sqlite+pysqlite", database=path)
    else:
        raise MemoryConfigError(f"memory.database_url: must be postgresql or sqlite, got {backend[:20]!r}")
    return parsed.render_as_string(hide_password=False)


def _check_parameters(url: URL) -> None:
    """MemoryConfigError for a parameter that the driver does not know: no later attempt could succeed."""
    threshold = str(url.query.get("prepare_threshold", "None"))
    if threshold not in ("", "None", "none") and not threshold.isdecimal():
        raise MemoryConfigError("memory.database_url: prepare_threshold must be a whole number or None")
    psycopg = importlib.import_module("psycopg")
    for key in url.query:
        if key != "prepare_threshold":
            try:
                psycopg.conninfo.make_conninfo("", **{key: ""})
            except psycopg.ProgrammingError:
                raise MemoryConfigError(
                    f"memory.database_url: PostgreSQL knows no parameter {key!r}"
                ) from None


def cache(url: str) -> str:
    """The URL as the driver wants it; MemoryConfigError if it cannot be one."""
    scheme, separator, rest = url.partition("://")
    if scheme not in CACHE_SCHEMES or not separator:
        schemes = ", ".join(f"{one}://" for one in CACHE_SCHEMES)
        kind = scheme.lower() if separator else ""
        if "sentinel" in kind or "cluster" in kind:
            text = "Sentinel and Redis Cluster are not supported: name one server"
            raise MemoryConfigError(f"memory.cache_url: {text}, by {schemes}")
        raise MemoryConfigError(f"memory.cache_url: must begin with {schemes}")
    made = f"{CACHE_SCHEMES[scheme]}://{rest}"
    try:
        parts = urlsplit(made)
        port = parts.port
        there = bool(parts.path) if scheme == "unix" else not parts.netloc.endswith(":")
        _parse_url(made)
    except (ValueError, TypeError):
        raise MemoryConfigError("memory.cache_url: is not a URL: see its port and its parameters") from None
    if not there or port == 0 or "," in parts.netloc.rpartition("@")[2]:
        raise MemoryConfigError("memory.cache_url: must name one server, as in redis://HOST:PORT/NUMBER")
    if scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise MemoryConfigError("memory.cache_url: its path must be the number of a database")
    return made


def shown_url(url: str) -> str:
    """A URL for people: without password and without parameters, where passwords can be, too."""
    head, _, _ = url.partition("?")
    scheme, separator, rest = head.partition("://")
    login, at, place = rest.rpartition("@")
    if at:
        login = login.partition(":")[0] + (":***" if ":" in login else "")
    return f"{scheme}{separator}{login}{at}{place}"
