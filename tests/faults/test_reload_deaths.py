"""Group J, and A9: who dies over a reload, and when; what is in force afterwards is one file, whole."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from ipc.errors import ControlError, ControlRefused
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import finish, judge
from tests.faults.reloads import NEW, OLD, in_force, loaded, reload, thresholds
from tests.faults.test_supervisor_faults import wait_back
from tests.live.house import House, alive, spare_descriptors, unlimit_descriptors, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

STEPS: Final = ("asked", "checked", "given", "taken", "committed", "answered")
SLACK_S: Final = 0.5


@pytest.mark.fault("J5")
@pytest.mark.parametrize("step", STEPS)
def test_j5_a_daemon_that_dies_at_this_step_leaves_one_file_or_the_other(
    build: Callable[..., House], step: str
) -> None:
    """Before the text was given away the old one is in force, from then on the new one: whole, everywhere."""
    house = build(OLD, BREAKERD_CRASH_AT=f"reload-{step}").start()
    hands = loaded(house, 1)
    daemon = house.daemon_pid
    house.configure(NEW)
    before = in_force(house)
    # At the last step the answer has left already.
    with contextlib.nullcontext() if step == STEPS[-1] else pytest.raises(ControlError):
        reload(house)
    house.wait_reborn(daemon)
    old = step in ("asked", "checked")
    assert thresholds(house) == ((50, 50) if old else (60, 60))
    assert (in_force(house) == before) is old
    assert reload(house)["ok"] is True
    assert thresholds(house) == (60, 60)
    finish(house, hands)


@pytest.mark.fault("J5")
@pytest.mark.parametrize("step", STEPS)
def test_j5_a_signal_is_answered_whoever_dies_over_it(build: Callable[..., House], step: str) -> None:
    """The next daemon does it: nobody has to send the signal again."""
    house = build(OLD, BREAKERD_CRASH_AT=f"reload-{step}").start()
    hands = loaded(house, 1)
    daemon = house.daemon_pid
    house.configure(NEW)
    house.signal_nursery(signal.SIGHUP)
    house.wait_reborn(daemon)
    wait_for("it is in force", lambda: thresholds(house) == (60, 60), 5.0)
    finish(house, hands)


@pytest.mark.fault("J5")
@pytest.mark.parametrize("at", ["nursery", "both"])
def test_j5_a_nursery_that_dies_over_a_reload_leaves_the_file(build: Callable[..., House], at: str) -> None:
    """It is stopped with the text in its queue, and killed: the next start reads the file, all of it."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    house.configure(NEW)
    daemon, nursery = house.daemon_pid, house.nursery_pid
    os.kill(nursery, signal.SIGSTOP)
    with pytest.raises(ControlError, match="the nursery has not answered"):
        reload(house)
    assert thresholds(house) == (50, 50), "nothing is in force that the nursery does not keep"
    if at == "both":
        os.kill(daemon, signal.SIGKILL)
    os.kill(nursery, signal.SIGKILL)
    assert house.nursery is not None
    house.nursery.wait(5.0)
    wait_for("the daemon has ended", lambda: not Path(f"/proc/{daemon}").exists(), 5.0)
    house.start()
    assert thresholds(house) == (60, 60)
    wait_back(house, len(hands))
    finish(house, hands)


@pytest.mark.fault("J5")
def test_j5_a_nursery_that_was_stopped_takes_it_later(build: Callable[..., House]) -> None:
    """Who asked is told that it takes longer, health warns; when it goes on, all of it is in force."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    house.configure(NEW)
    nursery = house.nursery_pid
    os.kill(nursery, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ControlError, match="it goes on by itself"):
        reload(house)
    assert time.monotonic() - began < 6.0
    check = house.ask("health", level="full")["checks"]["supervisor:configuration"][0]
    assert (check["status"], thresholds(house)) == ("warn", (50, 50))
    os.kill(nursery, signal.SIGCONT)
    wait_for("it is in force", lambda: thresholds(house) == (60, 60), 5.0)
    wait_for("well", lambda: house.ask("health", level="full")["status"] == "pass", 5.0)
    finish(house, hands)


@pytest.mark.fault("J5")
def test_j5_a_nursery_without_a_free_descriptor_leaves_the_old_one(build: Callable[..., House]) -> None:
    """The text does not reach it, and it says so; with a descriptor it does."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    house.configure(NEW)
    nursery = house.nursery_pid
    spare_descriptors(nursery, 0)
    with pytest.raises(ControlRefused, match="no free descriptor; the old one stays"):
        reload(house)
    assert thresholds(house) == (50, 50)
    unlimit_descriptors(nursery)
    assert reload(house)["ok"] is True
    assert thresholds(house) == (60, 60)
    finish(house, hands)


@pytest.mark.fault("J5")
@pytest.mark.parametrize("at", range(1, effort(6, 20)))
def test_j5_an_actor_that_raises_over_a_reload_leaves_one_file_or_the_other(
    build: Callable[..., House], at: int
) -> None:
    """It is restarted alone; whoever asks again has the new file, all of it."""
    house = build(OLD, BREAKERD_RAISE_AT=f"reload:{at}").start()
    hands = loaded(house, 1)
    daemon = house.daemon_pid
    house.configure(NEW)
    _ask_in_vain(house)
    wait_for("it raised", lambda: "actor reload failed" in house.logged(), 10.0)
    wait_for("one or the other", lambda: thresholds(house) in ((50, 50), (60, 60)), 2.0)
    assert reload(house)["ok"] is True
    assert (thresholds(house), house.daemon_pid) == ((60, 60), daemon)
    finish(house, hands)


@contextlib.contextmanager
def reloading(house: House) -> Iterator[list[bool]]:
    """Reload again and again, the old file and the new one in turn; how it went, each time."""
    over = threading.Event()
    went: list[bool] = []

    def go_on() -> None:
        while not over.is_set():
            house.configure((NEW, OLD)[len(went) % 2])
            with contextlib.suppress(ControlError):
                went.append(reload(house)["ok"])

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield went
    finally:
        over.set()
        thread.join()


@pytest.mark.fault("J5")
@pytest.mark.parametrize("turn", range(effort(3, 100)))
def test_j5_a_nursery_that_dies_at_any_moment_leaves_the_file(build: Callable[..., House], turn: int) -> None:
    """Reload after reload, and it is killed in one of them: the next start has the file and the counts."""
    house = build(OLD).start()
    hands = loaded(house, 1)
    daemon, nursery = house.daemon_pid, house.nursery_pid
    with reloading(house) as went:
        wait_for("reloads", lambda: len(went) > 2 + turn % 5, 10.0)
        os.kill(nursery, signal.SIGKILL)
        assert house.nursery is not None
        house.nursery.wait(5.0)
        wait_for("the daemon has ended", lambda: not alive(daemon), 5.0)
    assert all(went)
    house.start()
    assert house.config is not None
    assert thresholds(house) == ((60, 60) if house.config.read_text() == NEW else (50, 50))
    wait_back(house, len(hands))
    finish(house, hands)


TURNING: Final = """
[workers.turning]
target = "tests.live.managed_targets:calls"
args = ["{ledgers}", "turn{turn}", 200]
"""


@pytest.mark.fault("J5")
def test_j5_a_new_daemon_says_what_the_nursery_does(build: Callable[..., House]) -> None:
    """Killed at random around a reload: the configuration that it shows is the one by which workers run."""
    house = build()
    house.configure(OLD + TURNING.format(ledgers=house.ledgers, turn=0))
    house.start()

    def agree() -> bool:
        told = in_force(house)["workers"]["turning"]["args"][1]
        living = {path.name.partition("@")[0] for path in house.ledgers.glob("*.ledger") if alive(_pid(path))}
        return living == {told} and told in {name.rpartition("/")[2] for name in house.stats()["breakers"]}

    wait_for("it calls", agree, 15.0)
    for turn in range(1, effort(8, 100)):
        house.configure(OLD + TURNING.format(ledgers=house.ledgers, turn=turn))
        daemon = house.daemon_pid
        asked = threading.Thread(target=partial(_ask_in_vain, house))
        asked.start()
        time.sleep(random.uniform(0.0, 0.02))
        os.kill(daemon, signal.SIGKILL)
        house.wait_reborn(daemon)
        asked.join(15.0)
        wait_for("they agree", agree, 10.0)
    house.stop()
    house.start()
    wait_for("it calls", agree, 15.0)
    house.configure(OLD)
    assert reload(house)["changed"]["workers"]["removed"] == ["turning"]
    wait_for("it is gone", lambda: not house.workers(), 15.0)
    judge(house)


def _pid(ledger: Path) -> int:
    return int(ledger.stem.rpartition("-")[2])


@pytest.mark.fault("A9")
@pytest.mark.parametrize("turn", range(effort(3, 100)))
def test_a9_sigterm_during_a_reload_ends_well(build: Callable[..., House], turn: int) -> None:
    """Exit 0 within 2 s wherever the reload is; the next start has all of the file, and the counts."""
    house = build(OLD).start()
    hands = loaded(house)
    with reloading(house) as went:
        wait_for("reloads", lambda: len(went) > turn + 1, 10.0)
        began = time.monotonic()
        assert house.stop() == 0
        assert time.monotonic() - began <= 2.0 + SLACK_S
    assert all(went)
    house.start()
    assert thresholds(house) in ((50, 50), (60, 60))
    assert reload(house)["changed"]["breakers"] == {"added": [], "changed": [], "removed": []}
    wait_back(house, len(hands))
    finish(house, hands)


@pytest.mark.fault("A9")
def test_a9_a_second_sigterm_during_a_reload_ends_at_once(build: Callable[..., House]) -> None:
    """The daemon stands still in the middle of it: gone within 100 ms, exact afterwards."""
    house = build(OLD).start()
    hands = loaded(house)
    house.configure(NEW)
    daemon, nursery = house.daemon_pid, house.nursery_pid
    os.kill(nursery, signal.SIGSTOP)  # the text is in its queue
    asked = threading.Thread(target=partial(_ask_in_vain, house))
    asked.start()
    wait_for("the text is given", lambda: "again, asked for by" in house.logged(), 5.0)
    os.kill(daemon, signal.SIGSTOP)
    house.signal_nursery(signal.SIGTERM)
    os.kill(nursery, signal.SIGCONT)
    time.sleep(0.2)  # both would otherwise be one signal
    second = time.monotonic()
    house.signal_nursery(signal.SIGTERM)
    assert house.nursery is not None
    house.nursery.wait(5.0)
    assert time.monotonic() - second <= 0.1 + SLACK_S
    asked.join(10.0)
    house.start()
    assert thresholds(house) == (60, 60)
    wait_back(house, len(hands))
    finish(house, hands)


def _ask_in_vain(house: House) -> None:
    with contextlib.suppress(ControlError):
        reload(house)
