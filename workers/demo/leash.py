"""Ties a process to the demo that started it: when the demo is gone, by whatever signal, so is the process.

Used by the demo's own processes (`tie`) and, as `python -m workers.demo.leash PARENT MODULE ARGUMENTS...`,
in front of programs that know nothing of it (breakerd).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def tie(parent: int) -> None:
    """Get SIGTERM when `parent` dies; leave at once if it is dead already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel knew of us, so its signal will never come.
        os._exit(0)


def main(arguments: list[str]) -> None:
    """Become `python -m MODULE ARGUMENTS...`, tied to PARENT."""
    tie(int(arguments[0]))
    os.execv(sys.executable, [sys.executable, "-P", "-m", *arguments[1:]])  # noqa: S606 (our own modules, no shell)


if __name__ == "__main__":
    main(sys.argv[1:])
