"""A7: another version of breakerd takes over, and this one again, in place or by a restart, under load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.afresh import degraded, goes_on, settled
from tests.faults.effort import LONG, PATIENCE_S, effort
from tests.faults.judge import Watch, judge
from tests.faults.upgraded import SOFTWARE, later_version
from tests.live.hand import Hand, leave
from tests.live.house import ROOT, House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

HOWS: Final = ("in place", "restart")
BACK_S: Final = 10.0
REFUSED_S: Final = 30.0
"""After an answer that no retry changes, such as another version's, a worker asks again so much later."""
SAME: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}


def installed(house: House) -> Path:
    """Have the house run from a link to this version, which `upgrade` turns elsewhere."""
    house.tree = house.root / "installed"
    house.tree.symlink_to(ROOT)
    return house.root / "later"


def upgrade(house: House, tree: Path, how: str) -> None:
    """Another version is installed, and takes over: the next daemon of the same nursery, or all of it."""
    house.tree.with_name("next").symlink_to(tree)
    os.replace(house.tree.with_name("next"), house.tree)
    if how == "in place":
        house.wait_reborn(house.kill_daemon())
    else:
        assert house.stop() == 0
        house.start()
    is_later = house.ask("version")["version"] == SOFTWARE
    assert is_later is (tree != ROOT)


def working(house: House, count: int = 2) -> list[Hand]:
    """Workers that call all the time, and one breaker that is forced open."""
    hands = [house.hand(f"w{number}") for number in range(count)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, threads=2, per_s=1000.0, failing_every=9)
    hands[0].order("guard", breaker="database", **SAME)
    hands[0].order("call", breaker="database", times=7)
    house.ask("command", breaker="database", action="force-open", reason="kept?")
    hands[0].order("call_until", breaker="database", result="refused")
    return hands


def back(house: House, hands: list[Hand], seconds: float = BACK_S) -> None:
    """All of them are attached, with a ring that is read."""
    mine = {hand.pid for hand in hands}

    def attached() -> bool:
        return mine <= {one["pid"] for one in house.workers() if one["ring_slots"]}

    wait_for("they are attached again", attached, seconds, 0.02)


@pytest.mark.fault("A7")
@pytest.mark.parametrize("how", HOWS)
def test_a7_a_version_with_the_same_layouts_keeps_everything(build: Callable[..., House], how: str) -> None:
    """Upgraded and downgraded under load: states, counts and attachments stay, and nothing is lost."""
    house = build()
    later = later_version(installed(house))
    house.start()
    hands = working(house)
    with Watch(house):
        for _ in range(effort(1, 10)):
            for tree in (later, ROOT):
                upgrade(house, tree, how)
                back(house, hands)
                assert house.breaker("database")["state"] == "FORCED_OPEN"
        late = house.hand("late")
        late.order("guard", breaker="database", **SAME)
        assert late.order("call", breaker="database")["refused"] == 1
        leave([*hands, late])
        judge(house)
    assert "Traceback" not in house.logged()


@pytest.mark.fault("A7")
@pytest.mark.parametrize("how", HOWS if LONG else HOWS[:1])
def test_a7_another_layout_carries_the_counts_and_nobody_reads_what_he_cannot(
    build: Callable[..., House], how: str
) -> None:
    """Segments of another layout are set aside, their workers are told and local, and come back later."""
    house = build()
    later = later_version(installed(house), layout=True)
    house.start()
    hands = working(house)
    with Watch(house):
        upgrade(house, later, how)
        assert house.breaker("database")["state"] == "FORCED_OPEN"
        new = house.hand("new")
        new.order("load", breaker="new", threads=2, per_s=1000.0, failing_every=9)
        back(house, [new])
        new.order("guard", breaker="database", **SAME)
        assert new.order("call", breaker="database")["refused"] == 1
        wait_for("the old ones are told", lambda: all(_told(hand) for hand in hands), BACK_S, 0.02)
        assert [one["pid"] for one in house.workers() if one["ring_slots"]] == [new.pid]
        assert {hand.pid for hand in hands} < {one["pid"] for one in house.workers()}
        leave([new])
        wait_for("the new one is retired", lambda: house.worker(new.pid) is None, 5.0)
        upgrade(house, ROOT, how)
        back(house, hands, BACK_S + (REFUSED_S if how == "restart" else 0.0))
        assert house.breaker("database")["state"] == "FORCED_OPEN"
        leave(hands)
        # What was set aside is told as such; nothing of it was lost in the end.
        judge(house, forgive=("checkpoint_lost",))
    assert [len(_told(hand)) for hand in hands] == [1, 1], "they were told once"
    assert "Traceback" not in house.logged()


def _told(hand: Hand) -> list[str]:
    """The lines in which a worker says that the supervisor is of another version."""
    return [line for line in hand.wrote().splitlines() if "install the same version of breakerd" in line]


@pytest.mark.fault("A7")
@pytest.mark.parametrize("how", HOWS)
def test_a7_a_snapshot_of_a_later_version_is_set_aside_and_told(
    build: Callable[..., House], how: str
) -> None:
    """Migrated on the way up; on the way down set aside at once, and workers and new counts go on."""
    house = build()
    later = later_version(installed(house), snapshot=True)
    house.start()
    hands = settled(house)
    issued = house.stats()["totals"]["outcomes"]["success"]
    upgrade(house, later, how)
    assert house.stats()["totals"]["outcomes"]["success"] == issued
    began = time.monotonic()
    upgrade(house, ROOT, how)
    print(f"back after {time.monotonic() - began:.1f} s")
    assert "exit code" not in house.logged().replace("exit code 0", "")
    assert "state_quarantined" in degraded(house)
    assert f"breakerd {SOFTWARE}" in degraded(house)
    assert len(list(house.runtime.glob("checkpoint.bad-*"))) == 1
    assert goes_on(house, hands) in (1, 2), "the checkpoint, and the copy of it if there was one yet"
