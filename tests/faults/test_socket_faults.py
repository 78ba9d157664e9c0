"""Group D: the control socket is stale, taken, denied, flooded with garbage and starved of descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ipc import control, wire
from ipc.errors import SupervisorUnavailable
from tests.faults import rude
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.hostile import Inside
from tests.faults.judge import judge
from tests.live.house import (
    House,
    descriptors,
    memory_kib,
    percentile,
    spare_descriptors,
    unlimit_descriptors,
    wait_for,
)

pytestmark = pytest.mark.timeout(PATIENCE_S)

NOBODY: Final = 65_534
RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}
EXIT_CONFIGURATION: Final = 78


@pytest.mark.fault("D1")
def test_d1_a_stale_socket_is_replaced_and_workers_protect_themselves_meanwhile(house: House) -> None:
    """Everything is killed and the socket file is left: workers are local and patient, then attach again."""
    old = house.hand("old", count_connects=True)
    old.order("guard", breaker="database", failure_threshold=3, failure_rate=None, recovery_timeout=0.3)
    old.order("call", breaker="database", times=10)
    house.kill_all()
    assert stat.S_ISSOCK(os.stat(house.socket).st_mode)
    new = house.hand("new", count_connects=True, connect=False)
    new.order("guard", breaker="database", failure_threshold=3, failure_rate=None, recovery_timeout=0.3)
    before = new.order("attempts")["connects"]
    ended = new.order("call", breaker="database", how="fail", times=400, pause_s=0.005)
    assert ended["fail"] >= 3
    assert ended["refused"] > 300
    assert ended["slowest_s"] < 0.1
    assert new.order("attempts")["connects"] - before <= 25, "two seconds of back-off do not allow so many"
    absent: list[str] = []
    over = threading.Event()

    def knock() -> None:
        while not over.wait(0.0005):
            try:
                control.connect(house.socket).close()
            except SupervisorUnavailable as error:
                if error.reason not in ("refused", "full"):
                    absent.append(error.reason)

    knocker = threading.Thread(target=knock)
    knocker.start()
    try:
        house.start()
    finally:
        over.set()
        knocker.join()
    assert absent == []
    started = time.monotonic()
    for hand in (old, new):
        hand.order("guard", breaker="mail", **RULES_OFF)
    while len(house.workers()) < 2:
        for hand in (old, new):
            hand.order("call", breaker="mail", times=1)
        assert time.monotonic() - started < 5.0, "not attached again"


@pytest.mark.fault("D2")
@pytest.mark.parametrize("kind", ["a regular file", "a directory", "a symbolic link", "a FIFO"])
def test_d2_a_taken_path_is_a_configuration_error_and_nothing_is_deleted(
    build: Callable[..., House], kind: str
) -> None:
    """What is no socket at the socket's path is named, with its type, and left alone."""
    house = build()
    house.runtime.mkdir()
    if kind == "a regular file":
        Path(house.socket).write_text("precious")
    elif kind == "a directory":
        os.mkdir(house.socket)
    elif kind == "a symbolic link":
        os.symlink("/nowhere", house.socket)
    else:
        os.mkfifo(house.socket)
    before = os.lstat(house.socket)
    assert house.spawn().wait(10.0) == EXIT_CONFIGURATION
    after = os.lstat(house.socket)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert house.socket in house.logged()
    assert kind in house.logged()
    assert "Traceback" not in house.logged()


@pytest.mark.fault("D3")
def test_d3_a_foreign_server_keeps_its_path(build: Callable[..., House]) -> None:
    """A living server of somebody else at the path is not stolen."""
    house = build()
    house.runtime.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as foreign:
        foreign.bind(house.socket)
        foreign.listen()
        inode = os.stat(house.socket).st_ino
        assert house.spawn().wait(10.0) in (EXIT_CONFIGURATION, 100)
        assert house.socket in house.logged()
        assert os.stat(house.socket).st_ino == inode
        foreign.settimeout(2.0)
        foreign.accept()[0].close()  # breakerd's own look at it
        with rude.dial(house.socket):
            foreign.accept()[0].close()
    assert [name for name in os.listdir(house.runtime) if name.startswith("breakerd.sock.")] == []


@pytest.mark.fault("D5")
def test_d5_a_path_that_is_too_long_is_a_configuration_error(build: Callable[..., House]) -> None:
    """A socket path of more than 107 bytes ends the start, with the limit in the text."""
    house = build()
    house.runtime = house.root / ("d" * 100)
    assert house.spawn().wait(10.0) == EXIT_CONFIGURATION
    assert "107" in house.logged()
    assert "Traceback" not in house.logged()


@pytest.mark.fault("D6")
@pytest.mark.needs_root
def test_d6_a_worker_outside_the_group_is_local_and_says_so_once(house: House) -> None:
    """EACCES: the worker protects itself, warns once with the group it needs, and tries again much later."""
    hand = house.hand("stranger", uid=NOBODY, groups=[], count_connects=True)
    hand.order("guard", breaker="database", failure_threshold=3, failure_rate=None, recovery_timeout=0.2)
    ended = hand.order("call", breaker="database", how="fail", times=600, pause_s=0.005)
    assert ended["fail"] >= 3
    assert ended["refused"] > 300
    if effort(0, 1):
        hand.order("call", 60.0, breaker="database", times=700, pause_s=0.05)
    assert hand.order("attempts")["connects"] <= effort(1, 3)
    warnings = [line for line in hand.wrote().splitlines() if line.startswith("WARNING") and "group" in line]
    assert len(warnings) == 1, hand.wrote()
    assert str(os.stat(house.runtime).st_gid) in warnings[0]
    assert house.workers() == []
    assert hand.leave() == 0


@pytest.mark.fault("D7")
@pytest.mark.needs_root
def test_d7_a_user_without_the_right_is_denied_and_noted(house: House) -> None:
    """`reset` and its like by an ordinary user: ControlDenied, an audit line, no effect, still attached."""
    group = os.stat(house.socket).st_gid
    hand = house.hand("user", uid=NOBODY, groups=[group])
    hand.order("guard", breaker="database", failure_threshold=3, failure_rate=None)
    hand.order("call", breaker="database", how="fail", times=3)
    before = wait_for("open", lambda: _state(house, "database", "OPEN"), 3.0)
    commands: dict[str, dict[str, Any]] = {
        "reset": {}, "force_open": {"for_s": 5.0, "reason": "mine"}, "disable": {}, "metrics_only": {},
    }  # fmt: skip
    for verb, fields in commands.items():
        answer = hand.order("command", breaker="database", verb=verb, **fields)
        assert answer["error"] == "ControlDenied"
        assert "[control] commanders" in answer["text"]
        assert answer["took_s"] <= 0.25 + 0.1
    now = house.breaker("database")
    assert (now["state"], now["generation"], now["manual"]) == ("OPEN", before["generation"], None)
    assert house.logged().count("denied") == 4
    assert str(NOBODY) in house.logged()
    assert hand.order("call", breaker="database")["refused"] == 1
    assert [worker["pid"] for worker in house.workers()] == [hand.pid]
    assert hand.leave() == 0
    judge(house)


def _state(house: House, breaker: str, state: str) -> Any:
    found = house.breaker(breaker)
    return found if found["state"] == state else None


@pytest.mark.fault("D8")
def test_d8_garbage_closes_its_own_connection_and_nothing_else(house: House) -> None:
    """Noise, bent frames, absurd lengths, senseless requests: no error logged, flat memory, exact totals."""
    hand = house.hand()
    hand.order("load", breaker="beside", per_s=500.0, failing_every=10)
    pid = house.daemon_pid
    dice = random.Random(8)
    for data in rude.frames(dice, 300):
        rude.say(house.socket, data)
    before, open_before = memory_kib(pid), descriptors(pid)
    with rude.dial(house.socket) as polite:
        for number, data in enumerate(rude.frames(dice, effort(3000, 1_000_000))):
            rude.say(house.socket, data)
            if number % 100 == 0:
                polite.sendall(wire.request(number, "version"))
                assert wire.FrameReader().feed(polite.recv(65_536))[0].request == number
    assert house.daemon_pid == pid
    assert memory_kib(pid) - before <= 6 * 1024
    wait_for("descriptors are flat", lambda: descriptors(pid) <= open_before + 1, 3.0)
    bad = [
        line for line in house.logged().splitlines() if line.startswith(("ERROR", "CRITICAL", "Traceback"))
    ]
    assert bad == []
    assert hand.order("unload")["failed"] == []
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("D10")
def test_d10_clients_that_never_read_are_dropped(house: House) -> None:
    """Sixteen clients ask for a long answer and read nothing: closed, memory back, others unhindered."""
    hand = house.hand()
    hand.order("guard_many", breaker="b", count=900)
    wait_for("900 breakers", lambda: len(house.ask("breakers")["breakers"]) == 900, 5.0)
    pid = house.daemon_pid
    alone = [_health_s(house) for _ in range(200)]
    house.ask("breakers")
    before = memory_kib(pid)
    rude_ones = [rude.dial(house.socket) for _ in range(16)]
    for number, one in enumerate(rude_ones):
        one.sendall(wire.request(number, "breakers"))
    asked = time.monotonic()
    beside: list[float] = []
    most = 0
    while time.monotonic() - asked < 1.5:
        beside.append(_health_s(house))
        most = max(most, memory_kib(pid))
    for one in rude_ones:
        assert rude.closed_within(one, 0.0) is not None, "still open after 1.5 s"
        assert not _is_whole(rude.listen(one)), "the answer was not longer than the buffers"
        one.close()
    assert percentile(beside[50:], 0.99) <= percentile(alone, 0.99) + 0.05
    assert most - before <= 16 * 1024
    wait_for("memory is back", lambda: memory_kib(pid) - before <= 8 * 1024, 3.0)
    assert hand.leave() == 0


def _health_s(house: House) -> float:
    asked = time.monotonic()
    house.ask("health", level="live")
    return time.monotonic() - asked


def _is_whole(data: bytes) -> bool:
    frames = wire.FrameReader().feed(data)
    return bool(frames) and frames[-1].last


@pytest.mark.fault("D12")
def test_d12_a_permit_whose_answer_was_lost_is_given_again_not_twice(house: House) -> None:
    """The same ask gets the same permit; an asker that vanished before the answer holds none."""
    settings: dict[str, Any] = {
        "failure_threshold": 3, "failure_rate": None, "recovery_timeout": 0.1, "recovery_jitter": 0.0,
        "permitted_trials": 1, "trial_timeout": 20.0,
    }  # fmt: skip
    hand = house.hand()
    inside = Inside(hand.pid)
    rows: set[int] = set()
    for number in range(effort(12, 500)):
        name = f"b{number}"
        hand.order("guard", breaker=name, **settings)
        hand.order("call", breaker=name, how="fail", times=3)
        wait_for("half-open", lambda name=name: _state(house, name, "HALF_OPEN"), 3.0)  # type: ignore[misc]
        row = next(row for row in inside.published() if row not in rows)
        rows.update(inside.published())
        asked = {"row": row, "ask": (1 << 40) + number}
        # The asker vanishes: sometimes before the daemon answers, sometimes with the answer unread.
        hand.order("permit", vanish=True, wait_s=1.0 if number % 2 else 0.0, **asked)
        first = hand.order("permit", **asked)
        again = hand.order("permit", **asked)
        assert first["permit"] is not None
        assert again == {**first, "lease_s": again["lease_s"]}
        other = hand.order("permit", **{**asked, "ask": asked["ask"] + 1000})
        assert other["permit"] is None, "a second trial beside the first"
        assert house.breaker(name)["trials"]["in_flight"] == 1
        if number == 0:
            house.wait_reborn(house.kill_daemon())
            assert hand.order("permit", **asked)["permit"] == first["permit"]
    hand.kill()


@pytest.mark.fault("D13")
def test_d13_a_supervisor_without_descriptors_says_busy_and_serves_on(house: House) -> None:
    """At its descriptor limit: newcomers are told so, the others are served, and it recovers at once."""
    hand = house.hand()
    hand.order("load", breaker="beside", per_s=500.0, failing_every=10)
    pid = house.daemon_pid
    with contextlib.ExitStack() as kept:
        polite = kept.enter_context(rude.dial(house.socket))
        before = figures_by(polite)["supervisor"]["accept_emfile"]
        spare_descriptors(pid, 2)
        with contextlib.ExitStack() as filling:
            # The copy to disk has a descriptor for a moment each second: what it leaves is filled up too.
            busy = in_a_row = 0
            while in_a_row < 5 and busy < 50:
                full = b"busy" in knock(filling, house.socket)
                busy, in_a_row = busy + full, in_a_row + 1 if full else 0
            assert in_a_row == 5
            answers = [knock(filling, house.socket) for _ in range(20)]
            refused = sum(b"busy" in answer for answer in answers)
            assert refused >= 15
            assert figures_by(polite)["supervisor"]["accept_emfile"] == before + busy + refused
        recovered = time.monotonic()
        wait_for("it accepts again", house.answers, 1.0)
        assert time.monotonic() - recovered <= 0.3
    unlimit_descriptors(pid)
    assert house.daemon_pid == pid
    assert "no free descriptor" in house.ask("health", level="full")["output"]
    assert hand.order("unload")["failed"] == []
    assert hand.leave() == 0
    judge(house)


def knock(kept: contextlib.ExitStack, path: str) -> bytes:
    """Ask on a new connection, which stays open; the answer must come at once, whatever it is."""
    asked = time.monotonic()
    connection = kept.enter_context(rude.dial(path))
    with contextlib.suppress(BrokenPipeError):  # it has answered and closed before it was asked
        connection.sendall(wire.request(3, "version"))
    answer = connection.recv(65_536)
    assert time.monotonic() - asked <= 0.5
    return answer


def figures_by(connection: socket.socket) -> Any:
    """The figures, asked for on a connection that is open already."""
    connection.sendall(wire.request(4, "stats"))
    frames = wire.FrameReader().feed(connection.recv(65_536))
    return json.loads(frames[0].body)


@pytest.mark.fault("D1")
def test_d1_a_refused_connection_costs_a_call_next_to_nothing(house: House) -> None:
    """While the socket is dead no call is held up for longer than an attempt may take."""
    house.kill_all()
    hand = house.hand("new", connect=False)
    hand.order("guard", breaker="database", **RULES_OFF)
    hand.order("call", breaker="database", times=10)
    hand.order("load", breaker="many", threads=2, per_s=2000.0)
    time.sleep(1.5)  # several attempts fall into this time
    done = hand.order("unload")
    assert done["failed"] == []
    assert done["slow"] <= done["calls"] / 100
    assert hand.leave() == 0
