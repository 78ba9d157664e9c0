"""The replayer as a program: killed anywhere, beside applications that replay too, over their dead bodies."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.dying import deaths
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.homes import Home
from tests.faults.shelves import shelf
from tests.faults.talkers import handler, memory, programs, read, wait_until
from tests.servers import Postgres
from workers.memory import replay, replay_post
from workers.memory.cache import LocalCache
from workers.memory.leases import LEASES, MANAGED, STILL_S, MovingLock
from workers.memory.locks import ProcessLock
from workers.memory.records import Found
from workers.memory.replay_post import Layer, Post
from workers.memory.spool import Spool
from workers.memory.store import Store

pytestmark = pytest.mark.timeout(PATIENCE_S)

TAKEN_OVER_S: Final = 8.0
"""In what time somebody must go on where a replayer died."""
KILLS: Final = effort(8, 100)


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """One on each database."""
    made = Home(tmp_path, request.getfixturevalue("postgres") if request.param == "postgres" else None)
    yield made
    made.close()


# --- one that dies ------------------------------------------------------------------------------------


@pytest.mark.fault("G11")
@pytest.mark.fault("S14")
@pytest.mark.parametrize("module", [replay, replay_post], ids=lambda one: one.__name__[15:])
def test_g11_a_managed_replayer_that_dies_before_any_line(tmp_path: Path, module: ModuleType) -> None:
    """Dead at every line in turn: the next one brings in everything that was left, one row each."""
    home = Home(tmp_path, None)
    everything: list[str] = []

    def prepare() -> None:
        everything.extend(home.fill(3))

    def prepared() -> Home:
        return home

    prepare()
    for _ in deaths(module, prepared, _three_turns, every=effort(5, 1)):
        there = set(home.rows()) | {one.id for one in Spool(str(tmp_path / "spool"), 1 << 30).next_batch(99)}
        assert there == set(everything)
        _three_turns(home)
        assert home.rows() == everything
        assert home.left() == []
        prepare()
    assert home.rows() == everything
    home.close()


def _three_turns(home: Home) -> None:
    """Bring in what there is, with the times that a post asks for passing at once."""
    config, now = home.config(), 0.0
    with Store(config) as store:
        guard = handler().get_circuit_breaker("database")
        layer = Layer(config, store, LocalCache(10), guard)
        post = Post(layer, config.spool_directory, lambda _step: None, lambda: now)
        for _ in range(3):
            post.turn()
            now += 2.0
        post.close()


@pytest.mark.fault("G11")
@pytest.mark.fault("L6")
def test_g11_killed_and_started_again_in_the_middle(home: Home) -> None:
    """Kill -9 at any time while it brings in: each life goes on where the last one ended, one row each."""
    said = home.fill(KILLS * 110)
    dice = random.Random(4711)
    for _ in range(KILLS):
        before, running = home.rows(), home.replayer(replay_rate_per_s=100.0)
        wait_until("it brings something in", partial(_changed, home, before))
        time.sleep(dice.uniform(0.0, 0.3))
        running.kill()
        running.wait()
    assert 0 < len(home.rows()) < len(said)
    home.replayer(replay_rate_per_s=100_000.0)
    wait_until("the spool is empty", lambda: not home.left())
    assert home.rows() == said


def _changed(home: Home, before: list[str]) -> bool:
    return home.rows() != before


@pytest.mark.fault("B7")
def test_a_stop_in_the_middle_ends_after_the_step(home: Home) -> None:
    """SIGTERM: an exit with 0 at once, nothing both here and there, and the leases are free."""
    said, running = home.fill(400), home.replayer(replay_rate_per_s=100.0)
    wait_until("it brings something in", home.rows)
    running.send_signal(signal.SIGTERM)
    assert running.wait(5.0) == 0
    spool = Spool(home.settings["spool_directory"], 1 << 30)
    waiting = [one.id for one in spool.next_batch(1000)]
    assert home.rows() + waiting == said
    assert len(waiting) > 0
    for name in (MANAGED, LEASES[0]):
        lock = ProcessLock(os.path.join(spool.directory, name))
        assert lock.acquire()
        lock.release()
    spool.close()


@pytest.mark.fault("G2")
def test_g2_a_hung_database_holds_up_neither_its_end_nor_what_comes_after(
    postgres: Postgres, tmp_path: Path
) -> None:
    """Frozen in the middle: SIGTERM ends it within the deadlines; thawed, another one brings in the rest."""
    home = Home(tmp_path, postgres)
    said, running = home.fill(400), home.replayer(replay_rate_per_s=100.0)
    wait_until("it brings something in", home.rows)
    postgres.freeze()
    time.sleep(0.5)
    running.send_signal(signal.SIGTERM)
    code = running.wait(10.0)
    home.replayer()
    time.sleep(2.0)
    postgres.thaw()
    assert code == 0
    wait_until("the spool is empty", lambda: not home.left(), 30.0)
    assert home.rows() == said
    home.close()


# --- the dead ------------------------------------------------------------------------------------------


@pytest.mark.fault("S14")
@pytest.mark.fault("L6")
def test_what_the_dead_left_is_brought_in_though_nobody_lives(home: Home) -> None:
    """Agents talk while the database is away, and are killed; it comes back: one row each, no file left."""
    home.replayer()
    home.away()
    ledgers = [home.folder / f"ledger{number}" for number in range(3)]
    order = {"play": "talk", "threads": 2, "user": "ann", "config": home.settings}
    with programs([order | {"ledger": str(path)} for path in ledgers]):
        wait_until("they have talked", lambda: len(read(ledgers)) >= 200)
    lines = read(ledgers)
    assert {line[0] for line in lines} == {"spooled"}
    assert len(home.left()) >= 3
    home.back()
    wait_until("the spool is empty", lambda: not home.left(), 30.0)
    rows = home.rows()
    assert {line[1] for line in lines} <= set(rows)
    # Beside them only what a dying thread had kept and could not tell.
    assert len(lines) <= len(rows) <= len(lines) + 6
    assert "brought in, nothing waits" in home.log()


@pytest.mark.fault("G14")
def test_g14_what_the_dead_left_damaged_is_set_aside(home: Home) -> None:
    """A torn log is cut, a damaged file is read as far as possible and kept; the rest is brought in."""
    first, second, third = home.fill(30), home.fill(60), home.fill(30)
    names = sorted(name for name in home.left() if name.endswith(".spool"))
    torn, damaged = (Path(home.settings["spool_directory"]) / name for name in names[:2])
    Spool(home.settings["spool_directory"], 1 << 30).adopt()  # the logs are written into the files
    with open(f"{torn}-wal", "ab") as log:
        log.write(b"\x01" * 1000)
    with open(damaged, "r+b") as file:
        file.seek(damaged.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    home.replayer()
    wait_until("the spool is empty", lambda: not [one for one in home.left() if "damaged" not in one], 30.0)
    rows = set(home.rows())
    assert {*first, *third} <= rows
    assert rows <= {*first, *second, *third}
    assert f"{damaged.name}.damaged" in home.left()
    assert f"{damaged} is damaged" in home.log()


def test_more_dead_than_descriptors(home: Home) -> None:
    """A great many agents spoke and died during an outage: all of it is brought in, with 256 descriptors."""
    said = [key for _ in range(100) for key in home.fill(1)]
    home.replayer(files_max=256, replay_rate_per_s=100_000.0)
    wait_until("the spool is empty", lambda: not home.left(), 40.0)
    assert home.rows() == said


@pytest.mark.fault("S14")
def test_what_a_reboot_left_is_brought_in(home: Home) -> None:
    """Of a host that went down there are files and logs, and shared memory that is of no use any more."""
    said = home.fill(20) + home.fill(20)
    place = Path(home.settings["spool_directory"])
    for one in place.glob("*-shm"):
        one.write_bytes(b"\xff" * one.stat().st_size)
    for one in place.glob("*.lock"):
        one.unlink()
    home.replayer()
    wait_until("the spool is empty", lambda: not home.left())
    assert home.rows() == said


def test_a_spool_that_cannot_be_written_to_is_waited_for(tmp_path: Path) -> None:
    """Mounted read-only: said once, nothing lost; writable again, it goes on by itself."""
    with shelf(tmp_path / "shelf", 8, "F6") as disk, contextlib.closing(Home(tmp_path, None)) as home:
        home.settings["spool_directory"] = str(disk.place / "spool")
        said = home.fill(10)
        disk.only_read()
        home.replayer()
        wait_until("it says so", lambda: "cannot be written to" in home.log())
        time.sleep(2.0)
        assert home.rows() == []
        assert home.log().count("cannot be written to") == 1
        disk.write_again()
        wait_until("the spool is empty", lambda: not home.left())
        assert home.rows() == said


# --- beside the living --------------------------------------------------------------------------------


@pytest.mark.fault("G12")
def test_g12_beside_applications_the_managed_one_replays(postgres: Postgres, tmp_path: Path) -> None:
    """Four applications that live and spool: what waited comes in by the managed one alone, one row each."""
    home = Home(tmp_path, postgres)
    who = "ALTER TABLE memory_conversations ADD COLUMN who text DEFAULT current_setting('application_name')"
    postgres.execute(who, home.name)
    ledgers, stop = [tmp_path / f"ledger{number}" for number in range(4)], tmp_path / "stop"
    order = {"play": "talk", "threads": 2, "user": "ann", "config": home.settings, "stop": str(stop)}
    orders = [order | {"ledger": str(path)} for path in ledgers]
    home.fill(1)  # so that there is a directory
    home.replayer(
        database_url=f"{home.settings['database_url']}&application_name=managed", replay_rate_per_s=5000.0
    )
    wait_until("it is at work", home.managed)
    with programs(orders) as running:
        wait_until("they store", lambda: ["stored"] in [line[:1] for line in read(ledgers)])
        home.away()
        wait_until("they spool", lambda: sum(line[0] == "spooled" for line in read(ledgers)) >= 100)
        home.back()
        wait_until("the spool is empty", lambda: not home.left(), 60.0)
        stop.touch()
        assert [one.wait(30.0) for one in running] == [0, 0, 0, 0]
    wait_until("the spool is empty", lambda: not home.left(), 30.0)
    spooled = {line[1] for line in read(ledgers) if line[0] == "spooled"}
    rows = postgres.execute("SELECT id::text, who FROM memory_conversations", home.name)
    brought = {str(row[0]) for row in rows if row[1] == "managed"}
    assert spooled <= brought
    assert {line[1] for line in read(ledgers) if line[0] == "stored"} <= {str(row[0]) for row in rows}
    assert "rejected" not in {line[0] for line in read(ledgers)}
    home.close()


@pytest.mark.fault("G12")
def test_g12_an_application_goes_on_where_the_managed_one_dies(home: Home) -> None:
    """It sleeps while the other is at work, without a lease; the other is killed: it brings all in."""
    running = home.replayer()
    with memory(home.config()) as manager:
        wait_until("it is at work", home.managed)
        home.away()
        said = [manager.store_conversation("ann", str(number), "x").id for number in range(20)]
        time.sleep(2.5)
        assert manager.get_system_health()["memory"]["replay"]["managed"] is True
        lease = ProcessLock(os.path.join(home.settings["spool_directory"], LEASES[0]))
        assert not lease.held
        assert lease.elsewhere()
        running.kill()
        running.wait()
        home.back()
        wait_until("it took over", lambda: home.rows() == said, TAKEN_OVER_S)
        assert manager.get_system_health()["memory"]["replay"]["managed"] is False


@pytest.mark.fault("G12")
def test_g12_a_managed_one_that_comes_later_is_given_the_lease(home: Home) -> None:
    """An application with the lease, during an outage, gives it up in a few seconds, and reads its writes."""
    home.away()
    with memory(home.config()) as manager:
        said = [manager.store_conversation("ann", str(number), "x").id for number in range(20)]
        lease = ProcessLock(os.path.join(home.settings["spool_directory"], LEASES[0]))
        wait_until("the application has it", lambda: lease.held)
        home.replayer()
        wait_until("the managed one has it", lease.elsewhere, TAKEN_OVER_S)
        assert _ids(manager.history("ann", 20)) == said[::-1]
        home.back()
        wait_until("the managed one brings all in", lambda: home.rows() == said, 30.0)
        # As soon as its own breaker, which nobody tells what the other found, lets it read.
        wait_until("it reads them", lambda: _ids(manager.history("ann", 20)) == said[::-1])
        wait_until("the file of the living goes, too", lambda: not home.left(), TAKEN_OVER_S)
        assert manager.get_system_health()["memory"]["replay"]["applied"] == 0


def _ids(found: list[Found]) -> list[str]:
    return [one.conversation.id for one in found]


@pytest.mark.fault("G12")
@pytest.mark.fault("B3")
def test_g12_whoever_stands_still_with_the_leases_is_got_round(home: Home) -> None:
    """A process was stopped two minutes ago with both locks; another replayer, and an application, go on."""
    place = home.settings["spool_directory"]
    said, told = home.fill(5), os.pipe()
    long_ago = time.monotonic_ns() - int(1e9 * (STILL_S + 60.0))
    pid = os.fork()
    if pid == 0:
        locks = [MovingLock(os.path.join(place, name), lambda: long_ago) for name in (LEASES[0], MANAGED)]
        for one in locks:
            one.acquire()
            one.move()
        os.write(told[1], b"!")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(1)
    try:
        assert os.read(told[0], 1) == b"!"
        with memory(home.config()) as manager:
            said.append(manager.store_conversation("ann", "live", "x").id)
            wait_until("the application brings it in", lambda: home.rows() == said)
        said += home.fill(5)
        home.replayer()
        wait_until("the replayer brings it in", lambda: home.rows() == said)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for number in told:
            os.close(number)


@pytest.mark.fault("G12")
def test_g12_two_managed_ones_are_one_at_a_time(home: Home) -> None:
    """The second waits; the first is killed in the middle, and it goes on."""
    said, first = home.fill(300), home.replayer(replay_rate_per_s=100.0)
    wait_until("the first brings something in", home.rows)
    home.replayer()
    time.sleep(1.5)
    assert len(home.rows()) < 300  # at its own rate
    first.kill()
    first.wait()
    wait_until("the second goes on", lambda: home.rows() == said, TAKEN_OVER_S)
