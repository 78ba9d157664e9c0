"""Another version of breakerd, made of this one: the packages copied, and numbers in them changed.

What differs is what a release may change: the version of the software, of the segment's layout, and of the
engine's snapshot (which the later version can migrate, as each must). Neighbours: `tests.live.house`, whose
`tree` such a copy becomes. Knows nothing of what the versions do with each other.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from tests.live.house import ROOT

SOFTWARE: Final = "9.9.9"
_MIGRATES: Final = """

_read = Engine.from_plain.__func__


def _migrated(cls, plain):
    if isinstance(plain, dict) and plain.get("version") == PLAIN_VERSION - 1:
        plain = {**plain, "version": PLAIN_VERSION}
    return _read(cls, plain)


Engine.from_plain = classmethod(_migrated)
"""


def later_version(folder: Path, layout: bool = False, snapshot: bool = False) -> Path:
    """A tree of a later version in `folder`: another layout of segments, or of snapshots, if so asked."""
    for package in ("ipc", "supervisor", "workers"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").symlink_to(ROOT / "tests")
    _change(folder / "supervisor/start.py", r'metadata\.version\("breakerd"\)', f'"{SOFTWARE}"')
    _change(
        folder / "ipc/attachment.py",
        r'SOFTWARE: Final = "breakerd [^"]*"',
        f'SOFTWARE: Final = "breakerd {SOFTWARE}"',
    )
    if layout:
        _raise(folder / "ipc/layout.py", "LAYOUT_VERSION")
    if snapshot:
        engine = folder / "supervisor/engine.py"
        _raise(engine, "PLAIN_VERSION")
        engine.write_text(engine.read_text() + _MIGRATES)
    return folder


def _raise(path: Path, name: str) -> None:
    """The number of that name, one higher."""
    found = re.search(rf"^{name}: Final = (\d+)$", path.read_text(), re.MULTILINE)
    assert found, f"{path} has no {name}"
    _change(path, re.escape(found[0]), f"{name}: Final = {int(found[1]) + 1}")


def _change(path: Path, old: str, new: str) -> None:
    text, times = re.subn(old, new, path.read_text())
    assert times == 1, f"{path}: {old} stands there {times} times"
    path.write_text(text)
