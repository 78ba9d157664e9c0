"""Group C: shared memory is truncated, spoiled, filled up, and its files are corrupted."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ipc import layout as at
from ipc.vocabulary import BreakerState
from tests.faults import oracle
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.hostile import Inside, segment_descriptors
from tests.faults.judge import judge
from tests.live.hand import Hand
from tests.live.house import House, cpu_s, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}
SMALL: Final = "[supervisor]\nring_slots = 1024\n"
HOSTILE: Final = (1 << 63, (1 << 64) - 1, (1 << 48), 1 << 40, 0)


def figures(house: House, breaker: str) -> Any:
    """The supervisor's counts of one breaker."""
    return oracle.counted(house.stats(), breaker)


def success(house: House, breaker: str) -> int:
    """Successes that the supervisor has counted."""
    return int(figures(house, breaker)["outcomes"]["success"])


def steady(house: House, name: str = "steady") -> Hand:
    """A worker beside the one that is spoiled, with traffic: nothing may happen to it."""
    hand = house.hand(name)
    hand.order("load", breaker=name, per_s=1000.0, failing_every=10)
    return hand


def unharmed(*hands: Hand) -> None:
    """Their calls went well, and they leave well."""
    for hand in hands:
        assert hand.order("unload")["failed"] == []
        assert hand.leave() == 0


@pytest.mark.fault("C1")
def test_c1_nobody_can_truncate_a_segment(house: House) -> None:
    """Truncating through any descriptor of it is EPERM by seal: nobody who maps it can die of SIGBUS."""
    hand = house.hand()
    hand.order("guard", breaker="database", **RULES_OFF)
    for pid in (hand.pid, house.daemon_pid, house.nursery_pid):
        paths = segment_descriptors(pid)
        assert paths, f"process {pid} has no segment"
        for path in paths:
            for size in (0, 4096, 1 << 30):
                with pytest.raises(PermissionError):
                    os.truncate(path, size)
            descriptor = os.open(path, os.O_RDWR)
            try:
                with pytest.raises(PermissionError):
                    os.ftruncate(descriptor, 0)
            finally:
                os.close(descriptor)
    assert hand.order("call", breaker="database", times=100)["ok"] == 100
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("C3")
def test_c3_words_behind_a_hole_are_read_and_the_late_store_counts_once(house: House) -> None:
    """A thread stands between its ticket and its store: the others' words are read, its own when it comes."""
    hand = house.hand()
    hand.order("guard", breaker="hole", **RULES_OFF)
    hand.order("pause", breaker="hole", number=1)
    hand.order("call", breaker="hole", times=100)
    wait_for("the words behind it", lambda: success(house, "hole") == 101, 3.0)
    inside = Inside(hand.pid)
    assert inside.committed < inside.granted
    used = cpu_s(house.daemon_pid)
    watched = time.monotonic()
    time.sleep(1.0)  # over this second the daemon must be nearly idle
    assert cpu_s(house.daemon_pid) - used <= 0.5 * (time.monotonic() - watched), "the daemon spins"
    hand.order("resume", number=1)
    wait_for("the late word", lambda: success(house, "hole") == 102, 3.0)
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("C3")
def test_c3_a_hole_survives_the_daemon(house: House) -> None:
    """The hole is in the checkpoint: a new daemon neither reads the words behind it twice nor forgets it."""
    hand = house.hand()
    hand.order("guard", breaker="hole", **RULES_OFF)
    hand.order("pause", breaker="hole", number=1)
    hand.order("call", breaker="hole", times=100)
    wait_for("the words behind it", lambda: success(house, "hole") == 101, 3.0)
    house.wait_reborn(house.kill_daemon())
    hand.order("call", breaker="hole", times=100)
    wait_for("more words", lambda: success(house, "hole") >= 201, 3.0)
    hand.order("resume", number=1)
    assert hand.leave() == 0
    stats = judge(house)
    assert oracle.counted(stats, "hole")["outcomes"]["success"] == 202


@pytest.mark.fault("C3")
def test_c3_a_hole_of_a_killed_process_is_a_gap(house: House) -> None:
    """The process is killed between ticket and store: its later words count, the slot is a ring_gap."""
    hand = house.hand()
    hand.order("guard", breaker="hole", **RULES_OFF)
    hand.order("pause", breaker="hole", number=1)
    hand.order("call", breaker="hole", times=50)
    hand.kill()
    wait_for("retired", lambda: not house.workers(), 3.0)
    stats = judge(house, forgive=["ring_gap"])
    assert oracle.counted(stats, "hole")["outcomes"]["success"] == 51
    assert stats["lost"]["ring_gap"] == 1


@pytest.mark.fault("C3")
def test_c3_a_hole_is_given_up_when_its_lap_is_over(build: Callable[..., House]) -> None:
    """A ring that has gone round without the word gives it up, goes on, and never counts it twice."""
    house = build(SMALL).start()
    hand = house.hand()
    hand.order("guard", breaker="hole", **RULES_OFF)
    hand.order("pause", breaker="hole", number=1)
    for _ in range(20):
        hand.order("call", breaker="hole", times=250)
    wait_for("everything else", lambda: success(house, "hole") == 5001, 5.0)
    wait_for("the slot is given up", lambda: house.stats()["lost"]["ring_gap"] == 1, 5.0)
    before = figures(house, "hole")["overflow"]
    hand.order("call", breaker="hole", times=200)
    wait_for("the ring goes on", lambda: success(house, "hole") == 5201, 5.0)
    assert figures(house, "hole")["overflow"] == before
    hand.kill()
    stats = judge(house, forgive=["ring_gap"])
    assert oracle.counted(stats, "hole")["outcomes"]["success"] == 5201


@pytest.mark.fault("C3")
def test_c3_more_holes_than_are_remembered_only_delay(house: House) -> None:
    """Seventy threads stand between ticket and store: reading may wait, and nothing is lost in the end."""
    hand = house.hand()
    hand.order("guard", breaker="hole", **RULES_OFF)
    hand.order("pause", 60.0, breaker="hole", number=1, threads=70)
    hand.order("call", breaker="hole", times=100)
    hand.order("resume", 60.0, number=1, threads=70)
    assert hand.leave() == 0
    stats = judge(house)
    assert oracle.counted(stats, "hole")["outcomes"]["success"] == 240


@pytest.mark.fault("C4")
@pytest.mark.parametrize("seed", range(effort(2, 20)))
def test_c4_a_ring_of_garbage_hurts_its_own_worker_only(house: House, seed: int) -> None:
    """Random bytes in a ring are counted as invalid and end in quarantine; everybody else stays exact."""
    dice = random.Random(seed)
    good, bad = steady(house), house.hand("bad")
    bad.order("guard", breaker="bad", **RULES_OFF)
    inside = Inside(bad.pid)
    used = cpu_s(house.daemon_pid)
    for _ in range(10):
        first = inside.committed
        for position in range(first, first + 4096):
            word = dice.getrandbits(64)
            if dice.random() < 0.5:
                # Noise seldom has the tag of its place: what has it must be looked at and found invalid.
                lap = position // inside.layout.slots & at.LAP_MASK
                word = word & ~(at.LAP_MASK << at.LAP_SHIFT) | lap << at.LAP_SHIFT
            inside.words[inside.slot(position)] = word
        bad.order("call", breaker="bad", times=300)
        if _quarantined(house, bad):
            break
        time.sleep(0.1)  # a few ticks between the spoilings
    wait_for("quarantine", lambda: _quarantined(house, bad), 3.0)
    stats = house.stats()
    assert stats["lost"]["ring_invalid"] > 0
    assert sum(stats["lost"].values()) <= 10 * inside.layout.slots, (
        "more words than a ring has were looked at"
    )
    assert cpu_s(house.daemon_pid) - used < 3.0
    # Quarantine is not punishment: the application's calls go on.
    assert bad.order("call", breaker="bad", times=100)["ok"] == 100
    bad.kill()
    wait_for("it is gone", lambda: house.worker(bad.pid) is None, 3.0)
    _forget(house, "bad")
    unharmed(good)
    judge(house, forgive=["ring_invalid", "ring_gap", "unknown_row"])


def _quarantined(house: House, hand: Hand) -> bool:
    found = house.worker(hand.pid)
    return found is not None and found["state"] == "quarantined"


def _forget(house: House, breaker: str) -> None:
    """Leave the spoiled worker's own outcomes out of the judgement: nothing is promised about them."""
    for path in Path(house.ledgers).glob(f"{breaker}@*"):
        path.unlink()


@pytest.mark.fault("C5")
@pytest.mark.parametrize("word", ["granted", "changes", "declared"])
def test_c5_a_hostile_head_leads_nobody_astray(house: House, word: str) -> None:
    """2**63, -1, jumps in a worker's own position words: at most one lap is read, the others stay exact."""
    index = {"granted": at.W_GRANTED, "changes": at.W_CHANGES, "declared": at.W_DECLARED}[word]
    good, bad = steady(house), house.hand("bad")
    bad.order("guard", breaker="bad", **RULES_OFF)
    bad.order("call", breaker="bad", times=100)
    wait_for("counted", lambda: success(house, "bad") == 100, 3.0)
    inside = Inside(bad.pid)
    used, began = cpu_s(house.daemon_pid), time.monotonic()
    honest = inside.words[index]
    for hostile in HOSTILE:
        inside.words[index] = hostile
        time.sleep(0.15)  # a few ticks, in which the daemon meets it
        asked = time.monotonic()
        house.ask("health", level="live")
        assert time.monotonic() - asked <= 0.5
    inside.words[index] = honest
    spent_s = time.monotonic() - began
    assert cpu_s(house.daemon_pid) - used <= 0.6 * spent_s + 0.2, "the daemon spins"
    stats = house.stats()
    assert sum(stats["lost"].values()) <= inside.layout.slots
    assert oracle.counted(stats, "bad")["outcomes"]["success"] == 100
    bad.kill()
    wait_for("it is gone", lambda: house.worker(bad.pid) is None, 3.0)
    unharmed(good)
    judge(house, forgive=["ring_gap", "ring_invalid"])


@pytest.mark.fault("C5")
def test_c5_hostile_tallies_are_refused(house: House) -> None:
    """Cumulative words of 2**48 and more do not reach a total, nor keep the worker from being retired."""
    good, bad = steady(house), house.hand("bad")
    bad.order("guard", breaker="bad", **RULES_OFF)
    bad.order("call", breaker="bad", times=10)
    wait_for("counted", lambda: success(house, "bad") == 10, 3.0)
    inside = Inside(bad.pid)
    first = inside.layout.tallies
    for index in range(first, first + at.TALLIES * at.ROWS):
        inside.words[index] = (1 << 64) - 1 if index % 2 else 1 << 48
    inside.words[at.W_CHANGES] += 1
    time.sleep(0.2)  # a few ticks, in which the daemon meets them
    assert max(figures(house, "bad")["outcomes"].values()) < 1 << 48
    bad.kill()
    wait_for("it is retired", lambda: house.worker(bad.pid) is None, 3.0)
    assert figures(house, "bad")["outcomes"]["success"] == 10
    _forget(house, "bad")
    unharmed(good)
    judge(house, forgive=["unknown_row", "ring_invalid"])


@pytest.mark.fault("C6")
def test_c6_a_supervisor_away_longer_than_the_ring_lasts_costs_only_order(house: House) -> None:
    """The rings fill up while nobody drains: no call waits, totals are exact on return, the loss is shown."""
    hands = [house.hand(f"w{number}") for number in range(2)]
    house.signal_nursery(signal.SIGSTOP)
    house.kill_daemon()
    for number, hand in enumerate(hands):
        hand.order("load", breaker=f"w{number}", threads=2, per_s=12_500.0, failing_every=100)
    started = time.monotonic()
    wait_for("the length of the fault", lambda: time.monotonic() - started > effort(4.0, 600.0), 700.0, 0.1)
    done = [hand.order("unload") for hand in hands]
    house.signal_nursery(signal.SIGCONT)
    house.wait_ready()
    for figures_of in done:
        assert figures_of["failed"] == []
        assert figures_of["refused"] == 0
        assert figures_of["slow"] <= figures_of["calls"] / 100
    # Only what is attached is obeyed again: one call lets each worker notice.
    for hand in hands:
        assert hand.leave() == 0
    stats = judge(house, seconds=30.0)
    ring = 2 * at.DEFAULT_SLOTS
    overflowed = sum(values["overflow"] for values in stats["breakers"].values())
    issued = oracle.issued(house.ledgers)
    assert issued > 2 * ring
    assert overflowed >= issued - ring
    health = house.ask("health", level="full")
    assert health["status"] == "warn"
    assert any(word in str(health).lower() for word in ("overflow", "order"))


@pytest.mark.fault("C9")
def test_c9_a_worker_that_scribbles_over_its_board_deceives_itself_only(house: House) -> None:
    """A worker that opens its own board is refused until the next publication; nobody else notices."""
    good, bad = house.hand("good"), house.hand("bad")
    for hand in (good, bad):
        hand.order("guard", breaker="shared", failure_threshold=5, failure_rate=None)
        hand.order("call", breaker="shared", times=5)
    inside = Inside(bad.pid)
    row = wait_for("a published row", inside.published, 3.0)[0]
    before = house.breaker("shared")
    inside.words[at.W_BOARD + row] = at.pack_row(BreakerState.OPEN, 77, time.monotonic() + 3600.0, False)
    assert bad.order("call", breaker="shared", times=10)["refused"] == 10
    assert good.order("call", breaker="shared", times=10)["ok"] == 10
    now = house.breaker("shared")
    assert (now["state"], now["generation"]) == (before["state"], before["generation"])
    house.ask("command", breaker="shared", action="reset", reason="publish again")
    bad.order("call_until", breaker="shared", result="ok")
    unharmed(good, bad)
    judge(house)


@pytest.mark.fault("C9")
def test_c9_a_scribbled_header_spoils_nobody_elses_figures(house: House) -> None:
    """Every header and supervisor word of one segment is spoiled, the daemon dies: others stay exact."""
    good, bad = steady(house), house.hand("bad")
    bad.order("guard", breaker="bad", **RULES_OFF)
    bad.order("call", breaker="bad", times=10)
    wait_for("counted", lambda: success(house, "bad") == 10, 3.0)
    inside = Inside(bad.pid)
    dice = random.Random(9)
    for _ in range(20):
        for index in (*range(at.W_HEARTBEAT), at.W_HEARTBEAT, at.W_BELL, at.W_INCARNATION, *range(64, 128)):
            inside.words[index] = dice.getrandbits(64)
        time.sleep(0.02)  # one tick
    assert success(house, "bad") == 10
    house.wait_reborn(house.kill_daemon())
    peer = house.hand("peer")
    peer.order("guard", breaker="peer", **RULES_OFF)
    assert peer.order("call", breaker="peer", times=10)["ok"] == 10
    assert success(house, "bad") == 10
    bad.kill()
    wait_for("it is gone", lambda: house.worker(bad.pid) is None, 3.0)
    house.wait_reborn(house.kill_daemon())
    unharmed(good, peer)
    judge(house, forgive=["segment_lost"])
