"""The replayer as a program: which memory layers it is told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.memory.posts import (
    open_folder,
    stage,
)
from workers.errors import MemoryConfigError
from workers.memory.replayer import configurations

__all__ = ["open_folder", "stage"]


def test_one_directory_for_two_databases_is_refused(tmp_path: Path) -> None:
    """What waits there does not say where it belongs; the same database twice is one."""
    files = []
    for number, database in enumerate(("one", "two", "one")):
        files.append(str(tmp_path / f"{number}.toml"))
        text = f'[memory]\ndatabase_url = "sqlite:///{tmp_path}/{database}.db"\n'
        Path(files[-1]).write_text(text + f'spool_directory = "{tmp_path}/spool"\n')
    with pytest.raises(MemoryConfigError, match="is given for two databases"):
        configurations(files)
    assert len(configurations([files[0], files[2]])) == 1


def test_without_files_the_environment_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for the application."""
    monkeypatch.setenv("MEMORY_SPOOL_DIRECTORY", str(tmp_path / "spool"))
    assert [one.spool_directory for one in configurations([])] == [str(tmp_path / "spool")]
