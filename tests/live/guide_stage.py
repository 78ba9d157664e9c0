"""Runs the Python blocks of a guide in their order, as one program: `python -m tests.live.guide_stage FILE`.

What a guide's reader has of his own (a database, a cache, an alarm) is here, and is as unreliable as a
reader's. What each block must have done is checked behind it. Neighbours: `test_guide` (starts this without
and with a supervisor).
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ipc import CircuitOpenError

BLOCK: Final = re.compile(r"^```python ?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
Scope = dict[str, Any]


class Database:
    """A database that is down."""

    def store(self, *_: object) -> None:
        """Refused."""
        raise ConnectionError("connection refused: password=canary")

    load = store


def down() -> None:
    """A query that nobody answers."""
    raise ConnectionError("connection refused")


def given() -> Scope:
    """What the reader has."""
    kept: list[object] = []
    return {
        "__name__": "application",
        "database_operation": down,
        "perform_database_query": down,
        "cache_operation": lambda: ["from the cache"],
        "fallback_operation": lambda: "instead",
        "retry_operation": lambda: kept.append("again"),
        "cache_store": kept.append,
        "kept": kept,
        "process_data": lambda: kept.append("processed"),
        "send_alert": kept.append,
        "database": Database(),
        "threshold": 0,
    }


def _advice(scope: Scope) -> None:
    assert scope["result"] == ["from the cache"]


def _critical(scope: Scope) -> None:
    strategies = scope["FallbackStrategy"]
    scope["keep"]("data", strategies.USE_CACHE)
    scope["keep"]("data", strategies.RETRY_WITH_BACKOFF)
    assert scope["kept"] == ["data", "again"]
    assert scope["show"](strategies.RETURN_EMPTY) == []


def _decorator(scope: Scope) -> None:
    assert scope["result"] is None
    assert scope["store_conversation"].__name__ == "store_conversation"


def _options(scope: Scope) -> None:
    assert scope["history"] == []
    state = scope["error_handler"].get_circuit_breaker("database").state
    assert state.failure_count == 3, state.failure_count


def _breaker(scope: Scope) -> None:
    """The block's one failure does not open it; five in a row do, and then it refuses."""
    for _ in range(5):
        with contextlib.suppress(ConnectionError, CircuitOpenError):
            scope["database_operation"]()
    deadline = time.monotonic() + 5.0
    while not scope["db_breaker"].state.is_open:
        assert time.monotonic() < deadline, "it does not open"
    with pytest.raises(CircuitOpenError, match="Circuit breaker is OPEN"):
        scope["database_operation"]()


def _retried(scope: Scope) -> None:
    assert scope["result"] in ("success", "Temporary failure")


def _processed(scope: Scope) -> None:
    assert scope["kept"][-1] == "processed"


def _metrics(scope: Scope) -> None:
    counted = {kind.name: one.error_count for kind, one in scope["metrics"].items() if one.error_count}
    assert counted["DATABASE_CONNECTION"] >= 5, counted
    text = str(scope["health"])
    assert "canary" not in text


def _reset(scope: Scope) -> None:
    assert not any(one.error_count for one in scope["error_handler"].get_error_metrics().values())


def _manager(scope: Scope) -> None:
    assert scope["success"] is True
    (found,) = scope["context"]
    assert found.conversation.tools_used == ("documentation", "examples")


def _closed(scope: Scope) -> None:
    assert not scope["breaker"].state.is_open
    assert scope["breaker"].state.failure_count == 0


CHECKS: Final[dict[str, Callable[[Scope], None]]] = {
    "advice": _advice,
    "critical": _critical,
    "decorator": _decorator,
    "options": _options,
    "breaker": _breaker,
    "retry": _retried,
    "context": _processed,
    "attempts": _processed,
    "manager": _manager,
    "metrics": _metrics,
    "reset": _reset,
    "reset breaker": _closed,
}


def run(path: Path) -> list[str]:
    """Execute every block; the names of those that were executed."""
    scope, done = given(), []
    for name, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        exec(compile(text, f"{path.name}: {name}", "exec"), scope)
        if name in CHECKS:
            CHECKS[name](scope)
        done.append(name)
    return done


if __name__ == "__main__":
    print(*run(Path(sys.argv[1])), sep="\n")
