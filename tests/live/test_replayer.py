"""The replayer under a real supervisor: one more caller of the breaker `database`, and kept alive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.conftest import could_not_run
from tests.faults.homes import Home
from tests.faults.talkers import memory
from tests.live.house import House, alive, wait_for
from tests.servers import Postgres

NOBODY: Final = 65534
NAME: Final = "shop/database"
CONFIG: Final = """
[breakers.database]
failure_threshold = 3
recovery_timeout = 0.5
recovery_growth = 1.0

[workers.replayer]
target = "workers.memory.replayer:run"
args = ["{file}"]
environment = {{ BREAKERD_NAMESPACE = "shop" }}
heartbeat_timeout_s = 2.0
"""


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """One on each database; a trial is a few conversations, so that it takes several."""
    made = Home(tmp_path, request.getfixturevalue("postgres") if request.param == "postgres" else None)
    made.settings["replay_batch_max"] = 5
    made.settings["breaker"] = "database"  # the one that the supervisor has a table for
    yield made
    made.close()


@pytest.fixture
def house(build: Callable[..., House], home: Home) -> House:
    """A supervisor with a replayer."""
    return build(CONFIG.format(file=home.toml())).start()


def state(house: House) -> Any:
    """The state of the breaker, None before there is one."""
    found = {one["name"]: one["state"] for one in house.ask_patiently("breakers")["breakers"]}
    return found.get(NAME)


def replayer(house: House) -> int:
    """The process of the replayer, 0 = there is none."""
    children = psutil.Process(house.nursery_pid).children()
    return next((one.pid for one in children if one.name() == "replayer" and alive(one.pid)), 0)


def test_replay_stands_aside_while_the_breaker_is_open(house: House, home: Home) -> None:
    """Opened by hand, nothing is brought in though the database lives; enabled, its inserts are trials."""
    said = home.fill(30)
    wait_for("all is brought in", lambda: home.rows() == said, 20.0)
    assert state(house) == "CLOSED"
    done = house.run_tool("breaker", "open", NAME, "--for", "10m", "--reason", "maintenance")
    assert done.returncode == 0, done.stderr
    said += home.fill(30)
    wait_for("it finds the breaker open", lambda: "its breaker is open" in house.logged(), 10.0)
    assert len(home.rows()) == 30
    assert house.run_tool("breaker", "enable", NAME).returncode == 0
    wait_for("all is brought in", lambda: home.rows() == said, 20.0)
    wait_for("its trials closed it", lambda: state(house) == "CLOSED", 10.0)


def test_an_outage_that_nobody_survives_ends_with_everything_stored(house: House, home: Home) -> None:
    """The database goes, all who spoke are dead, the breaker is open; it comes back: one row each, closed."""
    home.away()
    said = [*home.fill(20), *home.fill(20)]
    wait_for("the replayer's failures open it", lambda: state(house) in ("OPEN", "HALF_OPEN"), 20.0)
    assert home.left()
    home.back()
    wait_for("all is brought in", lambda: home.rows() == said and not home.left(), 30.0)
    wait_for("it is closed", lambda: state(house) == "CLOSED", 10.0)


def test_a_killed_replayer_is_replaced(house: House, home: Home) -> None:
    """Kill -9 in the middle, several times: the next one goes on, one row each."""
    said = home.fill(400)
    for _ in range(3):
        before = len(home.rows())
        wait_for("it brings something in", lambda: len(home.rows()) > before, 20.0)  # noqa: B023 (done before the next)
        os.kill(wait_for("there is one", lambda: replayer(house), 10.0), signal.SIGKILL)
    wait_for("all is brought in", lambda: home.rows() == said and not home.left(), 30.0)


def test_a_hung_database_costs_no_heartbeat(
    build: Callable[..., House], postgres: Postgres, tmp_path: Path
) -> None:
    """Frozen for longer than a heartbeat may be missing: the same process brings all in when it is thawed."""
    home = Home(tmp_path, postgres)
    home.settings["database_timeout_s"] = 4.0
    said, house = home.fill(400), build(CONFIG.format(file=home.toml())).start()
    wait_for("it brings something in", home.rows, 20.0)
    pid = replayer(house)
    postgres.freeze()
    wait_for("it is told of the first failure", lambda: "takes nothing" in house.logged(), 10.0)
    postgres.thaw()
    wait_for("all is brought in", lambda: home.rows() == said and not home.left(), 30.0)
    assert replayer(house) == pid
    home.close()


def test_the_end_of_breakerd_ends_it_after_the_step(house: House, home: Home) -> None:
    """SIGTERM in the middle: in order and in time, and what is left is left to an application."""
    said = home.fill(2000)
    wait_for("it brings something in", home.rows, 20.0)
    pid = replayer(house)
    assert house.stop() == 0
    assert not alive(pid)
    assert 0 < len(home.rows()) < len(said)
    with memory(home.config(replay_rate_per_s=100_000.0, replay_batch_max=100)) as manager:
        assert manager.flush(30.0)
    assert home.rows() == said


def test_applications_go_on_when_all_of_breakerd_is_killed(house: House, home: Home) -> None:
    """The replayer ends with its nursery, and who spooled brings in what waits, without being called."""
    with memory(home.config()) as manager:
        home.away()
        said = [manager.store_conversation("ann", str(number), "x").id for number in range(20)]
        wait_for("it is at work", home.managed, 10.0)
        pid = replayer(house)
        house.kill_all()
        wait_for("it ended", lambda: not alive(pid), 10.0)
        home.back()
        wait_for("all is brought in", lambda: home.rows() == said, 15.0)


def test_a_replayer_that_stands_still_is_replaced(house: House, home: Home) -> None:
    """Stopped in the middle, with both leases: no beat comes, it is killed, the next one brings all in."""
    said = home.fill(400)
    wait_for("it brings something in", home.rows, 20.0)
    pid = replayer(house)
    os.kill(pid, signal.SIGSTOP)
    wait_for("all is brought in", lambda: home.rows() == said and not home.left(), 30.0)
    assert replayer(house) not in (0, pid)


def test_under_root_it_becomes_the_user_of_the_spool(build: Callable[..., House], tmp_path: Path) -> None:
    """What another user spooled is brought in by a process that is this user; root leaves no file there."""
    if os.geteuid() != 0:
        could_not_run("S14", "it needs root")
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    home = Home(tmp_path, None)
    said, house = home.fill(20), build(CONFIG.format(file=home.toml()))
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    house.start()
    wait_for("all is brought in", lambda: home.rows() == said and not home.left(), 20.0)
    assert psutil.Process(replayer(house)).uids() == (NOBODY, NOBODY, NOBODY)
    assert {path.stat().st_uid for path in Path(home.settings["spool_directory"]).iterdir()} == {NOBODY}
    pid = replayer(house)
    house.kill_all()
    wait_for("it still ends with its nursery", lambda: not alive(pid), 10.0)
    home.close()
