"""The guide tells the truth: its blocks run, alone and supervised; its tables are the code's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.guide_stage import BLOCK, CHECKS
from tests.live.house import House
from tests.sources import ROOT
from workers import fallback, rules

GUIDE = ROOT / "docs" / "guide.md"


def play(home: Path, **surroundings: str) -> None:
    """Run the guide as a program of its own, whose memory is in `home`; every block of it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.live.guide_stage", str(GUIDE)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(home), **surroundings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = [name for name, _ in BLOCK.findall(GUIDE.read_text(encoding="utf-8"))]
    assert done.stdout.splitlines()[-len(names) :] == names
    assert set(CHECKS) <= set(names)
    assert "canary" not in done.stderr


def test_every_block_works_in_a_plain_script(tmp_path: Path) -> None:
    """Without a supervisor."""
    play(tmp_path, BREAKERD_SOCKET="off")


def test_every_block_works_under_a_supervisor(house: House, tmp_path: Path) -> None:
    """Unchanged; and what it counted and opened is known host-wide."""
    play(tmp_path, **house.surroundings())
    counters = house.ask_patiently("errors")["counters"]
    assert {one["operation"] for one in counters} >= {"user_query", "store_conversation", "load_history"}
    state = house.breaker("database")
    assert (state["state"], state["opened_total"]) == ("CLOSED", 1)


@pytest.mark.parametrize("table", [fallback.table, rules.table])
def test_its_tables_are_the_codes(table: object) -> None:
    """Printed from the code, to the letter."""
    assert callable(table)
    assert str(table()) in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["ipc", "workers"])
def test_another_package_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    """An application's own top-level package: the error names it, and says what to do."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('it was imported')")
    done = subprocess.run(
        [sys.executable, "-c", "import memory_error_handler"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"ImportError: the package {name!r} at {tmp_path / name} is not breakerd's" in done.stderr
    assert "Rename it" in done.stderr
