"""Managed workers while what is around them is killed, abused or starved: exact, and not restarted for it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from ipc import wire
from tests.faults import rude
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.groups import Group
from tests.faults.judge import Watch
from tests.faults.managed import NAMES, calling, dismiss, keeping, pids, processes
from tests.faults.test_socket_faults import figures_by, knock
from tests.live.house import (
    House,
    cpu_s,
    descriptors,
    gone,
    spare_descriptors,
    unlimit_descriptors,
    wait_for,
)

pytestmark = pytest.mark.timeout(PATIENCE_S)

NOBODY: Final = 65_534
GONE_S: Final = 4.0
"""After the nursery's death: its workers get SIGTERM, the daemon waits 1.5 s for them and ends."""
RECOVERY_S: Final = 5.0
EXIT_CONFIGURATION: Final = 78


def restarts(house: House) -> dict[str, int]:
    """How often each managed process was started again."""
    return {title: one["managed"]["restarts"] for title, one in processes(house).items()}


@pytest.mark.fault("A1")
def test_a1_a_killed_daemon_does_not_touch_managed_workers(build: Callable[..., House]) -> None:
    """Again and again under load: the same processes go on, and every outcome is counted once."""
    dice = random.Random(1)
    house = keeping(build).start()
    calling(house)
    before = pids(house)
    with Watch(house):
        for _ in range(effort(4, 100)):
            time.sleep(dice.uniform(0.1, 0.6))  # the instant of the kill is random
            house.wait_reborn(house.kill_daemon())
        calling(house)
        assert (pids(house), restarts(house)) == (before, dict.fromkeys(NAMES, 0))
        dismiss(house)


@pytest.mark.fault("A5")
def test_r11_a_worker_and_others_killed_together_lose_nothing_while_one_holds_its_ring(
    build: Callable[..., House],
) -> None:
    """Worker and daemon, or worker and nursery, in either order: whoever is left counts it to its end."""
    dice = random.Random(11)
    house = keeping(build).start()
    for number in range(effort(4, 60)):
        calling(house)
        daemon, nursery, victim = house.daemon_pid, house.nursery_pid, pids(house)[dice.choice(NAMES)]
        other = daemon if number % 2 else nursery
        doomed = [other, victim]
        dice.shuffle(doomed)
        os.kill(doomed[0], signal.SIGKILL)
        time.sleep(dice.uniform(0.0, 0.005))  # the instant of the second kill is random
        os.kill(doomed[1], signal.SIGKILL)
        if other == daemon:
            house.wait_reborn(daemon)
        else:
            wait_for("the daemon is gone", partial(gone, daemon), GONE_S)
            house.start()
    calling(house)
    assert dismiss(house)["lost"]["segment_lost"] == 0


@pytest.mark.fault("B1")
def test_b1_a_managed_worker_killed_while_the_nursery_is_stopped_is_counted_at_once(
    build: Callable[..., House],
) -> None:
    """The daemon sees its end by itself; the nursery reaps it and starts the next one when it moves again."""
    house = keeping(build).start()

    def kill(name: str) -> None:
        victim = pids(house)[name]
        house.signal_nursery(signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        wait_for("it is retired", lambda: house.worker(victim) is None, 3.0)
        house.signal_nursery(signal.SIGCONT)
        wait_for("the next one lives", lambda: pids(house).get(name, victim) != victim, RECOVERY_S)
        assert processes(house)[name]["managed"]["last_exit"] == "killed by SIGKILL"

    for turn in range(effort(2, 30)):
        calling(house)
        kill(NAMES[turn % 2])
    calling(house)
    dismiss(house)


def say_garbage(house: House) -> None:
    """D8: noise."""
    for data in rude.frames(random.Random(8), effort(500, 100_000)):
        rude.say(house.socket, data)


def command_without_right(house: House) -> None:
    """D7 and D6: an ordinary user tries to command breakers and workers; another one may not even ask."""
    user = house.hand("user", uid=NOBODY, groups=[os.stat(house.socket).st_gid])
    for name in NAMES:
        answer = user.order("ask", verb="command", breaker=name, action="force-open", reason="mine")
        assert answer["code"] == "denied"
    for verb in ("stop", "restart"):
        answer = user.order("ask", verb=verb, name="all")
        assert answer["code"] == "denied"
    stranger = house.hand("stranger", uid=NOBODY, groups=[])
    assert stranger.order("ask", verb="version")["code"] == "SupervisorUnavailable"
    for hand in (user, stranger):
        assert hand.leave() == 0


def start_another(house: House) -> None:
    """D3: a second breakerd for the same directory, with the same workers."""
    assert house.spawn().wait(10.0) == 100


def say_nothing(house: House) -> None:
    """So many connections that say nothing that the oldest of them are dropped."""
    kept = [rude.dial(house.socket) for _ in range(300)]
    wait_for("others are served", house.answers, 5.0)
    for connection in kept:
        connection.close()


def use_up_descriptors(house: House) -> None:
    """D13: at its limit the daemon turns newcomers away, and goes on counting who is attached."""
    pid = house.daemon_pid
    with rude.dial(house.socket) as polite, contextlib.ExitStack() as filling:
        before = successes(polite)
        spare_descriptors(pid, 2)
        wait_for("newcomers are told", lambda: b"busy" in knock(filling, house.socket), 5.0)
        wait_for("all of them are counted", lambda: rose(before, successes(polite)), 5.0, 0.02)
    unlimit_descriptors(pid)
    wait_for("others are served", house.answers, 5.0)


def successes(connection: socket.socket) -> dict[str, int]:
    """Successes by breaker, asked for on a connection that is open already."""
    breakers = figures_by(connection)["breakers"]
    return {full.rpartition("/")[2]: one["outcomes"]["success"] for full, one in breakers.items()}


def rose(before: dict[str, int], now: dict[str, int]) -> bool:
    """Whether each of the workers has been counted further."""
    return all(now[name] > before[name] for name in NAMES)


def never_read(house: House) -> None:
    """D10: answers longer than any buffer, asked for by sixteen who read nothing; they are dropped."""
    hand = house.hand("many")
    hand.order("guard_many", breaker="b", count=900)
    wait_for("there is much to tell", lambda: len(house.ask("breakers")["breakers"]) > 900, 5.0)
    deaf = [rude.dial(house.socket) for _ in range(16)]
    for number, one in enumerate(deaf):
        one.sendall(wire.request(number, "breakers"))
    for one in deaf:
        assert rude.closed_within(one, 1.5) is not None
        one.close()
    assert hand.leave() == 0


@pytest.mark.fault("D8")
@pytest.mark.needs_root
def test_d_managed_workers_do_not_notice_what_is_done_to_the_socket(build: Callable[..., House]) -> None:
    """D3, D6, D7, D8, D10, D13 under load: the same processes, no restart, every outcome counted."""
    house = keeping(build).start()
    calling(house)
    before = pids(house)
    open_before = descriptors(house.nursery_pid)
    with Watch(house):
        for abuse in (
            say_garbage, command_without_right, start_another, say_nothing, use_up_descriptors, never_read,
        ):  # fmt: skip
            abuse(house)
            assert (pids(house), restarts(house)) == (before, dict.fromkeys(NAMES, 0)), abuse.__name__
            calling(house)
    wait_for(
        "they have settled", lambda: {one["state"] for one in processes(house).values()} == {"RUNNING"}, 3.0
    )
    wait_for("descriptors are flat", lambda: descriptors(house.nursery_pid) <= open_before, 3.0)
    dismiss(house)


@pytest.mark.fault("D12")
def test_d12_a_managed_workers_permit_whose_answer_was_lost_is_given_again_not_twice(
    build: Callable[..., House],
) -> None:
    """Its own calls are refused meanwhile, it is not restarted, and the next daemon knows the permit."""
    house = keeping(
        build, "[breakers.mail]\npermitted_trials = 1\nsuccesses_to_close = 1000\ntrial_timeout = 60\n"
    )
    assert house.config is not None
    door = str(house.root / "door")
    mail = f'calls"\nargs = ["{house.ledgers}", "mail", 300]'
    asking = f'answers_for_permits"\nargs = ["{house.ledgers}", "mail", 300, "{door}"]'
    assert mail in house.config.read_text()
    house.configure(house.config.read_text().replace(mail, asking))
    house.start()
    calling(house)
    before = pids(house)
    house.ask("command", breaker="mail", action="force-open", for_s=60, reason="test")
    house.ask("command", breaker="mail", action="enable")
    asked = {"row": 0, "ask": 1 << 40}

    def permit(**more: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(door)
            end.sendall(json.dumps({**asked, **more}).encode() + b"\n")
            return json.loads(end.makefile().readline())

    def granted() -> Any:
        permit(vanish=True)
        answer = permit()
        return answer if answer["permit"] is not None else None

    first = wait_for("it is free for a moment", granted, 5.0)
    for turn in range(2):
        again = permit()
        assert again == {**first, "lease_s": again["lease_s"]}
        assert permit(ask=asked["ask"] + 1 + turn)["permit"] is None
        assert house.breaker("mail")["trials"]["in_flight"] == 1
        if not turn:
            house.wait_reborn(house.kill_daemon())
    house.ask("command", breaker="mail", action="reset", reason="test")
    calling(house)
    assert (pids(house), restarts(house)) == (before, dict.fromkeys(NAMES, 0))
    dismiss(house)


@pytest.mark.fault("D1")
def test_d1_after_everything_was_killed_workers_come_back_with_a_stale_socket(
    build: Callable[..., House],
) -> None:
    """The workers end with their nursery; the next one replaces the socket's file and starts its own."""
    house = keeping(build).start()
    for _ in range(effort(1, 20)):
        calling(house)
        old = set(pids(house).values())
        house.kill_all()
        wait_for("no worker is left", partial(gone, *old), GONE_S)
        assert Path(house.socket).is_socket()
        house.start()
        calling(house)
        assert not old & set(pids(house).values())


def taken_by_a_file(house: House, _: contextlib.ExitStack) -> None:
    """D2."""
    house.runtime.mkdir()
    Path(house.socket).write_text("precious")


def taken_by_a_server(house: House, kept: contextlib.ExitStack) -> None:
    """D3."""
    house.runtime.mkdir()
    foreign = kept.enter_context(socket.socket(socket.AF_UNIX))
    foreign.bind(house.socket)
    foreign.listen()


def too_long(house: House, _: contextlib.ExitStack) -> None:
    """D5."""
    house.runtime = house.root / ("d" * 100)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(taken_by_a_file, marks=pytest.mark.fault("D2")),
        pytest.param(taken_by_a_server, marks=pytest.mark.fault("D3")),
        pytest.param(too_long, marks=pytest.mark.fault("D5")),
    ],
)
def test_d_where_breakerd_cannot_listen_no_worker_is_started(
    build: Callable[..., House], spoil: Callable[[House, contextlib.ExitStack], None]
) -> None:
    """The start ends with its reason before anybody of the configuration has run a line."""
    house = keeping(build)
    with contextlib.ExitStack() as kept:
        spoil(house, kept)
        assert house.spawn().wait(10.0) in (EXIT_CONFIGURATION, 100)
    assert list(house.ledgers.iterdir()) == []
    assert "Traceback" not in house.logged()


@pytest.mark.fault("F7")
@pytest.mark.needs_root
def test_f7_a_worker_that_cannot_be_forked_waits_and_is_not_given_up(build: Callable[..., House]) -> None:
    """No process to be had: status and health tell, the others go on; later it comes by itself."""
    house = keeping(build).start()
    calling(house)
    victim, other = (pids(house)[name] for name in NAMES)
    with Group("pids", "F7") as group:
        group.tasks(0).add(house.nursery_pid)
        os.kill(victim, signal.SIGKILL)
        said = wait_for("health says so", lambda: _cannot(house), RECOVERY_S, 0.05)
        assert "cannot be started" in said
        before, seconds = cpu_s(house.nursery_pid), effort(6.0, 60.0)
        until = time.monotonic() + seconds
        wait_for("the length of the fault", lambda: time.monotonic() > until, 70.0, 0.1)
        assert cpu_s(house.nursery_pid) - before < seconds / 10
        assert processes(house)[NAMES[0]]["state"] == "STARTING"
        assert pids(house) == {NAMES[1]: other}
        group.tasks(None)
        wait_for("it is back", lambda: set(pids(house)) == set(NAMES), RECOVERY_S, 0.05)
    calling(house)
    assert house.ask("health", level="full")["status"] == "pass"
    assert house.logged().count("cannot be started") == 1
    dismiss(house)


def _cannot(house: House) -> str:
    found: list[dict[str, Any]] = house.ask("health", level="full")["checks"].get(f"managed:{NAMES[0]}", [])
    return next((one["output"] for one in found if "waits to be started" in one["output"]), "")
