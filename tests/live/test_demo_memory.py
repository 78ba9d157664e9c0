"""`breakerd demo --memory` as a person would run it: exact, in time, and nothing of it is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.live.test_demo import DEMO, GONE_S, WHOLE_S, left_over, place, surroundings, wait_until

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
