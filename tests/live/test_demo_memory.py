"""`breakerd demo --memory` as a person would run it: exact, in time, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.live.test_demo import DEMO, GONE_S, WHOLE_S, left_over, place, surroundings, wait_until
from workers.demo.processes import Troupe
from workers.demo.talk_database import database

__all__ = ["place"]


def test_nothing_said_is_lost_when_the_database_is_killed(place: Path) -> None:
    """Exit code 0 within 40 s, every acknowledged sentence in the database, no process and no file left."""
    done = subprocess.run(
        [*DEMO, "--memory"],
        env=surroundings(place),
        capture_output=True,
        check=False,
        text=True,
        timeout=WHOLE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all of them are in the database, each once." in done.stdout
    assert "kill -9 of agent 2" in done.stdout
    assert wait_until(lambda: not left_over(place), GONE_S), left_over(place)
    assert list(place.iterdir()) == []


def test_a_postgresql_that_cannot_be_set_up_is_replaced_by_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the PATH, and initdb fails, as it does where root may not make a user namespace."""
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with Troupe(str(tmp_path)) as troupe:
        assert database(troupe, str(tmp_path)).name == "SQLite"
