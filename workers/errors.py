"""What can go wrong in the memory layer, split by whose fault it is and whether a retry helps.

    BreakerdError (ipc)
    └── MemoryLayerError
        ├── MemoryConfigError   the configuration's: every value that is wrong, at once
        ├── RecordError         the caller's: this can be stored nowhere; a retry does not help
        ├── SchemaError         the database's tables are not ours; a retry does not help
        └── ErasureIncomplete   a user's words may still be in the database's file; erase again later

Neighbours: everything in `workers` raises from here; what drivers raise is classified by `classify`.
"""

from __future__ import annotations

from ipc import BreakerdError


class MemoryLayerError(BreakerdError):
    """The root of what the memory layer itself raises."""


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
