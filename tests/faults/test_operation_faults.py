"""Group J and the promise P2: wrong files, operators whose supervisor dies, reboots, and actors that fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ipc.errors import ControlError
from tests.conftest import could_not_run
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, judge
from tests.live.house import ROOT, House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

NOBODY: Final = 65_534
EXIT_CONFIGURATION: Final = 78
ANSWER_S: Final = 2.0
RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}
WRONG: Final = (
    "[breakers.database]\nfailure_threshold = -3\n",
    "[breakers.database]\nfailure_threshold = 5\nrecovery_timeout = \"soon\"\n[supervisor]\nring_slots = 1000\n",
    "[breakers.database\n",
    "[nonsense]\nkey = 1\n",
    "[control]\ncommanders = [\"deploy\"]\n",
)  # fmt: skip


@pytest.mark.fault("J2")
@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_j2_a_wrong_file_ends_the_start_with_what_the_check_says(
    build: Callable[..., House], text: str
) -> None:
    """An error in the configuration: exit 78 and a message, the same that `supervisorctl config check` prints."""
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
    for kill in (house.kill_daemon, house.kill_daemon, house.kill_all):
        old = kill()
        if old is None:
            house.start()
        else:
            house.wait_reborn(old)
        found = house.breaker("database")
        assert found["state"] == "FORCED_OPEN"
        manual = found["manual"]
        assert (manual["uid"], manual["reason"]) == (os.getuid(), "migration")
        assert 600.0 - (time.monotonic() - forced) - 1.0 <= manual["expires_in_s"] <= 600.0
        assert hand.order("call", breaker="database")["refused"] == 1
    shown = house.run_tool("breaker", "show", "database")
    assert "migration" in shown.stdout
    house.ask("command", breaker="database", action="reset", reason="done")
    hand.order("call_until", breaker="database", result="ok")
    assert hand.leave() == 0
    judge(house)


def health(house: House, *words: str) -> tuple[int, str, float]:
    """`supervisorctl health`: its exit code, what it says, and how long it took."""
    began = time.monotonic()
    ran = house.run_tool("health", *words)
    return ran.returncode, (ran.stdout + ran.stderr).lower(), time.monotonic() - began


@pytest.mark.fault("J8")
def test_j8_health_tells_away_from_hung_from_well(house: House) -> None:
    """`supervisorctl health` never hangs: 0 when well, 4 with another text when away, stopped or left behind."""
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
    """With the state directory gone the supervisor serves on, and health says what is wrong; then it recovers."""
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
        "import os, sys, supervisor.ctl.main as m\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sys.exit(m.main(['health']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=house.surroundings(), cwd=ROOT, capture_output=True, text=True,
        timeout=10.0, check=False,
    )  # fmt: skip
    assert ran.returncode == 4, ran.stderr
    assert "denied" in (ran.stdout + ran.stderr).lower() or "permission" in (ran.stdout + ran.stderr).lower()


@pytest.mark.fault("P2")
@pytest.mark.needs_root
def test_p2_state_survives_a_reboot(build: Callable[..., House]) -> None:
    """After a reboot (new runtime directory, new boot id) the copy is used, remaining times go on, it is told."""
    unshare = shutil.which("unshare")
    probe = [unshare or "", "-m", "sh", "-c", "mount --bind /dev/null /proc/sys/kernel/random/boot_id"]
    if unshare is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        could_not_run("P2", "the boot id cannot be changed in a mount namespace")
    house = build().start()
    hand = house.hand()
    hand.order("guard", breaker="open", failure_threshold=3, failure_rate=None, recovery_timeout=120.0,
               recovery_jitter=0.0)  # fmt: skip
    hand.order("guard", breaker="forced", **RULES_OFF)
    hand.order("call", breaker="open", how="fail", times=3)
    hand.order("call", breaker="forced", times=7)
    wait_for("open", lambda: house.breaker("open")["state"] == "OPEN", 3.0)
    house.ask("command", breaker="forced", action="force-open", for_s=600, reason="before the reboot")
    assert hand.leave() == 0
    judge(house)
    before = {name: house.breaker(name) for name in ("open", "forced")}
    totals = house.stats()["totals"]
    copied = wait_for("a copy", lambda: {path: path.stat().st_mtime for path in house.state.iterdir()}, 5.0)
    wait_for("a copy of it all", lambda: _newer(house.state, copied), 5.0, 0.05)
    time.sleep(0.3)  # the copy is made of one instant: let it be finished
    house.kill_all()
    shutil.rmtree(house.runtime)
    boot = house.root / "boot_id"
    boot.write_text("12345678-1234-1234-1234-123456789abc\n")
    mount = f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$@"'
    house.prefix = (unshare, "-m", "sh", "-c", mount, "sh")
    house.start()
    assert house.stats()["totals"] == totals
    for name, was in before.items():
        now = house.breaker(name)
        assert now["state"] == was["state"]
    assert house.breaker("forced")["manual"]["reason"] == "before the reboot"
    assert 590.0 <= house.breaker("forced")["manual"]["expires_in_s"] <= 600.0
    assert 110.0 <= house.breaker("open")["retry_after_s"] <= 120.0
    assert house.workers() == []
    told = str(house.ask("events", after=0, limit=100)["events"])
    assert "copy" in told


def _newer(folder: Path, than: dict[Path, float]) -> bool:
    """True once every copy that changes at all was written again."""
    return any(path.stat().st_mtime > than.get(path, 0.0) for path in folder.iterdir()) or _quiet(folder)


def _quiet(folder: Path) -> bool:
    """True if the newest copy is older than two intervals: there is nothing more to be copied."""
    return time.time() - max(path.stat().st_mtime for path in folder.iterdir()) > 2.0


ACTORS: Final = ("mind", "intake", "control", "disk")


@pytest.mark.fault("A6")
@pytest.mark.parametrize("at", effort((1, 2, 23), tuple(range(1, 60))))
@pytest.mark.parametrize("actor", ACTORS)
def test_actor_that_raises_is_restarted_alone(build: Callable[..., House], actor: str, at: int) -> None:
    """One actor raises at its n-th message: the daemon lives, the others answer, every outcome is counted."""
    house = build(BREAKERD_RAISE_AT=f"{actor}:{at}")
    house.nursery = house.spawn()
    wait_for("breakerd answers", house.answers, 10.0)
    pid = house.daemon_pid
    hand = house.hand()
    hand.order("load", breaker="beside", threads=2, per_s=1000.0, failing_every=20)
    victim = house.hand("victim")
    victim.order("load", breaker="victim", per_s=1000.0)
    with Watch(house):
        wait_for("it raised", lambda: f"actor {actor} failed" in house.logged(), 10.0, 0.02)
        assert house.ask_patiently("health", 6.0, level="live")["status"] == "pass"
        victim.kill()
        assert hand.order("unload")["failed"] == []
        assert hand.leave() == 0
        judge(house)
    wait_for("both have left", lambda: not house.workers(), 5.0)
    assert house.daemon_pid == pid


@pytest.mark.fault("A6")
@pytest.mark.parametrize("actor", ACTORS)
def test_actor_that_always_raises_ends_the_daemon_and_then_the_nursery(
    build: Callable[..., House], actor: str
) -> None:
    """Beyond its limit an actor ends the daemon (70), the nursery starts it again, and gives up with 71."""
    house = build("[supervisor]\ndisk_interval_s = 0.1\n", BREAKERD_RAISE_AT=f"{actor}:{effort(5, 50)}+")
    house.nursery = house.spawn()
    hand = house.hand(wait=False)
    hand.hear("up", 30.0)
    hand.order("load", breaker="beside", per_s=500.0, failing_every=5)
    over = time.monotonic() + 60.0
    while house.nursery.poll() is None:
        assert time.monotonic() < over, "the nursery does not give up"
        try:
            house.ask("version", timeout=0.5)
        except ControlError:
            time.sleep(0.02)
    assert house.nursery.returncode == 71
    assert "exit code 70" in house.logged()
    assert hand.order("unload")["failed"] == []
    house.environment.clear()
    house.start()
    assert hand.leave() == 0
    judge(house)
