"""A6: what the daemon should continue from makes it fail, again and again, at every start."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ipc.segment import boot_id
from supervisor.disk import DiskCopy
from supervisor.journal import Journal
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, judge
from tests.live.hand import Hand
from tests.live.house import House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

FAILED_STARTS: Final = 3
BACK_S: Final = 15.0
"""Three starts that fail, the pauses between them, and one that does not, on a busy machine."""


def poison(folder: Path) -> bytes:
    """Make the checkpoint one that is whole, of this version, and fails every start; its first bytes."""
    with contextlib.closing(Journal.open(str(folder), boot_id(), "poison")) as journal:
        loaded = journal.load()
        assert loaded is not None
        assert loaded.snapshot["incarnation"] > 0
        # What no check of the file can find: the bytes are right, their meaning is not.
        journal.snapshot({**loaded.snapshot, "incarnation": "the first"})
    return (folder / "checkpoint").read_bytes()


def settled(house: House) -> list[Hand]:
    """Two workers, everything of whom is counted and whose account is closed: it goes with the poison."""
    hands = [house.hand(f"w{number}") for number in range(2)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, threads=2, per_s=1000.0, failing_every=9)
    wait_for("traffic", lambda: house.stats()["totals"]["outcomes"]["success"] > 500, 5.0)
    for hand in hands:
        assert hand.order("unload")["failed"] == []
    judge(house)
    aside = house.root / "before"
    aside.mkdir()
    for path in house.ledgers.iterdir():
        path.rename(aside / path.name)
    return hands


def goes_on(house: House, hands: list[Hand], lost: int) -> None:
    """The workers are attached again without being asked, and everything new is counted exactly."""
    for hand in hands:
        hand.order("load", breaker=f"after-{hand.log.stem}", threads=2, per_s=1000.0, failing_every=9)
    wait_for("they are back", lambda: sum(bool(one["ring_slots"]) for one in house.workers()) == 2, 10.0)
    with Watch(house):
        house.wait_reborn(house.kill_daemon())
        for hand in hands:
            assert hand.order("unload")["failed"] == []
            assert hand.leave() == 0
        stats = judge(house, forgive=("checkpoint_lost",))
    assert stats["lost"]["checkpoint_lost"] == lost
    assert stats["supervisor"]["incarnation"] == 2, "the life after the empty one goes on from its checkpoint"


def degraded(house: House) -> str:
    """What health says of the state that was set aside; it is a warning."""
    found: list[dict[str, Any]] = house.ask("health", level="full")["checks"]["supervisor:degraded"]
    assert [one["status"] for one in found] == ["warn"] * len(found)
    return "; ".join(one["output"] for one in found)


@pytest.mark.fault("A6")
@pytest.mark.parametrize("cold", [False, True], ids=["daemon", "everything"])
@pytest.mark.parametrize("number", range(effort(1, 20)))
def test_a6_after_three_failed_starts_it_starts_empty_and_says_so(
    build: Callable[..., House], cold: bool, number: int
) -> None:
    """A poisoned checkpoint is set aside whole; nursery and workers go on, and what is new is counted."""
    house = build().start()
    hands = settled(house)
    nursery = house.nursery_pid
    if cold:
        house.kill_all()
    else:
        house.signal_nursery(signal.SIGSTOP)  # so that nobody starts before the poison is in
        house.kill_daemon()
    bad = poison(house.runtime)
    before = house.logged().count("ended: exit code 1")
    began = time.monotonic()
    if cold:
        house.nursery = house.spawn()
        nursery = house.nursery.pid
    else:
        house.signal_nursery(signal.SIGCONT)
    house.wait_ready(BACK_S)
    print(f"back after {time.monotonic() - began:.1f} s, round {number}")
    assert house.nursery_pid == nursery
    assert house.logged().count("ended: exit code 1") - before == FAILED_STARTS
    aside = list(house.runtime.glob("checkpoint.bad-*"))
    assert [path.read_bytes() for path in aside] == [bad]
    assert abs(int(aside[0].name.rpartition("-")[2]) - time.time()) < 60
    assert f"state_quarantined: the checkpoint was set aside as {aside[0]}" in degraded(house)
    told = house.run_tool("health")
    assert (told.returncode, "state_quarantined" in told.stdout) == (0, True), told.stdout + told.stderr
    goes_on(house, hands, lost=1)
    assert house.nursery is not None
    assert house.nursery.poll() is None
    assert house.stop() == 0


@pytest.mark.fault("A6")
def test_a6_a_poisoned_copy_does_not_keep_a_rebooted_host_from_starting(build: Callable[..., House]) -> None:
    """Only the copy in the state directory is left, and it fails every start: empty, and it is kept aside."""
    house = build().start()
    hands = settled(house)
    house.kill_all()
    poison(house.runtime)
    with contextlib.closing(Journal.open(str(house.runtime), boot_id(), "poison")) as journal:
        loaded = journal.load()
        assert loaded is not None
        journal.snapshot(loaded.snapshot)
        assert DiskCopy(str(house.state)).save(journal.image(), boot_id(), time.monotonic())
    (house.runtime / "checkpoint").unlink()
    bad = (house.state / "checkpoint").read_bytes()
    house.nursery = house.spawn()
    house.wait_ready(BACK_S)
    assert house.logged().count("ended: exit code 1") == FAILED_STARTS
    assert [path.read_bytes() for path in house.state.glob("checkpoint.bad-*")] == [bad]
    assert "state_quarantined" in degraded(house)
    goes_on(house, hands, lost=1)
