"""The settings of the memory layer, under the name that its guide uses.

from memory_config import MemoryConfig, MemoryConfigError
"""

from __future__ import annotations

from memory_error_handler import check_packages

check_packages()

# Only now: with another package in the way this would fail with something harder to read.
from workers.errors import MemoryConfigError  # noqa: E402 (see above)
from workers.memory.config import MemoryConfig  # noqa: E402 (see above)

__all__ = ["MemoryConfig", "MemoryConfigError"]
