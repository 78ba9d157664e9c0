"""What an exception is: asked by its code first, then by its class, by its text only at last.

A wrapper is seen through: SQLAlchemy's errors to the driver's, `raise X from error` to the error where X
itself says nothing. Neighbours: `rules` (the table), `handler` (asks for everything), `breakers` (whose
breakers count what `counts_as_failure` says). Knows no handler, no breaker and no driver.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ipc import CircuitOpenError
from workers.kinds import AREA_OF, Area, ErrorType, Origin
from workers.rules import (
    AREAS,
    CLASSES,
    ERRNOS,
    HTTP,
    REDIS,
    SQLITE,
    SQLSTATES,
    TEXTS,
    UNKNOWN,
    Rule,
    table,
)

__all__ = ["Classification", "classify", "counts_as_failure", "table"]

DEPTH_MAX: Final = 8
"""How many wrappers are looked through."""
TEXT_MAX: Final = 2000
"""Characters of a message that are looked at."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What an error is, and what follows from it."""

    error_type: ErrorType
    origin: Origin
    retriable: bool
    """The same call may succeed a moment later."""
    counts: bool
    """It is evidence that the dependency is down."""
    code: str
    """How it was known: "sqlstate 08006", "sqlite BUSY", "redis LOADING", "errno ECONNREFUSED", "text"."""
    rejected: bool = False
    """A breaker refused the call: nothing was tried, and there was no error."""


def classify(
    error: BaseException, default: ErrorType = ErrorType.MEMORY_STORAGE, area: Area | None = None
) -> Classification:
    """Classify an error that came up while something was done that `default` names.

    `area` says which dependency was called, where the error does not; else `default` does.
    """
    area = area or AREA_OF.get(default)
    if isinstance(error, CircuitOpenError):
        return _refused(error, default, area)
    rule, code = _look(error, 0)
    area = AREAS.get(rule.family) or _area_of_class(code) or area
    return Classification(_type(rule, default, area, error), rule.origin, rule.retriable, rule.counts, code)


def counts_as_failure(error: BaseException) -> bool:
    """Whether a breaker should count it: the `is_failure` of the breakers that a handler makes."""
    return not isinstance(error, CircuitOpenError) and _look(error, 0)[0].counts


def _refused(error: CircuitOpenError, default: ErrorType, area: Area | None) -> Classification:
    named = next((one for one in Area if one.value in error.breaker.lower()), area)
    kinds = {Area.DATABASE: ErrorType.DATABASE_CONNECTION, Area.CACHE: ErrorType.CACHE_CONNECTION}
    error_type = default if named is None else kinds[named]
    return Classification(error_type, Origin.DEPENDENCY, False, False, "circuit open", rejected=True)


def _type(rule: Rule, default: ErrorType, area: Area | None, error: BaseException) -> ErrorType:
    """The error type of a rule, where `area` is the dependency that was called (None = not known)."""
    if rule.about == "configuration":
        return ErrorType.CONFIGURATION
    if rule.about == "task":
        return default
    if area is None and _CACHES.search(_text(error)):
        area = Area.CACHE
    if rule.about == "connection":
        return ErrorType.CACHE_CONNECTION if area is Area.CACHE else ErrorType.DATABASE_CONNECTION
    return ErrorType.CACHE_OPERATION if area is Area.CACHE else ErrorType.DATABASE_QUERY


_CACHES: Final = re.compile(r"\b(redis|valkey|cache|memcached)\b")


def _area_of_class(code: str) -> Area | None:
    if code.startswith("class redis."):
        return Area.CACHE
    database = ("class sqlalchemy.", "class psycopg", "class sqlite3.")
    return Area.DATABASE if code.startswith(database) else None


# --- the families, in their order ---------------------------------------------------------------------


def _look(error: BaseException, depth: int) -> tuple[Rule, str]:
    """The rule of an error, and how it was known."""
    if isinstance(error, BaseExceptionGroup):
        return _look_at_group(error, depth)
    found = _by_code(error) or _by_class(error, depth)
    if found is not None:
        return found
    cause = error.__cause__
    if cause is not None and depth < DEPTH_MAX and not isinstance(cause, CircuitOpenError):
        rule, code = _look(cause, depth + 1)
        if rule is not UNKNOWN:
            return rule, code
    return _by_text(error) or (UNKNOWN, "unknown")


def _look_at_group(group: BaseExceptionGroup[Any], depth: int) -> tuple[Rule, str]:
    """Of a group: the first error that counts, else the first."""
    if depth >= DEPTH_MAX:
        return UNKNOWN, "unknown"
    found = [_look(one, depth + 1) for one in group.exceptions]
    return next((one for one in found if one[0].counts), found[0])


def _by_code(error: BaseException) -> tuple[Rule, str] | None:
    """By what the server or the system says in numbers."""
    state = _attribute(error, "sqlstate") or _attribute(error, "pgcode")
    if isinstance(state, str) and len(state) == 5 and state.isalnum():
        return _longest(SQLSTATES, state), f"sqlstate {state}"
    status = _http_status(error)
    if status is not None:
        return _longest(HTTP, str(status)), f"http {status}"
    number = _attribute(error, "sqlite_errorcode")
    if isinstance(number, int):
        name = _SQLITE_NAMES.get(number & 0xFF, "ERROR")
        return _longest(SQLITE, name), f"sqlite {name}"
    if isinstance(error, OSError) and isinstance(error.errno, int) and not _has_own_numbers(error):
        name = errno.errorcode.get(error.errno, "")
        if name:
            return _longest(ERRNOS, name), f"errno {name}"
    return None


_HTTP_CLASSES: Final = {
    "httpx.HTTPStatusError": ("response", "status_code"),
    "requests.exceptions.HTTPError": ("response", "status_code"),
    "aiohttp.client_exceptions.ClientResponseError": ("status",),
    "urllib.error.HTTPError": ("code",),
    "starlette.exceptions.HTTPException": ("status_code",),
    "werkzeug.exceptions.HTTPException": ("code",),
    "aiohttp.web_exceptions.HTTPException": ("status",),
    "openai.APIStatusError": ("status_code",),
    "anthropic.APIStatusError": ("status_code",),
}
"""Classes that stand for an answer with a status, and where the status is."""


def _http_status(error: BaseException) -> int | None:
    """The status of the answer that this error stands for; None = it stands for none."""
    for name in _names(error):
        if name in _HTTP_CLASSES:
            found: Any = error
            for attribute in _HTTP_CLASSES[name]:
                found = _attribute(found, attribute)
            return found if isinstance(found, int) and 100 <= found <= 999 else None
    return None


_SQLITE_NAMES: Final = {
    3: "PERM", 5: "BUSY", 6: "LOCKED", 7: "NOMEM", 8: "READONLY", 9: "INTERRUPT", 10: "IOERR",
    11: "CORRUPT", 13: "FULL", 14: "CANTOPEN", 15: "PROTOCOL", 17: "SCHEMA", 18: "TOOBIG",
    19: "CONSTRAINT", 20: "MISMATCH", 21: "MISUSE", 23: "AUTH", 25: "RANGE", 26: "NOTADB",
}  # fmt: skip
"""SQLite's primary result codes: the low byte of what an error carries."""


def _has_own_numbers(error: OSError) -> bool:
    """Classes whose `errno` is not the system's: socket.gaierror, ssl.SSLError."""
    return any(name in _CLASSES and name.startswith(("socket.", "ssl.")) for name in _names(error))


def _longest(rules: tuple[Rule, ...], code: str) -> Rule:
    """The rule with the longest match; every such family ends with one that matches all."""
    fitting = (rule for rule in rules if rule.match == code or _begins(rule.match, code))
    return max(fitting, key=lambda rule: len(rule.match.rstrip("*")))


def _begins(match: str, code: str) -> bool:
    return match.endswith("*") and code.startswith(match[:-1])


def _by_class(error: BaseException, depth: int) -> tuple[Rule, str] | None:
    """By the names of its class and of those above it, the most derived first."""
    driver = _attribute(error, "orig")
    names = tuple(_names(error))
    if isinstance(driver, BaseException) and depth < DEPTH_MAX and "sqlalchemy.exc.StatementError" in names:
        found = _by_code(driver) or _by_class(driver, depth + 1)
        if found is None and _attribute(error, "connection_invalidated"):
            return _CLASSES["sqlalchemy.exc.DisconnectionError"], "class sqlalchemy.exc.DisconnectionError"
        if found is not None:
            return found
    if "redis.exceptions.ResponseError" in names and type(error).__name__ == "ResponseError":
        reply = _text(error).partition(" ")[0].upper()
        if "max number of clients" not in _text(error):
            rule = _longest(REDIS, reply)
            return rule, f"redis {'ERR' if rule.match == '*' else rule.match}"
    for name in names:
        named = _CLASSES.get(name) or _BARE.get(name.rpartition(".")[2] if "builtins" not in name else "")
        if named is not None:
            said = _by_text(error) if named.match in _VAGUE else None
            return (named, f"class {name}") if said is None else (said[0], f"class {name}, {said[1]}")
    return None


_CLASSES: Final = {rule.match: rule for rule in CLASSES}
_BARE: Final = {rule.match: rule for rule in CLASSES if "." not in rule.match}
"""What every DB-API driver calls its classes."""
_VAGUE: Final = frozenset({"OperationalError", "redis.exceptions.ConnectionError"})
"""Classes of which the text tells more: a driver that could not connect has no code."""
_MODULES: Final = {"_socket": "socket", "_ssl": "ssl"}


def _attribute(thing: Any, name: str) -> Any:
    """An attribute of somebody's exception, which may raise anything when it is asked; None = it has none."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 (it is some class's own property that failed)
        return None


def _names(error: BaseException) -> Iterator[str]:
    """Qualified names of its class and of those above it."""
    for kind in type(error).__mro__:
        yield f"{_MODULES.get(kind.__module__, kind.__module__)}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:TEXT_MAX].lower()
    except Exception:  # noqa: BLE001 (it is some class's own `__str__` that failed)
        return ""


def _by_text(error: BaseException) -> tuple[Rule, str] | None:
    """By words, as the last resort."""
    text = _text(error)
    for pattern, rule in _TEXTS:
        if pattern.search(text):
            return rule, "text"
    return None


_TEXTS: Final = tuple((re.compile(rule.match), rule) for rule in TEXTS)
