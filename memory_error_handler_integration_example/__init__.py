"""The memory layer itself, under the name that its guide uses.

    from memory_error_handler_integration_example import EnhancedMemoryLayerManager
"""

from __future__ import annotations

from memory_error_handler import check_packages

check_packages()

# Only now: with another package in the way this would fail with something harder to read.
from workers.errors import (  # noqa: E402 (see above)
    ClosedError,
    MemoryConfigError,
    MemoryLayerError,
    RecordError,
    SchemaError,
    SpoolError,
)
from workers.memory.async_manager import AsyncMemoryLayerManager  # noqa: E402 (see above)
from workers.memory.manager import EnhancedMemoryLayerManager  # noqa: E402 (see above)
from workers.memory.records import (  # noqa: E402 (see above)
    Conversation,
    Deletion,
    Found,
    Source,
    StoreOutcome,
    StoreResult,
    ToolCall,
    ToolStatistics,
)

__all__ = [
    "AsyncMemoryLayerManager",
    "ClosedError",
    "Conversation",
    "Deletion",
    "EnhancedMemoryLayerManager",
    "Found",
    "MemoryConfigError",
    "MemoryLayerError",
    "RecordError",
    "SchemaError",
    "Source",
    "SpoolError",
    "StoreOutcome",
    "StoreResult",
    "ToolCall",
    "ToolStatistics",
]
