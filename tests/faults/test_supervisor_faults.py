"""Group A: the supervisor is killed, stopped, doubled, asked to end and kept busy while workers work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.effort import PATIENCE_S, effort
from tests.faults.hostile import Inside
from tests.faults.judge import Watch, judge
from tests.faults.weather import FINE, FOUL, Weather
from tests.live.hand import Hand, leave
from tests.live.house import ROOT, House, percentile, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

LOCAL_S = 1.1
"""A worker is on its own at most this long after the supervisor's last sign of life."""
BACK_S = 3.0
SLACK_S = 0.15
"""What a loaded machine with two cores may add to a measured time."""
RULES_OFF = {"failure_threshold": None, "failure_rate": None}


def loaded(house: House, workers: int, per_s: float, threads: int = 1) -> list[Hand]:
    """Workers that make `per_s` calls a second in each thread, every 50th of which fails."""
    hands = [house.hand(f"w{number}", wait=False) for number in range(workers)]
    for number, hand in enumerate(hands):
        hand.hear("up", 30.0)
        hand.order("load", breaker=f"w{number}", threads=threads, per_s=per_s, failing_every=50)
    return hands


def assert_quick(done: list[dict[str, Any]]) -> None:
    """Not one call in a hundred was held up for more than 5 ms by anything."""
    calls, slow = sum(figures["calls"] for figures in done), sum(figures["slow"] for figures in done)
    assert slow <= calls / 100, f"{slow} of {calls} calls took more than 5 ms"


@pytest.mark.fault("A1")
def test_a1_every_outcome_is_counted_once_while_the_daemon_is_killed(house: House) -> None:
    """Kill -9 of the daemon again and again under load: totals are exact and never go down."""
    dice = random.Random(1)
    hands = loaded(house, 8, 5000.0)
    pid = house.daemon_pid
    back: list[float] = []
    with Watch(house):
        for _ in range(effort(7, 100)):
            time.sleep(dice.uniform(0.3, effort(1.2, 3.0)))  # the instant of the kill is random
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            pid = house.wait_reborn(pid)
            back.append(time.monotonic() - killed)
        done = leave(hands)
        judge(house)
    assert percentile(back, 0.9) <= BACK_S
    assert_quick(done)


@pytest.mark.fault("A1")
def test_a1_workers_are_on_their_own_after_a_second_and_back_within_three(house: House) -> None:
    """With nobody to restart it, a killed daemon leaves workers that protect themselves, then obey again."""
    weather = Weather(house.root)
    hands = [house.hand(f"w{number}") for number in range(3)]
    for hand in hands:
        hand.order("load", breaker="database", shared=True, per_s=200.0, weather=weather.path, settings={})
        hand.order("load", breaker="calm", shared=True, per_s=500.0, settings={})
    house.signal_nursery(signal.SIGSTOP)
    house.kill_daemon()
    died = time.monotonic()
    weather.turns(FOUL)
    for hand in hands:
        refused = hand.hear("turned", 5.0, breaker="database", to="refused")
        assert refused["at"] - died <= LOCAL_S + SLACK_S
    weather.turns(FINE)
    house.signal_nursery(signal.SIGCONT)
    resumed = time.monotonic()
    house.ask_patiently("command", BACK_S, breaker="calm", action="force-open", reason="seen by all?")
    for hand in hands:
        assert hand.hear("turned", 5.0, breaker="calm", to="refused")["at"] - resumed <= BACK_S
    leave(hands)
    judge(house)


@pytest.mark.fault("A1")
def test_a1_a_dead_dependency_opens_although_the_daemon_dies_every_second(house: House) -> None:
    """The run of failures survives each daemon: the breaker opens at its threshold, not later."""
    threshold, per_s = 40, 10.0
    hand, peer = house.hand("caller"), house.hand("peer")
    settings: dict[str, Any] = {
        "failure_threshold": threshold,
        "failure_rate": None,
        "recovery_timeout": 60.0,
    }
    weather = Weather(house.root)
    peer.order("guard", breaker="database", **settings)
    weather.turns(FOUL)
    hand.order("load", breaker="database", shared=True, per_s=per_s, weather=weather.path, settings=settings)
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline and house.breaker("database")["state"] != "OPEN":
        pid = house.kill_daemon()
        house.wait_reborn(pid)
        until = time.monotonic() + 1.0
        while time.monotonic() < until and house.breaker("database")["state"] != "OPEN":
            time.sleep(0.02)
    turned = hand.hear("turned", breaker="database", to="refused")
    failures = turned["calls"] - 1
    assert threshold <= failures <= threshold + 3
    assert peer.order("call", breaker="database")["refused"] == 1
    leave([hand, peer])
    judge(house)


@pytest.mark.fault("A1")
def test_a1_a_window_filled_before_a_kill_decides_after_it(house: House) -> None:
    """Nineteen outcomes before the kill and one after it are the twenty that the rate rule needs."""
    hand = house.hand()
    hand.order("guard", breaker="rate", failure_threshold=None, failure_rate=0.5, minimum_calls=20)
    for _ in range(9):
        hand.order("call", breaker="rate", how="fail")
        hand.order("call", breaker="rate", how="ok")
    hand.order("call", breaker="rate", how="fail")
    wait_for("19 outcomes", lambda: house.breaker("rate")["window"]["calls"] == 19, 3.0)
    house.wait_reborn(house.kill_daemon())
    assert house.breaker("rate")["state"] == "CLOSED"
    hand.order("call", breaker="rate", how="fail")
    wait_for("the rate rule", lambda: house.breaker("rate")["state"] == "OPEN", 3.0)
    leave([hand])
    judge(house)


IN_RUN = ("drained", "appended", "committed", "published", "told", "deposited", "dropped")
AT_START = ("loaded", "adopted", "opened", "republished")


def crashes() -> list[str]:
    """The crash points: every step, at its first pass, at an early and at a late one."""
    passes = effort((1, 7), tuple(range(1, 40)))
    rare = {"deposited", "dropped"}
    run = [f"{step}:{n}" for step in IN_RUN for n in ((1, 2) if step in rare else passes)]
    return run + [f"{step}:1:2" for step in AT_START]


@pytest.mark.fault("A2")
@pytest.mark.parametrize("crash", crashes())
def test_a2_a_kill_at_this_step_loses_and_doubles_nothing(build: Callable[..., House], crash: str) -> None:
    """Kill -9 of the daemon by itself at a named step: afterwards the totals are exact."""
    house = build(BREAKERD_CRASH_AT=crash)
    house.nursery = house.spawn()
    house.wait_ready()
    hands = loaded(house, 2, 1500.0, threads=2)
    for number in range(2):
        victim = house.hand(f"victim{number}", wait=False)
        victim.hear("up", 30.0)
        victim.order("load", breaker=f"victim{number}", per_s=500.0)
        victim.kill()  # its retirement passes the steps of the last drain
    in_second_life = crash.endswith(":1:2")
    if in_second_life:
        house.kill_daemon()
    kills = 2 if in_second_life else 1
    wait_for("the crash", lambda: house.logged().count("ended: killed by SIGKILL") == kills, 20.0)
    house.wait_ready()
    late = house.hand("late")
    late.order("guard", breaker="late")
    late.order("call", breaker="late", times=10)
    leave([*hands, late])
    judge(house)


@pytest.mark.fault("A3")
def test_a3_a_stop_of_half_a_second_is_not_noticed(house: House) -> None:
    """SIGSTOP for 0.5 s: same daemon, no refusal, nobody waits, all counted."""
    hands = loaded(house, 2, 1000.0)
    pid = house.daemon_pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)  # the length of the fault
    os.kill(pid, signal.SIGCONT)
    done = leave(hands)
    judge(house)
    assert house.daemon_pid == pid
    assert sum(figures["refused"] for figures in done) == 0
    assert_quick(done)


@pytest.mark.fault("A3")
def test_a3_a_stop_of_seconds_makes_workers_local_and_expires_leases_first(house: House) -> None:
    """A daemon that wakes up expires the lease that ran out meanwhile before it grants another."""
    settings = {
        "failure_threshold": 3, "recovery_timeout": 0.2, "recovery_jitter": 0.0, "recovery_growth": 1.0,
        "permitted_trials": 1, "trial_timeout": 0.5,
    }  # fmt: skip
    weather = Weather(house.root)
    holder, caller, other = house.hand("holder"), house.hand("caller"), house.hand("other")
    for hand in (holder, other):
        hand.order("guard", breaker="database", **settings)
    caller.order("load", breaker="mail", shared=True, per_s=200.0, weather=weather.path, settings={})
    holder.order("call", breaker="database", how="fail", times=3)
    wait_for("half-open", lambda: house.breaker("database")["state"] == "HALF_OPEN", 5.0)
    holder.order("hold", breaker="database", number=1)
    holder.hear("inside", number=1)
    generation = house.breaker("database")["generation"]
    pid = house.daemon_pid
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    weather.turns(FOUL)
    refused = caller.hear("turned", 5.0, breaker="mail", to="refused")
    assert refused["at"] - stopped <= LOCAL_S + SLACK_S
    weather.turns(FINE)
    wait_for("the length of the fault", lambda: time.monotonic() - stopped > effort(2.5, 5.0), 10.0, 0.05)
    os.kill(pid, signal.SIGCONT)
    wait_for("the lease expired", lambda: house.breaker("database")["generation"] > generation, 2.0)
    trial = other.order("call_until", breaker="database", result="ok")
    assert house.daemon_pid == pid
    assert trial["made"] >= 1
    after = house.breaker("database")
    assert after["trials"]["in_flight"] <= 1
    holder.order("release", number=1)
    holder.hear("finished", number=1)
    leave([holder, caller, other])
    judge(house)


@pytest.mark.fault("A3")
def test_a3_a_daemon_that_stays_stopped_is_replaced(house: House) -> None:
    """A daemon without a sign of life for 10 s is killed by the nursery, and served again 2 s later."""
    hands = loaded(house, 2, 500.0)
    pid = house.daemon_pid
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    house.wait_reborn(pid, 14.0)
    assert 9.0 <= time.monotonic() - stopped <= 12.5
    leave(hands)
    judge(house)


def exits(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit code, or None if it still runs after that time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _one_ended(processes: list[subprocess.Popen[bytes]]) -> bool:
    return any(one.poll() is not None for one in processes)


@pytest.mark.fault("A4")
def test_a4_of_two_supervisors_one_serves_and_the_other_names_it(build: Callable[..., House]) -> None:
    """Two starts at the same instant: one serves, the other exits 100 with the holder's pid, quickly."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import supervisor.main"], cwd=ROOT, check=True)
    start_s = time.monotonic() - began
    for number in range(effort(4, 50)):
        house = build()
        both = [house.spawn(), house.spawn()]
        started = time.monotonic()
        wait_for("one gives up", lambda both=both: _one_ended(both), 10.0)  # type: ignore[misc]
        gave_up_s = time.monotonic() - started
        loser, winner = sorted(both, key=lambda one: one.poll() is None)
        assert loser.returncode == 100, house.logged()
        assert str(winner.pid) in house.logged()
        assert gave_up_s <= 1.0 + 2 * start_s, f"round {number}: {gave_up_s:.2f} s"
        house.nursery = winner
        house.wait_ready()
        inode = os.stat(house.socket).st_ino
        third = house.spawn()
        assert exits(third, 5.0) == 100
        assert os.stat(house.socket).st_ino == inode
        assert house.nursery_pid == winner.pid
        assert house.answers()
        house.close()


def wait_back(house: House, workers: int) -> None:
    """Wait until that many workers have handed their segments back to a new nursery."""
    wait_for("they are back", lambda: sum(bool(one["ring_slots"]) for one in house.workers()) == workers, 5.0)


@pytest.mark.fault("A9")
def test_a9_one_sigterm_drains_and_ends_well(house: House) -> None:
    """SIGTERM under load: exit 0 within 2 s, and the next start continues exactly."""
    hands = loaded(house, 3, 2000.0)
    wait_for("traffic", lambda: house.stats()["totals"]["outcomes"]["success"] > 1000, 5.0)
    started = time.monotonic()
    assert house.stop() == 0
    assert time.monotonic() - started <= 2.0 + SLACK_S
    assert not os.path.exists(house.socket)
    house.start()
    wait_back(house, 3)
    with Watch(house):
        leave(hands)
        judge(house)


@pytest.mark.fault("A9")
def test_a9_a_second_sigterm_ends_at_once_and_loses_nothing(house: House) -> None:
    """Two SIGTERMs, the second in the middle of the end: gone within 100 ms, still exact afterwards."""
    hands = loaded(house, 3, 2000.0)
    daemon = house.daemon_pid
    wait_for("traffic", lambda: house.stats()["totals"]["outcomes"]["success"] > 1000, 5.0)
    os.kill(daemon, signal.SIGSTOP)  # so that the first one cannot have its way before the second comes
    house.signal_nursery(signal.SIGTERM)
    time.sleep(0.2)  # both would otherwise be one wake-up of the nursery, which must count them too
    second = time.monotonic()
    house.signal_nursery(signal.SIGTERM)
    assert house.nursery is not None
    house.nursery.wait(5.0)
    assert time.monotonic() - second <= 0.1 + SLACK_S
    house.start()
    wait_back(house, 3)
    leave(hands)
    judge(house)


@pytest.mark.fault("A10")
def test_a10_a_blocked_loop_is_seen_as_such(build: Callable[..., House]) -> None:
    """A call that blocks the daemon's loop stops its heartbeat: workers protect themselves meanwhile."""
    house = build(BREAKERD_TEST_VERBS="1").start()
    weather = Weather(house.root)
    hand = house.hand()
    hand.order("load", breaker="database", shared=True, per_s=200.0, weather=weather.path, settings={})
    inside = Inside(hand.pid)
    wait_for("a heartbeat", lambda: inside.heartbeat, 3.0)
    sleeper = threading.Thread(target=lambda: house.ask("sleep", 10.0, seconds=3.0))
    sleeper.start()
    wait_for("the heart stands still", lambda: time.monotonic_ns() - inside.heartbeat > 300_000_000, 3.0)
    beat = inside.heartbeat
    weather.turns(FOUL)
    refused = hand.hear("turned", 5.0, breaker="database", to="refused")
    assert refused["at"] - beat / 1e9 <= LOCAL_S + SLACK_S
    assert inside.heartbeat == beat, "somebody else feeds the heartbeat"
    sleeper.join(10.0)
    weather.turns(FINE)
    wait_for("the heart beats", lambda: inside.heartbeat > beat, 2.0)
    leave([hand])
    judge(house)
