"""A6: what the daemon should continue from makes it fail, again and again, at every start."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from ipc.segment import boot_id
from supervisor.disk import DiskCopy
from supervisor.journal import Journal
from tests.faults.afresh import degraded, goes_on, settled
from tests.faults.effort import PATIENCE_S, effort
from tests.live.house import House

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
    assert goes_on(house, hands) == 1
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
    assert goes_on(house, hands) == 1
