"""Recovery probes end to end: a real supervisor, its probers, and a dependency that dies and comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ipc import CircuitBreaker, CircuitOpenError, Client
from ipc.process import set_default
from tests.live.house import House, alive, wait_for
from tests.live.probe_targets import STUCK_FILE
from tests.servers import RedisServer

CANARY: Final = "c4n4ry-7b2d"
SPARE_S: Final = 20.0
SETTINGS: Final = """
[breakers.cache]
failure_threshold = 3
recovery_timeout = 0.3
recovery_growth = 1
recovery_jitter = 0
permitted_trials = 1
successes_to_close = 2
ramp_s = 1.0
[breakers.cache.probe]
kind = "redis"
url = "env:CACHE_URL"
interval_s = 0.2
interval_max_s = 0.3
timeout_s = 1
rise = 2
fall = 2
jitter = 0
"""
Build = Callable[..., House]


@pytest.fixture
def attach() -> Iterator[Callable[[House], Client]]:
    """Make this process a worker of a house."""
    made: list[Client] = []
    before: list[Client | None] = []

    def go(house: House) -> Client:
        made.append(Client(house.socket, name="web"))
        before.append(set_default(made[-1]))
        assert made[-1].connect()
        return made[-1]

    yield go
    for mine in made:
        set_default(before[0])
        mine.close()


def until(house: House, state: str, name: str = "cache", call: Callable[[], Any] = int) -> Any:
    """Wait until the breaker is in this state, and do that meanwhile; the breaker."""

    def there() -> Any:
        call()
        found = house.breaker(name)
        return found if found["state"] == state else None

    return wait_for(f"{name} is {state}", there, SPARE_S)


def caller(server: RedisServer) -> Callable[[], bool]:
    """Asks the cache through a breaker; False = it could not."""
    breaker = CircuitBreaker("cache")
    client = redis.Redis.from_url(server.url(), retry=Retry(NoBackoff(), 0), socket_timeout=1.0)

    def call() -> bool:
        try:
            return bool(breaker.call(client.ping))
        except (redis.RedisError, CircuitOpenError):
            return False

    return call


def test_an_opening_is_held_by_its_probe_and_ended_by_it(
    build: Build, valkey: RedisServer, attach: Callable[[House], Client]
) -> None:
    """The cache dies; nobody tries it, however often the open time is over; it comes back: trials, ramp."""
    house = build(SETTINGS, CACHE_URL=valkey.url()).start()
    attach(house)
    call = caller(valkey)
    assert call()
    # Before its first word a probe holds nothing: the open time alone decides.
    wait_for("a pass", lambda: house.breaker("cache")["probe"]["verdict"] == "passed", SPARE_S)
    valkey.kill()
    until(house, "OPEN", call=call)
    wait_for(
        "the probe has failed for five open times",
        lambda: (found := house.breaker("cache"))["probe"]["run"] >= 5 and found["since_s"] > 1.5,
        SPARE_S,
    )
    held = house.breaker("cache")
    assert (held["state"], held["opened_total"], held["probe"]["holds"]) == ("OPEN", 1, True)
    assert not call()
    assert house.run_tool("probe", "cache").returncode == 3
    valkey.start()
    until(house, "HALF_OPEN")
    ran = house.run_tool("probe", "cache")
    assert (ran.returncode, "PONG" in ran.stdout) == (0, True), ran.stdout
    closed = until(house, "CLOSED", call=call)
    assert closed["opened_total"] == 1
    assert closed["ramp"]["length_s"] == 1.0
    wait_for("the ramp is over", lambda: house.breaker("cache")["ramp"] is None, SPARE_S)
    wait_for("a call is let in", call, SPARE_S)  # the board word tells the ramp's end in steps, rounded up


def test_a_preventive_probe_opens_before_any_call_has_failed(
    build: Build, valkey: RedisServer, attach: Callable[[House], Client]
) -> None:
    """Nobody calls; the breaker is open all the same, and says why."""
    house = build(f"{SETTINGS}preventive = true\n", CACHE_URL=valkey.url()).start()
    attach(house)
    assert caller(valkey)()
    wait_for("a pass", lambda: house.breaker("cache")["probe"]["verdict"] == "passed", SPARE_S)
    valkey.kill()
    opened = until(house, "OPEN")
    assert opened["failure_count"] == 0
    events = json.dumps(house.ask("events", after=0))
    assert "its probe failed 2 times" in events


def probers(house: House, count: int = 1) -> dict[str, int]:
    """Wait until so many run; the process of each."""

    def found() -> dict[str, int] | None:
        there = [
            one for one in house.ask_patiently("status")["processes"] if one["name"].startswith("prober")
        ]
        running = {one["name"]: int(one["pid"]) for one in there if one["state"] == "RUNNING"}
        return running if len(running) == count and all(map(alive, running.values())) else None

    return wait_for(f"{count} probers run", found, SPARE_S)


def test_a_hung_prober_is_replaced_and_the_others_go_on(build: Build, tmp_path: Path) -> None:
    """It counts as a failed probe, not as a failure of the prober."""
    stuck = tmp_path / "stuck"
    stuck.touch()
    config = """
        [breakers.hung.probe]
        kind = "python"
        target = "tests.live.probe_targets:stuck"
        timeout_s = 0.3
        interval_s = 0.3
        interval_max_s = 0.3
        [breakers.well.probe]
        kind = "exec"
        command = ["/bin/sh", "-c", "exit 0"]
        interval_s = 0.2
    """
    house = build(config, **{STUCK_FILE: str(stuck)}).start()

    first = probers(house, 2)
    wait_for("a prober was killed", lambda: not all(map(alive, first.values())), SPARE_S)
    assert probers(house, 2).keys() == first.keys()
    told = house.run_tool("probe", "hung", "--json")
    assert (told.returncode, json.loads(told.stdout)["text"]) == (3, "no answer within 1.3 s")
    assert "failed more than" not in house.logged()
    stuck.unlink()
    wait_for("it passes", lambda: house.run_tool("probe", "hung").returncode == 0, SPARE_S)
    assert house.run_tool("probe", "well").returncode == 0


def lines(path: Path) -> list[int]:
    """The numbers in a file, one a line."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def counting(path: Path, then: str) -> str:
    """A probe that notes each time its process group, and then does what it is told."""
    command = json.dumps(["/bin/sh", "-c", f"echo $$ >> {path}; {then}"])
    return f"""
        [supervisor]
        probe_processes = 1
        [breakers.disk.probe]
        kind = "exec"
        command = {command}
        timeout_s = 60
        interval_s = 0.3
    """


def test_a_daemon_that_dies_in_the_middle_of_a_probe(build: Build, tmp_path: Path) -> None:
    """The prober goes on; what it found out for the dead daemon is nobody's; the next one asks anew."""
    pids, go = tmp_path / "pids", tmp_path / "go"
    os.mkfifo(go)
    house = build(counting(pids, f"read word < {go}; echo $word; exit 1")).start()
    wait_for("the probe has begun", lambda: len(lines(pids)) == 1, SPARE_S)
    (prober,) = probers(house).values()
    house.wait_reborn(house.kill_daemon())
    with go.open("w") as pipe:
        pipe.write("stale\n")
    wait_for("it is asked anew", lambda: len(lines(pids)) == 2, SPARE_S)
    told = json.dumps(house.ask("events", after=0))
    assert "stale" not in told
    assert alive(prober)
    with go.open("w") as pipe:
        pipe.write("fresh\n")
    wait_for("its verdict", lambda: "exit code 1: fresh" in json.dumps(house.ask("events", after=0)), SPARE_S)
    with go.open("w") as pipe:
        pipe.write("again\n")


def test_a_prober_that_dies_in_the_middle_of_a_probe(build: Build, tmp_path: Path) -> None:
    """Its program goes with it, and the next prober asks again."""
    pids = tmp_path / "pids"
    house = build(counting(pids, "sleep 600 & wait")).start()
    wait_for("the probe has begun", lambda: len(lines(pids)) == 1, SPARE_S)
    (prober,) = probers(house).values()
    os.kill(prober, signal.SIGKILL)
    wait_for("its program is gone", lambda: not alive(lines(pids)[0]), SPARE_S)
    wait_for("it is asked again", lambda: len(lines(pids)) == 2, SPARE_S)
    assert house.stop() == 0
    wait_for("that one is gone, too", lambda: not alive(lines(pids)[1]), SPARE_S)


def test_a_daemon_and_a_prober_that_die_in_one_probe(build: Build, tmp_path: Path) -> None:
    """Nobody is left who knows the program: the next daemon finds it."""
    pids = tmp_path / "pids"
    house = build(counting(pids, "sleep 600 & wait")).start()
    wait_for("the probe has begun", lambda: len(lines(pids)) == 1, SPARE_S)
    (prober,) = probers(house).values()
    daemon = house.daemon_pid
    os.kill(daemon, signal.SIGSTOP)
    os.kill(prober, signal.SIGKILL)
    os.kill(daemon, signal.SIGKILL)
    house.wait_reborn(daemon)
    wait_for("its program is gone", lambda: not alive(lines(pids)[0]), SPARE_S)
    wait_for("it is asked again", lambda: len(lines(pids)) == 2, SPARE_S)
    assert alive(lines(pids)[1])


def test_a_reload_brings_a_probe_and_its_probers_and_takes_them_away(build: Build) -> None:
    """Without a probe there is no prober. What a program gets of us is three descriptors."""
    house = build("[control]\n").start()
    assert house.run_tool("probe", "disk").returncode == 1
    command = json.dumps(["/bin/sh", "-c", "echo $(ls /proc/self/fd)"])
    probe = f"[breakers.disk.probe]\nkind = 'exec'\ncommand = {command}\n"
    house.configure(probe)
    assert house.run_tool("reload").returncode == 0
    pids = probers(house, 2)
    told = json.loads(house.run_tool("probe", "disk", "--json").stdout)
    assert (told["verdict"], told["text"]) == ("passed", "0 1 2 3"), "ls has its folder open as well"
    house.configure(f"{probe}interval_s = 9\n")
    assert house.run_tool("reload").returncode == 0
    assert house.run_tool("probe", "disk").returncode == 0
    assert probers(house, 2) == pids
    house.configure("")
    assert house.run_tool("reload").returncode == 0
    wait_for("they are gone", lambda: not any(map(alive, pids.values())), SPARE_S)
    assert house.run_tool("probe", "disk").returncode == 1


def test_no_secret_leaves(build: Build) -> None:
    """Neither from a URL in the file nor from one in the environment, in any answer or line of the log."""
    config = f"""
        [breakers.cache.probe]
        kind = "redis"
        url = "env:CACHE_URL"
        interval_s = 0.1
        [breakers.database.probe]
        kind = "sqlalchemy"
        url = "postgresql+psycopg://u:{CANARY}@127.0.0.1:1/d"
        interval_s = 0.1
    """
    house = build(config, CACHE_URL=f"redis://u:{CANARY}@127.0.0.1:1/0").start()
    said = [
        house.run_tool(*words, timeout=60.0)
        for name in ("cache", "database")
        for words in (("probe", name), ("probe", name, "--json"))
    ]
    assert [ran.returncode for ran in said] == [3] * 4
    said += [
        house.run_tool(*words, "--json")
        for words in (("config", "show"), ("events",), ("health",), ("doctor",))
    ]
    assert all(ran.stdout for ran in said)
    assert CANARY not in "".join(ran.stdout + ran.stderr for ran in said) + house.logged()
