"""Group B: workers are killed, stopped, forked, cancelled and interrupted in the middle of guarded calls."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from typing import Any, Final

import pytest

from ipc.vocabulary import OutcomeKind
from tests.conftest import could_not_run
from tests.faults import oracle
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, judge
from tests.live.hand import Hand
from tests.live.house import ROOT, House, descriptors, percentile, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}
ONE_TRIAL: Final[dict[str, Any]] = {
    "failure_threshold": 3, "failure_rate": None, "recovery_timeout": 0.2, "recovery_jitter": 0.0,
    "recovery_growth": 2.0, "permitted_trials": 1, "successes_to_close": 2, "trial_timeout": 0.5,
}  # fmt: skip
LEASE_S: Final = 1.5
"""The lease of a permit of ONE_TRIAL: its trial_timeout and a second."""


def half_open(house: House, hand: Hand, breaker: str) -> None:
    """Fail until the breaker opens, and wait until it admits trials."""
    hand.order("call", breaker=breaker, how="fail", times=3)
    wait_for("open", lambda: house.breaker(breaker)["state"] != "CLOSED", 3.0)
    wait_for("half-open", lambda: house.breaker(breaker)["state"] == "HALF_OPEN", 5.0)


@pytest.mark.fault("B1")
def test_b1_a_worker_killed_at_any_instant_loses_at_most_what_was_in_flight(house: House) -> None:
    """Kill -9 of a writing worker: every stored word counts once, and its slot is free within 2 s."""
    dice = random.Random(2)
    steady = house.hand("steady")
    steady.order("load", breaker="steady", per_s=2000.0, failing_every=20)
    freed: list[float] = []
    with Watch(house):
        for number in range(effort(20, 1000)):
            hand = house.hand(f"v{number}")
            # Fast enough to go round the ring, so that kills fall into every kind of store.
            hand.order("load", breaker=f"v{number % 20}-{number}", threads=2, failing_every=7)
            time.sleep(dice.uniform(0.0, 0.1))  # the instant of the kill is random
            hand.kill()
            killed = time.monotonic()
            wait_for("the slot is free", lambda pid=hand.pid: house.worker(pid) is None, 4.0)  # type: ignore[misc]
            freed.append(time.monotonic() - killed)
        steady.order("unload")
        assert steady.leave() == 0
        judge(house)
    assert max(freed) <= 2.0


@pytest.mark.fault("B2")
def test_b2_a_dead_holder_gives_its_permit_to_the_next_asker(house: House) -> None:
    """Kill -9 inside a trial: no verdict, and the permit is there for the next one within 100 ms."""
    asker = house.hand("asker")
    asker.order("guard", breaker="database", **ONE_TRIAL)
    half_open(house, asker, "database")
    generation = house.breaker("database")["generation"]
    back: list[float] = []
    for number in range(effort(5, 50)):
        holder = house.hand(f"holder{number}")
        holder.order("guard", breaker="database", **ONE_TRIAL)
        holder.order("hold", breaker="database", number=number)
        holder.hear("inside", number=number)
        assert asker.order("call", breaker="database")["refused"] == 1, "two trials at once"
        holder.kill()
        killed = time.monotonic()
        wait_for(
            "the permit is back", lambda: not house.breaker("database")["trials"]["in_flight"], 2.0, 0.001
        )
        back.append(time.monotonic() - killed)
        now = house.breaker("database")
        assert (now["state"], now["generation"]) == ("HALF_OPEN", generation)
    assert percentile(back, 0.5) <= 0.1
    asker.order("call_until", breaker="database", result="ok")
    assert house.breaker("database")["state"] == "HALF_OPEN"
    asker.order("call_until", breaker="database", result="ok")
    wait_for("closed by two successes", lambda: house.breaker("database")["state"] == "CLOSED", 2.0)
    assert asker.leave() == 0
    judge(house)


@pytest.mark.fault("B3")
def test_b3_a_stopped_holder_is_a_failed_trial_and_its_late_result_moves_nothing(house: House) -> None:
    """SIGSTOP inside a trial: its lease ends, the breaker reopens longer, the late result only counts."""
    holder, asker = house.hand("holder"), house.hand("asker")
    for hand in (holder, asker):
        hand.order("guard", breaker="database", **ONE_TRIAL)
    half_open(house, asker, "database")
    holder.order("hold", breaker="database", number=1)
    inside = holder.hear("inside", number=1)["at"]
    holder.freeze()
    opened = wait_for("open", lambda: _in_state(house, "database", "OPEN"), LEASE_S + 1.0)
    assert LEASE_S - 0.1 <= time.monotonic() - inside <= LEASE_S + 0.3
    # Twice the first open time: this recovery has failed.
    assert 0.2 < opened["retry_after_s"] <= 0.4
    wait_for("half-open again", lambda: _in_state(house, "database", "HALF_OPEN"), 2.0)
    before = house.breaker("database")
    holder.tell("release", number=1, how="fail")
    holder.thaw()
    holder.hear("finished", number=1)
    wait_for("the late result is counted", lambda: _failures(house, "database") == 4, 2.0)
    after = house.breaker("database")
    assert (after["state"], after["generation"]) == ("HALF_OPEN", before["generation"])
    asker.order("call_until", breaker="database", result="ok")
    asker.order("call_until", breaker="database", result="ok")
    wait_for("closed", lambda: _in_state(house, "database", "CLOSED"), 2.0)
    assert (holder.leave(), asker.leave()) == (0, 0)
    judge(house)


def _total(house: House, breaker: str) -> int:
    return sum(oracle.counted(house.stats(), breaker)["outcomes"].values())


def _failures(house: House, breaker: str) -> int:
    return int(oracle.counted(house.stats(), breaker)["outcomes"]["failure"])


def _in_state(house: House, breaker: str, state: str) -> Any:
    found = house.breaker(breaker)
    return found if found["state"] == state else None


@pytest.mark.fault("B4")
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
@pytest.mark.parametrize("how", ["os", "libc", "multiprocessing", "subprocess"])
def test_b4_a_call_that_forks_is_reported_once_by_the_parent(house: House, how: str, early: bool) -> None:
    """Fork inside a guarded call: the child has its own ring and reports only calls of its own."""
    hand = house.hand("parent")
    hand.order("guard", breaker="call", **RULES_OFF)
    # Beside busy threads a fork in C may copy the interpreter's own lock while one holds it, and then no
    # child of it can run any Python: there the forking thread is alone.
    beside = how != "libc"
    if beside:
        hand.order("load", breaker="beside", threads=2, per_s=1000.0)
    for number in range(effort(3, 40)):
        done = hand.order("fork_inside", breaker="call", how=how, early=early, mine=f"child{number}")
        assert done["status"] == 0
        assert done["result"] == "ok"
    if beside:
        assert hand.order("unload")["failed"] == []
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("B4")
@pytest.mark.parametrize("how", ["os", "libc"])
def test_b4_a_forked_child_has_no_permit(house: House, how: str) -> None:
    """Fork inside a trial: the child finishes the inherited call, and its success is no second trial."""
    hand = house.hand("parent")
    hand.order("guard", breaker="database", **ONE_TRIAL)
    half_open(house, hand, "database")
    done = wait_for("a trial", lambda: _forked_trial(hand, how), 5.0)
    assert done["status"] == 0
    wait_for("no trial is out", lambda: not house.breaker("database")["trials"]["in_flight"], 2.0)
    now = house.breaker("database")
    assert (now["state"], now["trials"]["passed"]) == ("HALF_OPEN", 1)
    assert hand.leave() == 0
    judge(house)


def _forked_trial(hand: Hand, how: str) -> dict[str, Any] | None:
    """The trial that forks; None if the permit was refused."""
    hand.tell("fork_inside", breaker="database", how=how, early=True)
    done = hand.hear("did fork_inside")
    return None if "raised" in done else done


@pytest.mark.fault("B8")
@pytest.mark.parametrize("form", ["decorated", "with"])
def test_b8_a_cancelled_call_is_no_failure_at_any_await(house: House, form: str) -> None:
    """task.cancel at each await of a guarded call: counted as cancelled, never as a failure."""
    hand = house.hand()
    hand.order("guard", breaker="closed", failure_threshold=1, failure_rate=None)
    done = hand.order("cancel_everywhere", breaker="closed", rounds=effort(5, 100), form=form)
    assert done["wrong"] == []
    assert done["refused"] == 0
    figures = wait_for("all counted", lambda: _all_of(house, "closed", done["began"]), 3.0)
    assert figures["cancelled"] == done["cancelled"] - (done["cancelled"] + done["finished"] - done["began"])
    assert figures["success"] == done["finished"]
    assert house.breaker("closed")["state"] == "CLOSED"
    assert hand.leave() == 0


@pytest.mark.fault("B8")
@pytest.mark.parametrize("form", ["decorated", "with"])
def test_b8_a_cancelled_trial_gives_its_permit_back_once(house: House, form: str) -> None:
    """task.cancel at each await of a trial, the ask too: no permit is lost, none is given back twice."""
    settings = {**ONE_TRIAL, "successes_to_close": 1000, "trial_timeout": 20.0}
    hand = house.hand()
    hand.order("guard", breaker="trial", **settings)
    half_open(house, hand, "trial")
    generation = house.breaker("trial")["generation"]
    done = hand.order("cancel_everywhere", 60.0, breaker="trial", rounds=effort(4, 50), form=form)
    assert done["wrong"] == []
    assert done["cancelled"] > 0
    wait_for("no trial is out", lambda: not house.breaker("trial")["trials"]["in_flight"], 3.0)
    figures = oracle.counted(house.stats(), "trial")["outcomes"]
    # A call that was cancelled while it asked gives the permit back by an outcome, though it never began.
    assert done["began"] + 3 <= sum(figures.values()) <= done["finished"] + done["cancelled"] + 3
    assert figures["failure"] == 3
    assert figures["cancelled_late"] == 0
    now = house.breaker("trial")
    assert (now["state"], now["generation"]) == ("HALF_OPEN", generation)
    assert now["trials"]["passed"] == done["finished"]
    assert hand.leave() == 0


def _all_of(house: House, breaker: str, count: int) -> Any:
    """The breaker's outcomes, once they are that many."""
    figures = oracle.counted(house.stats(), breaker)["outcomes"]
    return figures if sum(figures.values()) == count else None


@pytest.mark.fault("B9")
@pytest.mark.parametrize("how", ["keyboard", "exit", "generator", "memory"])
def test_b9_what_is_no_exception_of_the_dependency_passes_and_proves_nothing(house: House, how: str) -> None:
    """KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError: unchanged, no failure, permit back."""
    hand = house.hand()
    hand.order("guard", breaker="closed", failure_threshold=1, failure_rate=None)
    assert hand.order("call", breaker="closed", how=how, times=20)[how] == 20
    hand.order("guard", breaker="trial", **{**ONE_TRIAL, "trial_timeout": 20.0})
    half_open(house, hand, "trial")
    hand.order("call_until", breaker="trial", result=how, how=how)
    wait_for("the permit is back", lambda: not house.breaker("trial")["trials"]["in_flight"], 2.0)
    assert house.breaker("trial")["state"] == "HALF_OPEN"
    assert house.breaker("closed")["state"] == "CLOSED"
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("B9")
@pytest.mark.parametrize(
    ("how", "form", "error"),
    [
        ("ok", "decorated", "keyboard"),
        ("fail", "decorated", "exit"),
        ("ok", "with", "memory"),
        ("fail", "call", "keyboard"),
    ],
)
def test_b9_an_interruption_at_any_opcode_costs_at_most_that_outcome(
    house: House, how: str, form: str, error: str
) -> None:
    """An error raised at the n-th opcode of ours, for every n: no lock stays, at most one outcome goes."""
    hand = house.hand()
    hand.order("guard", breaker="swept", **RULES_OFF)
    done = hand.order("sweep_opcodes", effort(90.0, 600.0), breaker="swept", how=how, form=form, error=error,
                      step=effort(3, 1))  # fmt: skip
    assert done["wrong"] == []
    assert done["hits"] >= done["opcodes"] // effort(4, 2)
    # A thousand more calls: whatever block was cut off by an interruption, the ring goes on.
    ended = hand.order("call", breaker="swept", times=1000)
    assert ended["ok"] == 1000
    most, least = done["started"] + 1000, done["done"] + 1000
    wait_for("counted between done and started", lambda: least <= _total(house, "swept") <= most, 5.0)
    figures = oracle.counted(house.stats(), "swept")["outcomes"]
    assert figures["slow_failure"] == figures["cancelled_late"] == 0
    assert how == "fail" or figures["failure"] == 0
    assert hand.leave() == 0


@pytest.mark.fault("B9")
def test_b9_an_interrupted_trial_leaves_no_permit_behind(house: House) -> None:
    """An interruption at any opcode of a trial: the next trial is granted before a lease could have ended."""
    settings = {
        **ONE_TRIAL, "failure_threshold": 1, "recovery_timeout": 0.01, "recovery_growth": 1.0,
        "successes_to_close": 1000, "trial_timeout": 0.4,
    }  # fmt: skip
    hand = house.hand()
    hand.order("guard", breaker="trial", **settings)
    hand.order("call", breaker="trial", how="fail")
    seconds = effort(8.0, 1800.0)
    done = hand.order("sweep_trials", seconds + 20.0, breaker="trial", step=effort(13, 1), span_s=seconds,
                      lease_s=0.4 + 1.0 + 0.5)  # fmt: skip
    assert done["wrong"] == []
    assert done["hits"] >= effort(10, 200)
    assert oracle.counted(house.stats(), "trial")["outcomes"]["failure"] == 1
    assert hand.leave() == 0


@pytest.mark.fault("B10")
def test_b10_a_thousand_clients_attach_at_once(house: House) -> None:
    """Processes with twenty clients each: all attached within 5 s, others are answered within 250 ms."""
    processes, each = effort(10, 50), 20
    hands = [house.hand(f"s{number}", wait=False, connect=False) for number in range(processes)]
    for hand in hands:
        hand.hear("up", 60.0)
    for hand in hands:
        hand.tell("clients", count=each)
    started = time.monotonic()
    waits: list[float] = []
    attached = 0
    while attached < processes * each and time.monotonic() - started < 10.0:
        asked = time.monotonic()
        attached = house.ask("stats", 5.0)["supervisor"]["workers"]
        waits.append(time.monotonic() - asked)
        time.sleep(0.002)  # one other client that asks some hundred times a second
    took = time.monotonic() - started
    answers = [hand.hear("did clients", 30.0) for hand in hands]
    assert [answer["errors"] for answer in answers if answer["errors"]] == []
    assert sum(answer["attached"] for answer in answers) == processes * each
    assert took <= 5.0
    assert percentile(waits, 0.99) <= 0.25
    for hand in hands:
        assert hand.leave() == 0
    wait_for("all have left", lambda: not house.workers(), 5.0)


@pytest.mark.fault("B12")
def test_b12_short_lives_leave_nothing_behind_but_their_counts(house: House) -> None:
    """Thousands of workers that attach, make one call and exit: slots, descriptors and records stay flat."""
    hand = house.hand("parent")
    hand.order("guard", breaker="short", **RULES_OFF)
    count = effort(300, 10_000)
    hand.order("short_lives", 60.0, count=20, breaker="short")
    before = {pid: descriptors(pid) for pid in (house.nursery_pid, house.daemon_pid)}
    done = hand.order("short_lives", effort(90.0, 3600.0), count=count, breaker="short")
    assert done["bad"] == []
    wait_for("only the parent is left", lambda: len(house.workers()) == 1, 5.0)
    for pid, number in before.items():
        wait_for("descriptors are flat", lambda pid=pid, number=number: descriptors(pid) <= number + 2, 3.0)  # type: ignore[misc]
    assert hand.leave() == 0
    stats = judge(house)
    assert oracle.counted(stats, "short")["outcomes"][OutcomeKind.SUCCESS.name.lower()] == count + 20


@pytest.mark.fault("B6")
@pytest.mark.needs_root
def test_b6_a_reused_pid_is_another_worker() -> None:
    """The same pid again, as soon as it is free: a new attachment that inherits neither permit nor ring."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-pf", "--mount-proc", "true"], check=False).returncode:
        could_not_run("B6", "no PID namespace can be made")
    ran = subprocess.run(
        [unshare, "-pf", "--mount-proc", "--kill-child", sys.executable, "-m", "tests.faults.reuse"],
        cwd=ROOT, capture_output=True, text=True, timeout=60.0, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["now"]["pid"] == seen["was"]["pid"]
    assert seen["now"]["id"] != seen["was"]["id"]
    assert (seen["now"]["outcomes"], seen["now"]["overflow"]) == (0, 0)
    assert seen["old_is_dead"]
    assert seen["left"] == 0
