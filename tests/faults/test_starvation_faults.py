"""A8, F7, F8: the supervisor has no memory, no process or thread, or no processor to work with."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest

from ipc.errors import ControlError
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.groups import Group
from tests.faults.hostile import Inside
from tests.faults.judge import Watch, finish
from tests.live.hand import Hand
from tests.live.house import House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

MORE_BYTES: Final = 2 << 20
"""What a starved daemon may still take: a few segments of new workers."""
FAST_DISK: Final = "[supervisor]\ndisk_interval_s = 0.2\n"
RECOVERY_S: Final = 5.0
LOCAL_S: Final = 1.1
FLAP_S: Final = 60.0
HOLD_S: Final = 5.0
SLACK_S: Final = 0.15
STARVED_NS: Final = 1_300_000_000
BREATH_S: Final = 0.7
"""How long a starved daemon gets its processor back between two famines."""


def working(house: House, count: int = 2, per_s: float = 1000.0) -> list[Hand]:
    """Workers that call all the time."""
    hands = [house.hand(f"w{number}") for number in range(count)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, per_s=per_s, failing_every=25)
    return hands


@pytest.mark.fault("A8")
@pytest.mark.needs_root
def test_a8_a_daemon_that_the_kernel_kills_for_memory_loses_nothing(house: House) -> None:
    """The OOM killer ends it while it makes segments for many: back like after any kill, all counted."""
    hands = working(house, 3)
    with Watch(house):
        for number in range(effort(3, 30)):
            swarm = house.hand(f"swarm{number}")
            pid = house.daemon_pid
            with Group("memory", "A8") as group:
                group.memory(MORE_BYTES).add(pid)
                swarm.tell("clients", count=30, seconds=20.0)
                wait_for("the kernel kills it", group.killed, 10.0)
                house.wait_reborn(pid)
            answer = swarm.hear("did clients", 30.0)
            assert (answer["errors"], answer["attached"]) == ([], 30)
            assert swarm.leave() == 0
        finish(house, hands)


@pytest.fixture
def tasks() -> Iterator[Group]:
    """A group that limits the number of processes and threads."""
    with Group("pids", "F7") as group:
        yield group


def warnings(house: House) -> list[str]:
    """What health warns of in the supervisor's own parts."""
    checks = house.ask("health", level="full")["checks"]
    return [
        one["output"]
        for name, found in checks.items()
        for one in found
        if one["status"] != "pass" and name.startswith("supervisor:")
    ]


@pytest.mark.fault("F7")
@pytest.mark.needs_root
def test_f7_without_a_thread_the_copy_is_not_made_and_that_is_all(
    build: Callable[..., House], tasks: Group
) -> None:
    """No thread can be started: health says so, the same daemon serves on, and recovers with the limit."""
    house = build(FAST_DISK).start()
    pid = house.daemon_pid
    tasks.tasks(0).add(pid)
    hands = working(house)
    said = wait_for("health says so", lambda: warnings(house), 5.0, 0.05)
    assert "no thread" in said[0]
    until = time.monotonic() + effort(5.0, 120.0)
    wait_for("many copies fail", lambda: time.monotonic() > until, 130.0, 0.1)
    assert house.run_tool("health").returncode == 0
    assert house.daemon_pid == pid
    tasks.tasks(None)
    wait_for("it recovers", lambda: not warnings(house), RECOVERY_S, 0.05)
    finish(house, hands)
    assert house.daemon_pid == pid
    assert house.logged().count("the copy in the state directory failed") == 1


@pytest.mark.fault("F7")
@pytest.mark.needs_root
def test_f7_without_a_process_the_nursery_waits_for_one(house: House, tasks: Group) -> None:
    """No daemon can be forked: the nursery keeps what it holds, workers decide alone, then all goes on."""
    hands = working(house)
    nursery = house.nursery_pid
    tasks.tasks(0).add(nursery)
    house.kill_daemon()
    killed = time.monotonic()
    wait_for("it says so", lambda: "the daemon cannot be started" in house.logged(), 5.0, 0.05)
    wait_for("they decide alone", lambda: all(hand.order("mode")["local"] for hand in hands), 3.0)
    until = killed + effort(8.0, 120.0)
    wait_for("the length of the fault", lambda: time.monotonic() > until, 130.0, 0.1)
    assert house.nursery is not None
    assert house.nursery.poll() is None
    tasks.tasks(None)
    house.wait_ready(RECOVERY_S)
    assert house.nursery_pid == nursery
    wait_for("they obey", lambda: not any(hand.order("mode")["local"] for hand in hands), 10.0)
    finish(house, hands)
    assert house.logged().count("the daemon cannot be started") == 1


class Famine:
    """Keeps the daemon from its processor, one way or another."""

    def __init__(self, house: House, how: str) -> None:
        self._pid = house.daemon_pid
        self._group = Group("cpu", "F8").add(self._pid) if how == "group" else None

    def begin(self) -> None:
        """From now on it gets no more than a thousandth of a processor, or nothing."""
        if self._group is not None:
            self._group.cpu(0.001)
        else:
            os.kill(self._pid, signal.SIGSTOP)

    def end(self) -> None:
        """It gets what it needs."""
        if self._group is not None:
            self._group.cpu(0.0)
        else:
            os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        self.end()
        if self._group is not None:
            self._group.close()


@pytest.mark.fault("F8")
@pytest.mark.parametrize("how", ["group", "signals"])
def test_f8_a_starved_daemon_makes_workers_local_and_they_do_not_flap(house: House, how: str) -> None:
    """Its heartbeat comes and goes: the second switch to local within a minute lasts five seconds, and on."""
    hands = working(house)
    for hand in hands:
        assert hand.order("watch_mode")["local"] is False
    inside = Inside(hands[0].pid)

    def starved() -> bool:
        """What little it gets goes into answers that nobody waits for."""
        with contextlib.suppress(ControlError):
            house.ask("stats", timeout=0.05)
        return time.monotonic_ns() - inside.heartbeat > STARVED_NS

    def breathe() -> None:
        fed = time.monotonic()
        wait_for("it breathes", lambda: time.monotonic() - fed > BREATH_S, 3.0)

    famine = Famine(house, how)
    beats: list[float] = []
    try:
        began = time.monotonic()
        while time.monotonic() - began < effort(14.0, 180.0):
            famine.begin()
            wait_for("the heart stands still", starved, 15.0, 0.02)
            beats.append(inside.heartbeat / 1e9)
            famine.end()
            breathe()
    finally:
        famine.close()
    for hand in hands:
        changes = wait_for("it obeys", partial(_when_it_obeys, hand), 10.0)
        assert changes[0][1] - beats[0] <= LOCAL_S + SLACK_S
        _assert_damped(changes)
    finish(house, hands)


def _when_it_obeys(hand: Hand) -> list[tuple[bool, float]]:
    """Every change of who decides, once the last one was to obey."""
    changes: list[tuple[bool, float]] = hand.order("mode")["changes"]
    return changes if changes and not changes[-1][0] else []


def _assert_damped(changes: list[tuple[bool, float]]) -> None:
    """The changes are from and to local in turn, and each return to it within FLAP_S is held."""
    assert [local for local, _ in changes] == [True, False] * (len(changes) // 2)
    times = [at for _, at in changes]
    began, ended = times[::2], times[1::2]
    assert len(began) >= 3, f"it was no flapping: {changes}"
    assert ended[0] - began[0] < HOLD_S, "the first time nothing is held"
    for before, start, end in zip(began, began[1:], ended[1:], strict=False):
        assert start - before > FLAP_S or end - start >= HOLD_S - SLACK_S, changes
