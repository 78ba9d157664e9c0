"""The replayer beside a real supervisor: one more caller of the breaker `database`, and one of its trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.homes import Home
from tests.live.house import House, wait_for

NAME: Final = "shop/database"
CONFIG: Final = """
[breakers.database]
failure_threshold = 3
recovery_timeout = 0.5
recovery_growth = 1.0
"""


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """One on each database; a trial is a few conversations, so that it takes several."""
    made = Home(tmp_path, request.getfixturevalue("postgres") if request.param == "postgres" else None)
    made.settings["replay_batch_max"] = 5
    yield made
    made.close()


@pytest.fixture
def house(build: Callable[..., House], home: Home) -> House:
    """A supervisor, whom the programs of the home find."""
    made = build(CONFIG).start()
    home.environment = {"BREAKERD_SOCKET": made.socket, "BREAKERD_NAMESPACE": "shop"}
    return made


def state(house: House) -> Any:
    """The state of the breaker, None before there is one."""
    found = {one["name"]: one["state"] for one in house.ask_patiently("breakers")["breakers"]}
    return found.get(NAME)


def test_replay_stands_aside_while_the_breaker_is_open(house: House, home: Home) -> None:
    """Opened by hand, nothing is brought in though the database lives; enabled, its inserts are trials."""
    said = home.fill(30)
    home.replayer()
    wait_for("all is brought in", lambda: home.rows() == said, 20.0)
    assert state(house) == "CLOSED"
    done = house.run_tool("breaker", "open", NAME, "--for", "10m", "--reason", "maintenance")
    assert done.returncode == 0, done.stderr
    said += home.fill(30)
    wait_for("it finds the breaker open", lambda: "its breaker is open" in home.log(), 10.0)
    assert len(home.rows()) == 30
    assert house.run_tool("breaker", "enable", NAME).returncode == 0
    wait_for("all is brought in", lambda: home.rows() == said, 20.0)
    wait_for("its trials closed it", lambda: state(house) == "CLOSED", 10.0)


def test_an_outage_that_nobody_survives_ends_with_everything_stored(house: House, home: Home) -> None:
    """The database goes, all who spoke are dead, the breaker is open; it comes back: one row each, closed."""
    home.replayer()
    home.away()
    said = [*home.fill(20), *home.fill(20)]
    wait_for("the replayer's failures open it", lambda: state(house) in ("OPEN", "HALF_OPEN"), 20.0)
    assert home.left()
    home.back()
    wait_for("all is brought in", lambda: home.rows() == said and not home.left(), 30.0)
    wait_for("it is closed", lambda: state(house) == "CLOSED", 10.0)
