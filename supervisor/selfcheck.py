"""What the daemon sees of itself and an operator cannot: its limits, its clock, the disk that it writes to.

The answer to the verb `doctor`, which `supervisorctl doctor` judges. Asks the kernel, never waits for a
disk: how long the last copy took is `disk_actor`'s to tell. Knows no breaker.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from supervisor.disk_actor import DiskActor


def examine(runtime: str, state: str, disk: DiskActor, clock_ns: int) -> dict[str, Any]:
    """One answer: `descriptors` in use, the limit on them, both directories, the last copy."""
    return {
        "schema": 1,
        "clock_ns": clock_ns,
        "uid": os.getuid(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "descriptors_max": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "runtime": {"path": runtime, "free_bytes": free_bytes(runtime)},
        "state": {
            "path": state,
            "free_bytes": free_bytes(state),
            "copy_took_s": disk.took_s,
            "copy_bytes_per_s": disk.bytes_per_s,
            "problem": disk.problem,
        },
    }


def free_bytes(directory: str) -> int | None:
    """What an ordinary user may still write there; None = it cannot be asked."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
