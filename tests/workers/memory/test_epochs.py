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


def test_without_a_directory_they_are_this_processs_own() -> None:
    """A read-only place is no obstacle, and is told."""
    epochs = Epochs("/proc/none/epochs")
    assert epochs.shared is False
    before = epochs.stamp("ann")
    epochs.stored("ann")
    assert epochs.stamp("ann") != before
    epochs.close()
