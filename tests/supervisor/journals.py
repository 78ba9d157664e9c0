"""Journals with something in them, and what a new daemon would load from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from supervisor import journal as places
from supervisor.journal import Journal, Loaded

BOOT = 0x1234_5678_9ABC_DEF0
SOFTWARE = "0.1.0"
IN_USE_MAX = 8192
FIRST: dict[str, Any] = {"state": "first"}
SECOND: dict[str, Any] = {"state": "second", "numbers": list(range(100))}


def opened(directory: Path, boot: int = BOOT) -> Journal:
    """The journal in a directory."""
    return Journal.open(str(directory), boot, SOFTWARE)


def what(loaded: Loaded | None) -> tuple[Any, list[Any]] | None:
    """Snapshot and messages of what was loaded; None = nothing."""
    if loaded is None or loaded.snapshot is None:
        return None
    return loaded.snapshot, [record.message for record in loaded.records]


def read(directory: Path) -> Loaded | None:
    """What a new daemon would load."""
    journal = opened(directory)
    loaded = journal.load()
    journal.close()
    return loaded


def path_in(directory: Path) -> Path:
    """The file of the journal in a directory."""
    return directory / places.FILE_NAME


def grown(directory: Path) -> Journal:
    """A journal with something in both halves: SECOND with two records, before it FIRST with one."""
    journal = opened(directory)
    journal.snapshot(FIRST)
    add(journal, [1])
    journal.snapshot(SECOND)
    add(journal, [2], [3])
    return journal


def add(journal: Journal, *messages: list[Any]) -> None:
    """Append and commit."""
    for number, message in enumerate(messages):
        assert journal.append(10.0 + number, 0.5, message)
    journal.commit()


AFTER = (SECOND, [[2], [3]])
BEFORE = (FIRST, [[1]])


def load_bytes(directory: Path, data: bytes) -> Loaded | None:
    """What a new daemon would load from a file of these bytes."""
    place = directory / "copy"
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        left.unlink()
    half = places.HEADER_BYTES + places.HALF_BYTES
    with open(path_in(place), "wb") as file:
        # Sparse: nothing in these tests goes so far into a half.
        file.write(data[: places.HEADER_BYTES + IN_USE_MAX])
        file.seek(half)
        file.write(data[half : half + IN_USE_MAX])
        file.truncate(len(data))
    loaded = read(place)
    for left in place.iterdir():
        left.unlink()
    place.rmdir()
    return loaded
