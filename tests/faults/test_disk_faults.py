"""F1 and F3 for the supervisor: no room for its state, nowhere for its log lines to go."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import Watch, finish, judge
from tests.faults.shelves import Shelf, shelf
from tests.live.hand import Hand
from tests.live.house import House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

RECOVERY_S: Final = 5.0
NOTICED_S: Final = 5.0
CROWD: Final = 3
"""Workers whose breakers together need more than the checkpoint has at first, ..."""
BREAKERS: Final = 900
"""... each so many."""


def working(house: House) -> list[Hand]:
    """Two workers that call all the time."""
    hands = [house.hand(f"w{number}") for number in range(2)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, threads=2, per_s=500.0, failing_every=9)
    return hands


def warned(house: House, word: str) -> str:
    """Whether health warns of something with that word; never a failure."""
    told = house.ask_patiently("health", level="full")
    assert told["status"] in ("pass", "warn")
    return str(told.get("output", "")) if word in told.get("output", "") else ""


def well(house: House) -> bool:
    """Whether health has nothing to say."""
    return bool(house.ask_patiently("health", level="full")["status"] == "pass")


@pytest.fixture
def state(build: Callable[..., House]) -> Iterator[tuple[House, Shelf]]:
    """A house whose state directory has little room."""
    house = build()
    with shelf(house.state, 4, "F1") as made:
        yield house.start(), made
        house.close()


@pytest.mark.fault("F1")
@pytest.mark.needs_root
def test_f1_a_full_state_directory_costs_the_copy_and_nothing_else(state: tuple[House, Shelf]) -> None:
    """Skipped, told and counted; a daemon that dies meanwhile goes on; with room it recovers by itself."""
    house, full = state
    hands = working(house)
    wait_for("there is a copy", (house.state / "checkpoint").exists, NOTICED_S, 0.05)
    with Watch(house):
        for _ in range(effort(1, 10)):
            full.fill()
            said = wait_for("it is told", lambda: warned(house, "state_enospc"), NOTICED_S, 0.05)
            assert "No space left on device" in said
            told = house.run_tool("health")
            assert (told.returncode, "state_enospc" in told.stdout) == (0, True)
            house.wait_reborn(house.kill_daemon())
            wait_for("it is told again", lambda: warned(house, "state_enospc"), NOTICED_S, 0.05)
            full.empty()
            emptied = time.monotonic()
            wait_for("it recovers", lambda: well(house), RECOVERY_S, 0.05)
            print(f"recovered after {time.monotonic() - emptied:.1f} s")
        finish(house, hands)
    totals = house.stats()["totals"]
    assert house.stop() == 0
    (house.runtime / "checkpoint").unlink()  # as after a reboot
    house.start()
    assert house.stats()["totals"] == totals


@pytest.fixture
def runtime(build: Callable[..., House]) -> Iterator[tuple[House, Shelf]]:
    """A house whose runtime directory is a small file system of its own."""
    house = build()
    with shelf(house.runtime, 32, "F1") as made:
        house.runtime.chmod(0o750)
        yield house.start(), made
        house.close()


def crowded(house: House, full: Shelf) -> list[Hand]:
    """So many breakers that the checkpoint should grow, and cannot; health warns, and they are served."""
    full.fill()
    crowd = [house.hand(f"c{number}") for number in range(CROWD)]
    for hand in crowd:
        hand.order("guard_many", 60.0, breaker=f"of-{hand.log.stem}", count=BREAKERS)
    wait_for("it is told", lambda: warned(house, "no room"), NOTICED_S, 0.05)
    return crowd


@pytest.mark.fault("F1")
@pytest.mark.needs_root
def test_f1_while_there_is_room_for_records_a_full_runtime_directory_is_a_warning(
    runtime: tuple[House, Shelf],
) -> None:
    """What happens is written behind the last snapshot; with room the next one is made by itself."""
    house, full = runtime
    crowd = crowded(house, full)
    pid = house.daemon_pid
    late = house.hand("late")
    late.order("guard", breaker="late")
    late.order("call", breaker="late", times=10)
    full.empty()
    emptied = time.monotonic()
    wait_for("it recovers", lambda: well(house), RECOVERY_S, 0.05)
    print(f"recovered after {time.monotonic() - emptied:.1f} s")
    assert house.kill_daemon() == pid
    house.wait_reborn(pid)
    for hand in (late, *crowd):
        assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("F1")
@pytest.mark.needs_root
def test_f1_a_daemon_for_whose_checkpoint_there_is_no_room_waits_for_it(
    runtime: tuple[House, Shelf],
) -> None:
    """It does not begin empty and does not end again and again: workers decide alone until there is room."""
    house, full = runtime
    crowd = crowded(house, full)
    hands = working(house)
    house.kill_daemon()
    wait_for("it waits for room", lambda: "waits for room" in house.logged(), NOTICED_S, 0.05)
    wait_for("they decide alone", lambda: all(hand.order("mode")["local"] for hand in hands), 5.0)
    until = time.monotonic() + effort(2.0, 30.0)
    wait_for("the length of the fault", lambda: time.monotonic() > until, 40.0, 0.1)
    full.empty()
    emptied = time.monotonic()
    house.wait_ready(RECOVERY_S)
    wait_for("it recovers", lambda: well(house), RECOVERY_S, 0.05)
    print(f"recovered after {time.monotonic() - emptied:.1f} s")
    assert house.logged().count("waits for room") == 1
    assert list(house.runtime.glob("*.bad*")) == []
    for hand in crowd:
        assert hand.leave() == 0
    wait_for("they obey", lambda: not any(hand.order("mode")["local"] for hand in hands), 10.0)
    finish(house, hands)


class Log:
    """Standard error of a house: somewhere that does not take anything, for a while."""

    def __init__(self, house: House, how: str) -> None:
        self.how = how
        self._reader = -1
        place = house.root / "log"
        if how == "full disk":
            self._shelf = contextlib.ExitStack()
            self.place = self._shelf.enter_context(shelf(place, 1, "F3"))
            self.writer = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        else:
            self._reader, self.writer = os.pipe()

    def begin(self) -> None:
        """From now on nothing can be written, or nobody reads what is."""
        if self.how == "full disk":
            self.place.fill()
        elif self.how == "nobody reads":
            os.set_blocking(self.writer, False)
            with contextlib.suppress(BlockingIOError):
                while os.write(self.writer, bytes(4096)):
                    pass
            os.set_blocking(self.writer, True)
        else:
            os.close(self._reader)
            self._reader = -1

    def close(self) -> None:
        """Let go of it."""
        os.close(self.writer)
        if self._reader >= 0:
            os.close(self._reader)
        if self.how == "full disk":
            self._shelf.close()


def run_with(house: House, log: Log) -> None:
    """Start breakerd with that standard error, or with none at all."""
    if log.how == "closed":
        program = "import os, sys; os.close(2); os.close(1); os.execv(sys.argv[1], sys.argv[1:])"
        house.prefix = (sys.executable, "-c", program)
    house.nursery = house.spawn(output=log.writer)
    house.wait_ready()


@pytest.mark.fault("F3")
@pytest.mark.parametrize("how", ["full disk", "nobody reads", "reader gone", "closed"])
def test_f3_a_log_that_takes_nothing_does_not_hold_up_the_supervisor(
    build: Callable[..., House], how: str
) -> None:
    """Hundreds of lines go nowhere: everybody is served at once, the same daemon goes on, all is counted."""
    house = build()
    log = Log(house, how)
    try:
        run_with(house, log)
        hands = working(house)
        for hand in hands:
            hand.order("guard", breaker="mail")
            hand.order("call", breaker="mail")
            hand.order("watch_mode")
        pid, nursery = house.daemon_pid, house.nursery_pid
        if how != "closed":
            log.begin()
        slowest = 0.0
        for number in range(effort(150, 2000)):  # each is a line or two
            asked = time.monotonic()
            action = "reset" if number % 2 else "force-open"
            house.ask("command", breaker="mail", action=action, reason="x" * 200)
            slowest = max(slowest, time.monotonic() - asked)
        print(f"slowest command {slowest * 1e3:.1f} ms")
        assert slowest <= 1.0
        assert (house.daemon_pid, house.nursery_pid) == (pid, nursery)
        assert [hand.order("mode")["changes"] for hand in hands] == [[], []], "the heartbeat never stopped"
        house.wait_reborn(house.kill_daemon())
        assert house.nursery_pid == nursery
        house.ask("command", breaker="mail", action="reset", reason="seen by the next life, too")
        finish(house, hands)
        house.signal_nursery(signal.SIGTERM)
        assert house.nursery is not None
        assert house.nursery.wait(8.0) == 0
    finally:
        house.close()
        log.close()


@pytest.mark.fault("F3")
@pytest.mark.needs_root
def test_f3_what_was_dropped_is_told_when_there_is_room_again(build: Callable[..., House]) -> None:
    """One sentence with their number, at most every ten seconds, and never a traceback."""
    house = build()
    log = Log(house, "full disk")
    try:
        run_with(house, log)
        hand = house.hand()
        hand.order("guard", breaker="mail")
        hand.order("call", breaker="mail")
        log.begin()
        for _ in range(60):
            house.ask("command", breaker="mail", action="force-open", reason="x" * 200)
            house.ask("command", breaker="mail", action="reset", reason="x" * 200)
        assert "of the log could not be written" in warned(house, "log")
        log.place.empty()
        house.ask("command", breaker="mail", action="force-open", reason="there is room")
        text = wait_for("it is told", lambda: _told(log.place.place / "log"), 12.0, 0.1)
        assert "Traceback" not in text
        assert "Logging error" not in text
        assert hand.leave() == 0
    finally:
        house.close()
        log.close()


def _told(path: Path) -> str:
    text = path.read_text(errors="replace")
    return text if "lines could not be written here" in text else ""
