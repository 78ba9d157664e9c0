"""Managed workers of a real breakerd: counted exactly whoever is killed, kept alive, ended in order."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import could_not_run
from tests.faults.effort import effort
from tests.faults.judge import Watch, judge
from tests.live.house import House, alive, gone, wait_for

Build = Callable[..., House]
TARGETS = "tests.live.managed_targets"
QUICK = "backoff_s = 0.01\nbackoff_max_s = 0.05\nmax_restarts = 100000\nstart_s = 0.0\n"
SLACK_S = 0.15
"""What a loaded machine with two cores may add to a measured time."""


def table(name: str, what: str, *args: object, **more: object) -> str:
    """One `[workers.NAME]`."""
    given = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"args": list(args), **more}.items())
    return (
        f'[workers.{name}]\ntarget = "{TARGETS}:{what}"\n{QUICK if "max_restarts" not in more else ""}{given}'
    )


def configured(build: Build, *tables: str) -> House:
    """A running house with these workers; `LEDGERS` in them is its place for ledgers."""
    house = build()
    house.configure("".join(tables).replace("LEDGERS", str(house.ledgers)))
    return house.start()


def managed(house: House) -> dict[str, int]:
    """Title -> pid of the managed processes that live now."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(house.nursery_pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() not in ("python", "python3", "breakerd") and alive(child.pid):
                    found[child.name()] = child.pid
    return found


def wait_managed(house: House, *titles: str, seconds: float = 10.0) -> dict[str, int]:
    """Wait until exactly these live and are attached; their pids."""

    def there() -> dict[str, int]:
        found = managed(house)
        attached = {worker["pid"] for worker in house.workers()}
        return found if set(found) == set(titles) and set(found.values()) <= attached else {}

    return wait_for(f"{', '.join(titles)} work", there, seconds, 0.02)


def counted(house: House) -> int:
    """Successes so far."""
    return int(house.stats()["totals"]["outcomes"]["success"])


def wait_traffic(house: House, more_than: int) -> None:
    """Wait until so many successes are counted."""
    wait_for("traffic", lambda: counted(house) > more_than, 5.0)


def wait_gone(*pids: int) -> None:
    """Wait until none of these processes lives."""
    wait_for("all are gone", lambda: gone(*pids), 5.0)


def retire(house: House) -> None:
    """Ask every managed worker to end: one with a transient table stays away then."""

    def gone() -> bool:
        for pid in managed(house).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return not managed(house)

    wait_for("all have retired", gone, 10.0, 0.05)


def test_a_managed_worker_finds_its_supervisor_and_is_counted_exactly(build: Build) -> None:
    """Nothing in its code says where; it is known by its title."""
    house = configured(
        build, table("web", "calls", "LEDGERS", "web", 2000, False, count=2, restart="transient")
    )
    pids = wait_managed(house, "web:1", "web:2")
    names = {worker["name"]: worker["pid"] for worker in house.workers()}
    assert names == pids
    wait_traffic(house, 1000)
    retire(house)
    judge(house)
    assert "killed" not in house.logged()


@pytest.mark.fault("A1")
def test_a1_whoever_is_killed_is_back_and_everything_is_counted(build: Build) -> None:
    """Managed workers and the daemon are killed -9 under load, at random, alone and together."""
    dice = random.Random(5)
    titles = ("a:1", "a:2", "b")
    house = configured(
        build,
        table("a", "calls", "LEDGERS", "a", 1500, count=2, restart="transient"),
        table("b", "calls", "LEDGERS", "b", 3000, restart="transient"),
    )
    wait_managed(house, *titles)
    with Watch(house):
        for _ in range(effort(8, 200)):
            time.sleep(dice.uniform(0.05, 0.6))  # the instant of the kill is random
            victims = dice.sample(sorted(managed(house).values()), dice.randint(0, 2))
            if dice.random() < 0.6:
                victims.append(house.daemon_pid)
            dice.shuffle(victims)
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        wait_managed(house, *titles)
        retire(house)
        judge(house)


@pytest.mark.fault("A1")
def test_a1_a_killed_nursery_takes_its_workers_along_and_loses_nothing(build: Build) -> None:
    """The kernel ends them, the daemon counts them to their ends, and the next start continues exactly."""
    dice = random.Random(6)
    house = configured(build, table("web", "calls", "LEDGERS", "web", 3000, count=3, restart="transient"))
    titles = ("web:1", "web:2", "web:3")
    for _ in range(effort(4, 100)):
        pids = wait_managed(house, *titles)
        before = counted(house)
        wait_traffic(house, before + 200)
        time.sleep(dice.uniform(0.0, 0.3))  # the instant of the kill is random
        daemon, nursery = house.daemon_pid, house.nursery_pid
        os.kill(nursery, signal.SIGKILL)
        wait_gone(daemon, *pids.values())
        house.start()
    wait_managed(house, *titles)
    retire(house)
    judge(house)


def test_a_stopped_daemon_delays_no_worker(build: Build) -> None:
    """A worker that is killed while the daemon hangs is back at once."""
    house = configured(build, table("web", "calls", "LEDGERS", "web", 100))
    pid = wait_managed(house, "web")["web"]
    daemon, nursery = house.daemon_pid, house.nursery_pid
    os.kill(daemon, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)

        def again() -> bool:
            return any(
                child.name() == "web" and child.pid != pid for child in psutil.Process(nursery).children()
            )

        wait_for("another web", again, 1.0 + SLACK_S)
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_managed(house, "web")


def test_a_worker_that_always_fails_delays_no_daemon(build: Build) -> None:
    """While one is started again and again, a killed daemon is back as always."""
    house = configured(build, table("bad", "fails"), table("good", "calls", "LEDGERS", "good", 100))
    house.wait_reborn(house.kill_daemon(), 3.0)
    wait_for("good works", lambda: counted(house) > 0, 5.0)
    assert house.stop() == 0


def test_one_that_is_given_up_leaves_the_others_alone(build: Build) -> None:
    """FATAL, said once in the log; the supervisor and the others go on."""
    house = configured(
        build,
        table("bad", "fails", max_restarts=2, backoff_s=0.01),
        table("good", "calls", "LEDGERS", "good", 100, restart="transient"),
    )
    wait_for("given up", lambda: "bad ended more than 2 times in 60 s: given up" in house.logged(), 10.0)
    assert house.logged().count("bad (pid") == 3
    wait_managed(house, "good")
    retire(house)
    judge(house)


def test_one_that_escalates_ends_everything_in_order(build: Build) -> None:
    """Exit code 71, by which systemd starts all of it again; the others were asked before the daemon."""
    house = build()
    house.configure(
        table("good", "calls", str(house.ledgers), "good", 100)
        + table("bad", "fails", max_restarts=1, backoff_s=0.5, beyond="escalate")
    )
    house.nursery = house.spawn()
    assert house.nursery.wait(20.0) == 71
    logged = house.logged()
    assert "bad failed too often: everything is stopped" in logged
    assert "good (pid" in logged
    assert not os.path.exists(house.socket)


def test_an_end_waits_for_the_workers_in_reverse(build: Build) -> None:
    """One SIGTERM: each in its turn, who ignores it is killed after its time, and all are counted."""
    house = configured(
        build,
        table("first", "calls", "LEDGERS", "first", 1000),
        table("rude", "ignores", "rude", stop_timeout_s=0.5),
        table("last", "calls", "LEDGERS", "last", 1000),
    )
    wait_managed(house, "first", "rude", "last")
    began = time.monotonic()
    assert house.stop() == 0
    assert 0.5 <= time.monotonic() - began <= 2.5 + SLACK_S
    ends = [line.split()[2] for line in house.logged().splitlines() if "breakerd.wards" in line]
    assert ends == ["last", "rude", "first"]
    house.configure("")
    house.start()
    judge(house)


@pytest.mark.fault("A9")
def test_a9_asked_twice_it_waits_for_nobody(build: Build) -> None:
    """With a worker that ignores signals: gone within 100 ms, nothing of it is left, and still exact."""
    house = configured(
        build,
        table("web", "calls", "LEDGERS", "web", 1000),
        table("rude", "ignores", "rude", stop_timeout_s=60),
    )
    pids = wait_managed(house, "web", "rude")
    house.signal_nursery(signal.SIGTERM)
    time.sleep(0.2)  # both would otherwise be one wake-up of the nursery, which must count them too
    second = time.monotonic()
    house.signal_nursery(signal.SIGTERM)
    assert house.nursery is not None
    house.nursery.wait(5.0)
    assert time.monotonic() - second <= 0.1 + SLACK_S
    wait_gone(*pids.values())
    house.configure("")
    house.start()
    judge(house)


@pytest.mark.fault("A5")
def test_a5_an_orphan_that_ignores_signals_keeps_nobody_away(build: Build) -> None:
    """Kill -9 the nursery: the next start serves within 3 s although the orphan lives; it held nothing."""
    house = configured(build, table("rude", "ignores", "rude"), table("web", "calls", "LEDGERS", "web", 1000))
    pids = wait_managed(house, "rude", "web")
    before = house.nursery_pid
    held = {path for pid in pids.values() for path in descriptors(pid)}
    assert not [
        path for path in held if "breakerd.lock" in path or "pulse" in path or "breakerd-table" in path
    ]
    for pid in pids.values():
        # Its own segment, twice at most: the one before it was attached, and the one since.
        assert sum("breakerd-segment" in path for path in descriptors(pid)) <= 2
        assert not [path for path in descriptors(pid) if path.startswith("socket:")]
    os.kill(before, signal.SIGKILL)
    started = time.monotonic()
    house.nursery = house.spawn()
    wait_for("the next serves", lambda: serves(house, house.nursery.pid if house.nursery else 0), 5.0)
    assert time.monotonic() - started <= 3.0 + SLACK_S
    assert alive(pids["rude"])
    try:
        wait_for("the orphan is back", lambda: house.worker(pids["rude"]), 5.0)
        wait_managed(house, "rude", "web")
    finally:
        os.kill(pids["rude"], signal.SIGKILL)
    assert house.stop(30.0) == 0


def serves(house: House, nursery: int) -> bool:
    """True if a daemon of this nursery answers."""
    return house.answers() and house.ask_patiently("version")["nursery_pid"] == nursery


def descriptors(pid: int) -> list[str]:
    """What the process has open."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def test_the_watchdog_is_fed_while_workers_end_without_a_daemon(build: Build, tmp_path: Path) -> None:
    """The daemon fails while a worker lives: the nursery goes on, feeds the watchdog, and ends in order."""
    beats: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0bkd-{os.getpid()}")
        threading.Thread(target=_hear, args=(manager, beats), daemon=True).start()
        house = build(NOTIFY_SOCKET=f"@bkd-{os.getpid()}", WATCHDOG_USEC="400000")
        house.configure(table("rude", "ignores", "rude", stop_timeout_s=2))
        house.start()
        wait_managed(house, "rude")
        daemon = house.daemon_pid
        os.kill(daemon, signal.SIGSEGV)
        wait_gone(daemon)
        last = time.monotonic()
        assert house.nursery is not None
        assert house.nursery.poll() is None
        house.nursery.terminate()
        assert house.nursery.wait(15.0) == 0
    late = [beat for beat in beats if beat > last + 0.5]
    assert len(late) >= 5
    assert max(b - a for a, b in itertools.pairwise(late)) < 0.4


def _hear(manager: socket.socket, beats: list[float]) -> None:
    """Note when WATCHDOG=1 came; whatever else comes is read and closed."""
    with contextlib.suppress(OSError):
        while True:
            data, numbers, *_ = socket.recv_fds(manager, 4096, 8)
            for number in numbers:
                os.close(number)
            if data == b"WATCHDOG=1":
                beats.append(time.monotonic())


def test_a_reload_restarts_only_what_has_changed(build: Build) -> None:
    """By the diff of the tables: the others do not notice."""
    same, count = table("same", "calls", "LEDGERS", "same", 200), "count = 2\n"
    many = table("many", "calls", "LEDGERS", "many", 200)
    house = configured(build, same, many + count, table("other", "calls", "LEDGERS", "o", 200))
    before = wait_managed(house, "same", "many:1", "many:2", "other")
    changed = (
        same + many + "count = 3\n" + table("other", "calls", "LEDGERS", "o", 300) + table("new", "fails")
    )
    house.configure(changed.replace("LEDGERS", str(house.ledgers)))
    assert house.run_tool("reload").returncode == 0
    wait_for(
        "other has changed", lambda: managed(house).get("other", before["other"]) != before["other"], 5.0
    )
    wait_for("the third", lambda: "many:3" in managed(house), 5.0)
    after = managed(house)
    assert [after[name] for name in ("same", "many:1", "many:2")] == [
        before[name] for name in ("same", "many:1", "many:2")
    ]
    house.wait_reborn(house.kill_daemon())
    assert managed(house)["same"] == before["same"]


def test_as_pid_1_it_reaps_orphans_and_loses_no_exit_code(build: Build, tmp_path: Path) -> None:
    """In a container: orphans of a worker become the nursery's children, and are not taken for workers."""
    if os.geteuid() != 0:
        could_not_run("pid-1", "it needs root")
    house = build()
    house.configure(table("parent", "leaves_orphans", str(tmp_path), max_restarts=3, backoff_s=0.05))
    house.prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    house.start()
    wait_for("given up", lambda: "parent ended more than 3 times" in house.logged(), 10.0)
    assert house.logged().count("ended: exit code 7") == 4
    wait_for("orphans have begun", lambda: len(list(tmp_path.iterdir())) == 4 * 5, 5.0)
    nursery = psutil.Process(house.nursery.pid if house.nursery else 0).children()[0]
    wait_for(
        "orphans are reaped",
        lambda: not [one for one in nursery.children() if one.status() == psutil.STATUS_ZOMBIE],
        5.0,
    )
    assert sys.platform == "linux"
