"""What the fault tests share: a house each, and the mark with the fault's id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import could_not_run
from tests.live.conftest import build, house

__all__ = ["build", "house"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "needs_root: acts on other users, namespaces or limits")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, and say so under the fault's id, what this machine cannot run."""
    needs = item.get_closest_marker("needs_root")
    mark = item.get_closest_marker("fault")
    if needs and os.geteuid() != 0:
        could_not_run(str(mark.args[0]) if mark else item.name, "it needs root")
    if not Path("/proc/self/fd").is_dir():
        could_not_run(str(mark.args[0]) if mark else item.name, "there is no /proc")
