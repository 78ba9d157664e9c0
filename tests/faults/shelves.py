"""Small file systems of their own, for tests in which a disk is full or only reads.

Neighbours: `tests.conftest`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import could_not_run


class Shelf:
    """A mounted directory with little room."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self, spare_bytes: int = 0) -> None:
        """Take all the room that there is, but for some."""
        with contextlib.suppress(OSError), open(self._ballast, "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        os.truncate(self._ballast, max(0, self._ballast.stat().st_size - spare_bytes))

    def empty(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    def only_read(self) -> None:
        """Nothing can be written there."""
        self._mount_anew("ro")

    def write_again(self) -> None:
        """It can."""
        self._mount_anew("rw")

    def _mount_anew(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)


@contextlib.contextmanager
def shelf(place: Path, size_mib: int, identity: str) -> Iterator[Shelf]:
    """A file system of that size at `place`; `identity` names what is not run where there can be none."""
    if os.geteuid() != 0:
        could_not_run(identity, "it needs root")
    place.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0755", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        could_not_run(identity, "nothing can be mounted here")
    try:
        yield Shelf(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
