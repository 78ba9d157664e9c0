"""Group J: reloads of files that cannot be used, with trials in flight, and again and again under load."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, finish, judge
from tests.faults.reloads import NEW, OLD, in_force, loaded, reload, thresholds
from tests.faults.test_operation_faults import WRONG
from tests.live.hand import Hand
from tests.live.house import House, Size, gone, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

RELOADS: Final = effort(300, 5000)
WARM: Final = 1000
"""Reloads after which what is kept of them, the last thousand events, is full."""
GROWN_KIB: Final = 1024
"""What a process may grow by in all its reloads: arenas of its allocator, and no leak of any."""


# --- J1 and J3: what cannot be used changes nothing -------------------------------------------------


def refused(house: House, before: Any, *said: str) -> None:
    """A reload is refused with these words; nothing of the configuration is another one."""
    ran = house.run_tool("reload")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    for words in said:
        assert words in ran.stdout
    assert in_force(house) == before
    assert house.breaker("database")["settings"]["failure_threshold"] == 50
    health = house.ask("health", level="full")
    (check,) = health["checks"]["supervisor:configuration"]
    assert (health["status"], check["status"]) == ("warn", "warn")
    assert any(words in check["output"] for words in said)


@pytest.mark.fault("J1")
def test_j1_a_wrong_file_changes_nothing_and_every_mistake_is_named(build: Callable[..., House]) -> None:
    """As `config check` names them; health warns until a good reload, over the deaths of daemons as well."""
    house = build(OLD).start()
    hands = loaded(house)
    before, pids = in_force(house), (house.nursery_pid, house.daemon_pid)
    for text in WRONG:
        # The first tables are good ones: none of them may be in force.
        house.configure(NEW.replace("[breakers.database]\n", "[breakers.other]\n") + text)
        checked = house.run_tool("config", "check", str(house.config))
        assert checked.returncode == 3
        refused(house, before, *checked.stdout.splitlines())
    assert (house.nursery_pid, house.daemon_pid) == pids
    house.wait_reborn(house.kill_daemon())
    refused_still = house.ask("health", level="full")["checks"]["supervisor:configuration"][0]
    assert refused_still["status"] == "warn"
    assert in_force(house) == before
    house.configure(NEW)
    assert reload(house)["ok"] is True
    assert house.ask("health", level="full")["status"] == "pass"
    assert thresholds(house) == (60, 60)
    finish(house, hands)


def absent(file: Path) -> None:
    """Removed."""
    file.unlink()


def directory(file: Path) -> None:
    """Something else in its place."""
    file.unlink()
    file.mkdir()


def fifo(file: Path) -> None:
    """A FIFO to which nobody writes."""
    file.unlink()
    os.mkfifo(file)


def circle(file: Path) -> None:
    """A link to itself: what not even root can read."""
    file.unlink()
    file.symlink_to(file)


def too_large(file: Path) -> None:
    """A device's worth of comment."""
    file.write_bytes(b"#" * (2 << 20))


def binary(file: Path) -> None:
    """No text."""
    file.write_bytes(b"[breakers.\xff]\n")


@pytest.mark.fault("J3")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (absent, "cannot be read: No such file or directory"),
        (directory, "cannot be read: not a regular file"),
        (fifo, "cannot be read: not a regular file"),
        (circle, "cannot be read: Too many levels of symbolic links"),
        (too_large, "larger than 1048576 bytes"),
        (binary, "line 1: not UTF-8"),
    ],
)
def test_j3_a_file_that_cannot_be_read_changes_nothing(
    build: Callable[..., House], spoil: Callable[[Path], None], said: str
) -> None:
    """Nobody waits for it meanwhile: calls are counted and questions answered as before."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    assert house.config is not None
    before = in_force(house)
    spoil(house.config)
    began = time.monotonic()
    refused(house, before, f"{house.config}: {said}")
    assert time.monotonic() - began < 5.0
    house.wait_reborn(house.kill_daemon())
    assert in_force(house) == before
    finish(house, hands)


@pytest.mark.fault("J3")
def test_j3_a_file_that_this_user_may_not_read_changes_nothing(build: Callable[..., House]) -> None:
    """No permission; for root, who may read everything, /proc has a file that it may not."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    assert house.config is not None
    before = in_force(house)
    if os.geteuid():
        house.config.chmod(0)
    else:
        house.config.unlink()
        house.config.symlink_to("/proc/self/mem")
    refused(house, before, f"{house.config}: ")
    finish(house, hands)


def flow(number: int) -> bytes:
    """A file of which no beginning but the whole is one."""
    tables = ", ".join(f"table{place} = {{ failure_threshold = {number} }}" for place in range(400))
    return f"breakers = {{ database = {{ failure_threshold = {number} }}, {tables} }}\n".encode()


@contextlib.contextmanager
def scribbling(file: Path) -> Iterator[None]:
    """Somebody writes the file anew all the time, in place and piece by piece."""
    over = threading.Event()

    def write_on() -> None:
        with file.open("r+b", buffering=0) as out:
            number = 60
            while not over.is_set():
                number = 130 - number  # 70, 60, 70, ...
                text = flow(number)
                out.truncate(1)
                for place in range(0, len(text), 4096):
                    out.seek(place)
                    out.write(text[place : place + 4096])
                    over.wait(0.001)
                over.wait(0.02)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


@pytest.mark.fault("J3")
def test_j3_a_file_that_is_half_written_is_refused_or_waited_out(build: Callable[..., House]) -> None:
    """Under a writer in place: each reload has all of one version, or is refused and changes nothing."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    assert house.config is not None
    house.config.write_bytes(flow(60))
    seen = {True: 0, False: 0}
    last = in_force(house)
    with scribbling(house.config):
        deadline = time.monotonic() + effort(20.0, 300.0)
        while min(seen.values()) < effort(10, 100) and time.monotonic() < deadline:
            good = reload(house)["ok"]
            seen[good] += 1
            now = in_force(house)
            if good:
                numbers = {table["failure_threshold"] for table in now["breakers"].values()}
                assert numbers in ({60}, {70})
                assert len(now["breakers"]) == 401
            else:
                assert now == last
            assert len(set(thresholds(house))) == 1
            last = now
    assert min(seen.values()) > 0, seen
    finish(house, hands)


# --- J4: a table goes away while a trial is in flight -------------------------------------------------

TRIAL: Final = """
[breakers.{name}]
failure_threshold = 2
recovery_timeout = 0.2
recovery_jitter = 0.0
trial_timeout = {trial_s}
successes_to_close = 1
"""
QUICK: Final[dict[str, Any]] = {
    "failure_threshold": 3,
    "failure_rate": None,
    "recovery_timeout": 0.3,
    "successes_to_close": 1,
}


def trying(build: Callable[..., House], trial_s: float = 30.0) -> tuple[House, Hand]:
    """A house whose `database` is HALF_OPEN with one trial in flight, and whose `orders` is well."""
    house = build(TRIAL.format(name="database", trial_s=trial_s)).start()
    hand = house.hand()
    for breaker in ("database", "orders"):
        hand.order("guard", breaker=breaker, **QUICK)
        hand.order("call", breaker=breaker)
    wait_for("declared", lambda: len(house.ask("breakers")["breakers"]) == 2, 3.0)
    hand.order("call", breaker="database", how="fail", times=2)
    hand.order("call_until", breaker="database", result="refused")
    hand.order("hold", breaker="database", number=1)
    wait_for("a trial", lambda: house.breaker("database")["trials"]["in_flight"] == 1, 5.0)
    return house, hand


@pytest.mark.fault("J4")
@pytest.mark.parametrize("how", ["ok", "fail"])
@pytest.mark.parametrize("name", ["orders", ""])
def test_j4_a_renamed_or_removed_table_keeps_its_trials_to_itself(
    build: Callable[..., House], name: str, how: str
) -> None:
    """The verdict of the trial is the breaker's that gave the permit, whatever the file says by then."""
    house, hand = trying(build)
    house.configure(TRIAL.format(name=name, trial_s=30.0) if name else "")
    changed = reload(house)["changed"]["breakers"]
    assert changed == {"added": [name] if name else [], "changed": [], "removed": ["database"]}
    kept = house.breaker("database")
    assert (kept["state"], kept["trials"]["in_flight"]) == ("HALF_OPEN", 1)
    assert kept["settings"]["failure_threshold"] == 3, "declared by the worker, as nobody else says any more"
    assert house.breaker("orders")["settings"]["failure_threshold"] == (2 if name else 3)
    hand.order("release", number=1, how=how)
    hand.hear("finished", 5.0, number=1)
    if how == "ok":
        wait_for("it is closed", lambda: house.breaker("database")["state"] == "CLOSED", 3.0)
    else:
        wait_for("it opened again", lambda: house.breaker("database")["opened_total"] == 2, 3.0)
    other = house.breaker("orders")
    assert (other["state"], other["failure_count"], other["opened_total"]) == ("CLOSED", 0, 0)
    assert house.stats()["breakers"][other["name"]]["outcomes"]["success"] == 1
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("J4")
def test_j4_a_changed_table_is_in_force_at_once_and_keeps_its_trial(build: Callable[..., House]) -> None:
    """The permit that is out stays, and how many successes close it is what the new file says."""
    house, hand = trying(build)
    house.configure(TRIAL.format(name="database", trial_s=30.0).replace("_close = 1", "_close = 2"))
    assert reload(house)["changed"]["breakers"] == {"added": [], "changed": ["database"], "removed": []}
    assert house.breaker("database")["trials"]["in_flight"] == 1
    hand.order("release", number=1, how="ok")
    hand.hear("finished", 5.0, number=1)
    wait_for("it has passed", lambda: house.breaker("database")["trials"]["passed"] == 1, 3.0)
    assert house.breaker("database")["state"] == "HALF_OPEN"
    hand.order("call_until", breaker="database", result="ok")
    wait_for("two close it", lambda: house.breaker("database")["state"] == "CLOSED", 3.0)
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("J4")
def test_j4_a_trial_that_is_too_late_decides_nothing_under_the_new_file(build: Callable[..., House]) -> None:
    """Its lease ran out under the old file; the word comes when the table is gone: counted, and no more."""
    house, hand = trying(build, trial_s=0.2)
    house.configure(TRIAL.format(name="orders", trial_s=0.2))
    assert reload(house)["ok"] is True
    wait_for("its lease is over", lambda: house.breaker("database")["opened_total"] == 2, 5.0)
    house.ask("command", breaker="database", action="force-open", for_s=60, reason="test")
    hand.order("release", number=1, how="ok")
    hand.hear("finished", 5.0, number=1)
    judge(house)
    assert house.breaker("database")["state"] == "FORCED_OPEN"
    assert house.breaker("orders")["state"] == "CLOSED"
    assert hand.leave() == 0
    judge(house)


# --- J5: many of them ---------------------------------------------------------------------------------


def costs(house: House) -> dict[str, Size]:
    """What nursery and daemon have."""
    return {"nursery": Size.of(house.nursery_pid), "daemon": Size.of(house.daemon_pid)}


@pytest.mark.fault("J5")
def test_j5_reloads_under_load_count_exactly_and_cost_nothing(build: Callable[..., House]) -> None:
    """Good and wrong ones in turn: the same processes, no descriptor, thread, map or memory more."""
    house = build(OLD).start()
    hands = loaded(house, 3)
    texts = (NEW, OLD, NEW + "[nonsense]\n", OLD)

    def turn(number: int) -> None:
        house.configure(texts[number % 4])
        assert reload(house)["ok"] is (number % 4 != 2)
        assert thresholds(house) in ((60, 60), (50, 50))

    for number in range(WARM):
        turn(number)
    before = costs(house)
    with Watch(house):
        for number in range(RELOADS):
            turn(number)
    after = costs(house)
    for name, (fds, threads, maps, kib) in before.items():
        assert after[name].descriptors <= fds + 1, f"{name}: descriptors {before} {after}"
        assert after[name].threads <= threads, f"{name}: threads {before} {after}"
        assert after[name].maps <= maps + 8, f"{name}: maps {before} {after}"
        assert after[name].memory_kib <= kib + GROWN_KIB, f"{name}: memory {before} {after}"
    print(f"costs before {before}, after {after}")
    assert house.incarnation == 1
    finish(house, hands)


MANAGED: Final = """
[workers.{name}]
target = "tests.live.managed_targets:calls"
args = ["{ledgers}", "{name}", {per_s}]
"""


def lives(house: House, breaker: str) -> list[int]:
    """The processes that ever called this breaker, the last one last: each has a ledger."""
    ledgers = sorted(house.ledgers.glob(f"{breaker}@*.ledger"), key=lambda path: path.stat().st_mtime_ns)
    return [int(path.stem.rpartition("-")[2]) for path in ledgers]


@pytest.mark.fault("J5")
def test_j5_only_the_worker_whose_table_changed_is_restarted(build: Callable[..., House]) -> None:
    """Again and again: the others go on, a reload is no failure of the worker, and every call is counted."""
    house = build()

    def text(turn: int) -> str:
        tables = {"before": 100, "turns": 100 + turn % 2, "after": 100}
        return OLD + "".join(
            MANAGED.format(name=name, ledgers=house.ledgers, per_s=per_s) for name, per_s in tables.items()
        )

    def calling() -> bool:
        known = {name.rpartition("/")[2] for name in house.stats()["breakers"]}
        return {"before", "turns", "after"} <= known

    house.configure(text(0))
    house.start()
    wait_for("all of them call", calling, 15.0)
    others = {name: lives(house, name) for name in ("before", "after")}
    seen, before = lives(house, "turns"), costs(house)
    for turn in range(1, effort(30, 101)):
        house.configure(text(turn))
        answer = reload(house)
        assert (answer["restarted"], answer["changed"]["workers"]["changed"]) == (["turns"], ["turns"])
        (pid,) = wait_for("another process", lambda: set(lives(house, "turns")) - set(seen), 10.0)
        wait_for("the old one is gone", partial(gone, seen[-1]), 5.0)
        seen.append(pid)
    assert {name: lives(house, name) for name in others} == others
    after = costs(house)["nursery"]
    assert after.descriptors <= before["nursery"].descriptors + 1, f"descriptors {before['nursery']} {after}"
    assert after.threads <= before["nursery"].threads, f"threads {before['nursery']} {after}"
    house.configure(OLD)
    assert reload(house)["changed"]["workers"]["removed"] == ["before", "turns", "after"]
    wait_for("all are gone", lambda: not house.workers(), 15.0)
    judge(house)
