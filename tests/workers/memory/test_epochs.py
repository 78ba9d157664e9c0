"""Epochs: what one process stored or erased, every other process sees in its next read."""

from __future__ import annotations

import os
from pathlib import Path

from workers.memory.epochs import Epochs


def test_a_store_and_an_erasure_change_a_users_words_in_every_process(tmp_path: Path) -> None:
    """Through a shared file; other users' words stay."""
    path = str(tmp_path / "epochs")
    mine, other = Epochs(path), Epochs(path)
    before, bob = mine.stamp("ann"), mine.stamp("bob")
    pid = os.fork()
    if pid == 0:
        other.stored("ann")
        os._exit(0)
    os.waitpid(pid, 0)
    after = mine.stamp("ann")
    assert (after.host, after.erased) == (before.host, before.erased)
    assert after.stored != before.stored
    other.erased("ann")
    assert mine.stamp("ann").erased != before.erased
    assert mine.stamp("bob") == bob
    assert os.stat(path).st_mode & 0o777 == 0o600
    mine.close()
    other.close()


def test_a_stored_word_tells_when(tmp_path: Path) -> None:
    """To the millisecond, and is another one each time."""
    epochs = Epochs(str(tmp_path / "epochs"), lambda: 1_800_000_000.25)
    assert epochs.stamp("ann").stored_at == 0.0
    words = set()
    for _ in range(8):
        epochs.stored("ann")
        words.add(epochs.stamp("ann"))
    assert {one.stored_at for one in words} == {1_800_000_000.25}
    assert len(words) == 8
    epochs.close()


def test_closed_they_are_unmapped_and_a_late_call_still_tells_the_others(tmp_path: Path) -> None:
    """Nothing keeps the file; a call that was under way at the end is not lost and fails nobody."""
    path = str(tmp_path / "epochs")
    mine, other = Epochs(path), Epochs(path)
    before = other.stamp("ann")
    other.close()
    assert mapped(path) == 1
    mine.close()
    assert mapped(path) == 0
    mine.stored("ann")
    mine.erased("ann")
    assert (mapped(path), mine.stamp("ann").host) == (0, before.host)
    after = Epochs(path).stamp("ann")
    assert after.host == before.host
    assert (after.stored != before.stored, after.erased != before.erased) == (True, True)


def mapped(path: str) -> int:
    """How often this process has the file in its memory."""
    return Path("/proc/self/maps").read_text().count(path)


def test_without_a_directory_they_are_this_processs_own() -> None:
    """A read-only place is no obstacle, and is told; what others store cannot be, so each stamp is new."""
    epochs = Epochs("/proc/none/epochs")
    assert epochs.shared is False
    assert epochs.error.startswith("FileNotFoundError: ")
    before = epochs.stamp("ann")
    again = epochs.stamp("ann")
    assert (again.host, again.erased) == (before.host, before.erased)
    assert again.stored != before.stored
    epochs.erased("ann")
    assert epochs.stamp("ann").erased != before.erased
    epochs.close()
