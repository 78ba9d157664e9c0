"""What can go wrong in the memory layer itself, split by whose fault it is and whether a retry helps.

    BreakerdError (ipc)
    └── MemoryLayerError
        ├── MemoryConfigError       the configuration's: every value that is wrong, at once
        ├── RecordError             the caller's: this can be stored nowhere; a retry does not help
        ├── SchemaError             the database's tables are not ours; a retry does not help
        ├── ErasureIncomplete       a user's words may still be in the database's file; erase again later
        ├── SpoolError              this machine's disk: what was to be kept is not kept
        │   ├── SpoolFull               the size bound is reached; retry when the database is back
        │   └── SpoolUnavailable        no directory, no space, a disk error; the text says which
        ├── CacheBusy               this process's: every connection to the cache is in use; a miss
        ├── CacheValueError         bytes of another version, or damaged: a miss
        └── ClosedError             the caller's fault: the manager is closed

What the database's and the cache's drivers raise is told apart by `workers.classify`, not here.
"""

from __future__ import annotations

from ipc import BreakerdError


class MemoryLayerError(BreakerdError):
    """The root of what the memory layer raises itself."""


class MemoryConfigError(MemoryLayerError, ValueError):
    """Settings are wrong; `problems` has a line for each, "source: key: must be ..., got ..."."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        """One problem a line."""
        return "\n".join(self.problems)


class RecordError(MemoryLayerError, ValueError):
    """A value can be stored nowhere; the text names its field and never its contents."""


class SchemaError(MemoryLayerError):
    """The database's tables are not what this version needs, and it may not migrate them."""


class ErasureIncomplete(MemoryLayerError):
    """The user's rows are gone, but their bytes may still be in the file: somebody was reading it."""


class SpoolError(MemoryLayerError):
    """Nothing was acknowledged: `reason` is a short fixed word for a result, the text is for people."""

    reason = "spool_unavailable"


class SpoolFull(SpoolError):
    """The spool holds `used` of `limit` bytes: nothing more is taken until some of it is replayed."""

    reason = "spool_full"

    def __init__(self, used: int, limit: int) -> None:
        super().__init__(f"the spool holds {used:,} of {limit:,} bytes")
        self.used = used
        self.limit = limit

    def __reduce__(self) -> tuple[type[SpoolFull], tuple[int, int]]:
        """Pickle by the two facts, not by the joined text."""
        return SpoolFull, (self.used, self.limit)


class SpoolUnavailable(SpoolError):
    """The spool directory or its disk does not take writes."""


class CacheBusy(MemoryLayerError):
    """Every connection to the cache that this process may have is in use."""


class CacheValueError(MemoryLayerError, ValueError):
    """A cached value cannot be read: other version, damaged, or somebody else's."""


class ClosedError(MemoryLayerError, RuntimeError):
    """The manager was used after `close()`."""
