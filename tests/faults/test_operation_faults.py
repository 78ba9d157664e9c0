"""Group J: wrong files, operators whose supervisor dies, and what they are told about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.effort import PATIENCE_S
from tests.faults.judge import judge
from tests.live.house import ROOT, House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

NOBODY: Final = 65_534
EXIT_CONFIGURATION: Final = 78
ANSWER_S: Final = 2.0
RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}
WRONG: Final = (
    "[breakers.database]\nfailure_threshold = -3\n",
    '[breakers.database]\nrecovery_timeout = "soon"\n[supervisor]\nring_slots = 1000\n',
    "[breakers.database\n",
    "[nonsense]\nkey = 1\n",
    '[control]\ncommanders = ["deploy"]\n',
)  # fmt: skip


@pytest.mark.fault("J2")
@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_j2_a_wrong_file_ends_the_start_with_what_the_check_says(
    build: Callable[..., House], text: str
) -> None:
    """A wrong configuration: exit 78 and the same message that `supervisorctl config check` prints."""
    house = build(text)
    assert house.spawn().wait(10.0) == EXIT_CONFIGURATION
    said = [line.removeprefix("breakerd: ") for line in house.logged().splitlines()]
    assert said
    assert all(line.startswith(f"{house.config}: ") for line in said)
    checked = house.run_tool("config", "check", str(house.config))
    assert checked.returncode != 0
    assert [line for line in (checked.stdout + checked.stderr).splitlines() if line in said] == said
    assert not Path(house.socket).exists()


@pytest.mark.fault("J2")
def test_j2_a_missing_file_ends_the_start(build: Callable[..., House]) -> None:
    """A file that was named and is not there is an error, never the defaults."""
    house = build("# nothing")
    assert house.config is not None
    house.config.unlink()
    assert house.spawn().wait(10.0) == EXIT_CONFIGURATION
    assert str(house.config) in house.logged()


@pytest.mark.fault("J6")
def test_j6_a_forced_state_survives_every_death_of_the_supervisor(house: House) -> None:
    """Force-open, then kill -9 of the daemon and of everything: still forced, by whom, why and until when."""
    hand = house.hand()
    hand.order("guard", breaker="database", **RULES_OFF)
    hand.order("call", breaker="database")
    wait_for("declared", lambda: house.ask("breakers")["breakers"], 3.0)
    house.ask("command", breaker="database", action="force-open", for_s=600, reason="migration")
    hand.order("call_until", breaker="database", result="refused")
    forced = time.monotonic()

    def reboot() -> None:
        """As a host does it: in order, and what is in memory is gone."""
        assert house.stop() == 0
        (house.runtime / "checkpoint").unlink()

    for end in (house.kill_daemon, house.kill_daemon, house.kill_all, reboot):
        old = end()
        if old is None:
            house.start()
        else:
            house.wait_reborn(old)
        found = house.breaker("database")
        assert found["state"] == "FORCED_OPEN"
        manual = found["manual"]
        assert (manual["uid"], manual["reason"]) == (os.getuid(), "migration")
        passed = time.monotonic() - forced
        assert 600.0 - passed - 1.0 <= manual["expires_in_s"] <= 600.0
        assert passed - 0.5 <= found["since_s"] <= passed + 1.0
        assert hand.order("call", breaker="database")["refused"] == 1
    shown = house.run_tool("breaker", "show", "database")
    assert all(word in shown.stdout for word in ("migration", f"(uid {os.getuid()})", "for another 9"))
    (told,) = [one for one in house.ask("events", after=0, limit=1000)["events"] if one["kind"] == "command"]
    assert (told["fields"]["uid"], "force-open" in told["text"]) == (str(os.getuid()), True)
    house.ask("command", breaker="database", action="reset", reason="done")
    hand.order("call_until", breaker="database", result="ok")
    assert hand.leave() == 0
    judge(house, forgive=("checkpoint_lost",))  # what the reboot lost is told as such


def health(house: House, *words: str) -> tuple[int, str, float]:
    """`supervisorctl health`: its exit code, what it says, and how long it took."""
    began = time.monotonic()
    ran = house.run_tool("health", *words)
    return ran.returncode, (ran.stdout + ran.stderr).lower(), time.monotonic() - began


@pytest.mark.fault("J8")
def test_j8_health_tells_away_from_hung_from_well(house: House) -> None:
    """It never hangs: 0 when well, 4 with a text of its own when away, stopped or left behind."""
    code, well, took = health(house)
    assert (code, took < ANSWER_S) == (0, True), well
    pid = house.daemon_pid
    os.kill(pid, signal.SIGSTOP)
    code, hung, took = health(house)
    os.kill(pid, signal.SIGCONT)
    assert (code, took < ANSWER_S + 0.3) == (4, True), hung
    assert "hung" in hung or "stopped" in hung
    house.wait_ready()
    house.kill_all()
    code, left, took = health(house)
    assert (code, took < ANSWER_S) == (4, True), left
    os.unlink(house.socket)
    code, away, took = health(house)
    assert (code, took < ANSWER_S) == (4, True), away
    assert "hung" not in left + away
    assert len({well, hung, left, away}) == 4


@pytest.mark.fault("J8")
def test_j8_health_shows_a_copy_that_cannot_be_written(house: House) -> None:
    """Without its state directory the supervisor serves on, and health says what is wrong meanwhile."""
    assert health(house)[0] == 0
    aside = house.state.with_name("aside")
    house.state.rename(aside)
    house.state.write_text("not a directory")
    hand = house.hand()
    hand.order("load", breaker="beside", per_s=200.0)
    wait_for("it is told", lambda: house.ask("health", level="full")["status"] == "warn", 5.0, 0.05)
    code, text, took = health(house)
    assert (code, took < ANSWER_S) == (0, True), text
    assert "copy" in text or "state" in text
    code, text, _ = health(house, "--fail-on", "warn")
    assert code == 3, text
    house.state.unlink()
    aside.rename(house.state)
    wait_for("it recovers", lambda: house.ask("health", level="full")["status"] == "pass", 5.0, 0.05)
    assert hand.order("unload")["failed"] == []
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("J8")
@pytest.mark.needs_root
def test_j8_health_tells_denied_from_away(house: House) -> None:
    """A user who may not even ask is told so, with the way out; exit code 4."""
    program = (
        "import os, sys, supervisor.ctl.main as m, supervisor.ctl.trouble\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sys.exit(m.main(['health']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=house.surroundings(), cwd=ROOT, capture_output=True, text=True,
        timeout=10.0, check=False,
    )  # fmt: skip
    assert ran.returncode == 4, ran.stderr
    assert "denied" in (ran.stdout + ran.stderr).lower() or "permission" in (ran.stdout + ran.stderr).lower()
