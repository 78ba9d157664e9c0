"""What to do instead: chosen by the class of the error, and by what is alive.

The table names for every error type what to do first, and what if that is not to be had. Neighbours:
`handler` (asks, and says what is alive). Knows no breaker and no exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.classify import Classification
from workers.kinds import ErrorType, FallbackStrategy

_CHOICES: Final[dict[ErrorType, tuple[FallbackStrategy, ...]]] = {
    ErrorType.DATABASE_CONNECTION: (FallbackStrategy.USE_CACHE, FallbackStrategy.RETURN_EMPTY),
    ErrorType.DATABASE_QUERY: (FallbackStrategy.RETRY_WITH_BACKOFF, FallbackStrategy.RETURN_EMPTY),
    ErrorType.CACHE_CONNECTION: (FallbackStrategy.USE_DATABASE, FallbackStrategy.RETURN_EMPTY),
    ErrorType.CACHE_OPERATION: (FallbackStrategy.USE_DATABASE, FallbackStrategy.RETURN_EMPTY),
    ErrorType.CONTEXT_RETRIEVAL: (FallbackStrategy.RETURN_EMPTY,),
    ErrorType.TOOL_ANALYTICS: (FallbackStrategy.FAIL_GRACEFULLY,),
    ErrorType.MEMORY_STORAGE: (
        FallbackStrategy.USE_CACHE,
        FallbackStrategy.RETRY_WITH_BACKOFF,
        FallbackStrategy.RETURN_EMPTY,
    ),
    ErrorType.CONFIGURATION: (FallbackStrategy.USE_DEFAULT,),
}
"""By error type, the first that is possible; the last one always is."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Which of the two would take a call now: its breaker admits, or it has none."""

    database: bool = True
    cache: bool = True


def choose(found: Classification, alive: Alive) -> FallbackStrategy:
    """What to do after this error."""
    possible = {
        FallbackStrategy.USE_CACHE: alive.cache,
        FallbackStrategy.USE_DATABASE: alive.database,
        FallbackStrategy.RETRY_WITH_BACKOFF: found.retriable,
    }
    choices = _CHOICES[found.error_type]
    return next((one for one in choices if possible.get(one, True)), choices[-1])


def table() -> str:
    """The choices in Markdown, as they stand in the guide."""
    lines = ["| error type | first choice | else |", "|---|---|---|"]
    for kind, (first, *rest) in _CHOICES.items():
        lines.append(
            f"| `{kind.name}` | `{first.name}` | {', then '.join(f'`{one.name}`' for one in rest) or '-'} |"
        )
    return "\n".join(lines)
