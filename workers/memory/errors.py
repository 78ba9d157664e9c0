"""What can go wrong in the memory layer itself, split by whose fault it is and whether a retry helps.

    MemoryLayerError
    ├── SpoolError              this machine's disk: what was to be kept is not kept
    │   ├── SpoolFull               the size bound is reached; retry when the database is back
    │   └── SpoolUnavailable        no directory, no space, a disk error; the text says which
    ├── CacheValueError         bytes of another version, or damaged: a miss
    └── ClosedError             the caller's fault: the manager is closed

What the database's and the cache's drivers raise is told apart by `workers.classify`, not here.
"""

from __future__ import annotations


class MemoryLayerError(Exception):
    """The root of what the memory layer raises itself."""


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


class CacheValueError(MemoryLayerError, ValueError):
    """A cached value cannot be read: other version, damaged, or somebody else's."""


class ClosedError(MemoryLayerError, RuntimeError):
    """The manager was used after `close()`."""
