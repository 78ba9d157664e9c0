"""The words of the error handling: what went wrong, what to do instead, and whose fault it is.

Neighbours: `classify` (finds the first and the last), `fallback` (chooses the second), and everything
above them. Knows no exception.
"""

from __future__ import annotations

import enum


class ErrorType(enum.Enum):
    """What part of the memory layer an error is about."""

    DATABASE_CONNECTION = "database_connection"
    """The database cannot be reached."""
    DATABASE_QUERY = "database_query"
    """The database was reached and did not do what it was asked."""
    CACHE_CONNECTION = "cache_connection"
    """The cache cannot be reached."""
    CACHE_OPERATION = "cache_operation"
    """The cache was reached and did not do what it was asked."""
    CONTEXT_RETRIEVAL = "context_retrieval"
    """A search for context failed, for a reason that is neither of the above."""
    TOOL_ANALYTICS = "tool_analytics"
    """Counting what tools did failed."""
    MEMORY_STORAGE = "memory_storage"
    """Keeping a memory failed; also whatever cannot be classified."""
    CONFIGURATION = "configuration"
    """Settings are wrong."""


class FallbackStrategy(enum.Enum):
    """What a caller is advised to do after an error."""

    RETRY_WITH_BACKOFF = "retry_with_backoff"
    """It passes by itself: call again, later and later."""
    USE_CACHE = "use_cache"
    """The cache is alive: read from it, or keep there what could not be stored."""
    USE_DATABASE = "use_database"
    """The database is alive: read from it."""
    RETURN_EMPTY = "return_empty"
    """Answer with nothing."""
    USE_DEFAULT = "use_default"
    """Go on with default values."""
    FAIL_GRACEFULLY = "fail_gracefully"
    """Nothing of value was lost: log it and go on."""


class Origin(enum.Enum):
    """Whose fault an error is."""

    DEPENDENCY = "dependency"
    """The server's, or the network's."""
    LOCAL = "local"
    """This process's or this machine's: its pool, its memory, its disk, its descriptors."""
    CALLER = "caller"
    """The calling code's or its data's: a bad query, a violated constraint, a bug."""
    CONFIGURATION = "configuration"
    """A setting's, here or on the server: a password, a permission, a read-only replica."""


class Area(enum.Enum):
    """Which dependency a call is about, where the error does not tell."""

    DATABASE = "database"
    CACHE = "cache"


AREA_OF = {
    ErrorType.DATABASE_CONNECTION: Area.DATABASE,
    ErrorType.DATABASE_QUERY: Area.DATABASE,
    ErrorType.CACHE_CONNECTION: Area.CACHE,
    ErrorType.CACHE_OPERATION: Area.CACHE,
}
"""The dependency that an error type is about."""
