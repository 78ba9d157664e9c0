"""How long ago the installed files changed: any of them, by any installer."""

from __future__ import annotations

import os
import time
from pathlib import Path

from supervisor import package


def test_the_youngest_file_counts_whatever_time_it_was_given(tmp_path: Path) -> None:
    """An installer may keep the times of its archive; the kernel's is the time of the change."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("")
        os.utime(tmp_path / folder / "module.py", (1.0, 1.0))
    folders = (str(tmp_path / "one"), str(tmp_path / "two"))
    changed = (tmp_path / "two" / "module.py").stat().st_ctime
    assert package.age_s(changed + 5.0, folders) <= 5.0
    (tmp_path / "one" / "data.json").write_text("{}")
    assert package.age_s(changed + 5.0, folders) > 4.0


def test_a_package_that_is_not_there_has_just_changed(tmp_path: Path) -> None:
    """Between its removal and its new installation."""
    assert package.age_s(time.time(), (str(tmp_path / "none"),)) == 0.0
    assert package.age_s(time.time(), (str(tmp_path),)) == 0.0
    assert package.age_s(time.time() + 60.0) > 0.0
