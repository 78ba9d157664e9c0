"""Managed workers as an operator has them: started, stopped, restarted, listed and listened to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import psutil
import pytest

from tests.faults.managed import processes
from tests.live.house import ROOT, House, alive, wait_for
from tests.schemas import problems

TARGETS: Final = "tests.live.logging_targets"
CONFIG: Final = f"""
[workers.web]
target = "{TARGETS}:talk"
count = 2
start_s = 0.2
stop_timeout_s = 5

[workers.job]
target = "{TARGETS}:once"
restart = "transient"

[workers.bad]
target = "{TARGETS}:fail"
max_restarts = 1
backoff_s = 0.01
start_s = 0.2

[workers.idle]
target = "{TARGETS}:talk"
start_s = 0.2
autostart = false
"""


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    """A supervisor whose workers have come to where they will stay."""
    made = build(CONFIG).start()
    settled = {"web:1": "RUNNING", "web:2": "RUNNING", "job": "EXITED", "bad": "FATAL", "idle": "STOPPED"}
    wait_for("all workers are where they belong", lambda: states(made) == settled, 20.0)
    return made


def states(house: House) -> dict[str, str]:
    """Their states."""
    return {title: one["state"] for title, one in processes(house).items()}


def document(ran: subprocess.CompletedProcess[str], schema: str) -> Any:
    """Standard output as JSON, which is true to the schema."""
    found = json.loads(ran.stdout)
    assert problems(schema, found) == []
    return found


def numbers(lines: list[str]) -> list[int]:
    """The numbers of a talking worker's lines."""
    return [int(line.rpartition(" ")[2]) for line in lines if " app: line " in line]


def test_status_names_every_state_with_its_reason(house: House) -> None:
    """In Supervisor's columns; health warns of what is given up, and JSON has what each costs."""
    ran = house.run_tool("status")
    assert ran.returncode == 3
    rows = [line.split(maxsplit=2) for line in ran.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["breakerd", "RUNNING"],
        ["daemon", "RUNNING"],
        ["web:1", "RUNNING"],
        ["web:2", "RUNNING"],
        ["job", "EXITED"],
        ["bad", "FATAL"],
        ["idle", "STOPPED"],
    ]
    assert rows[4][2] == "exit code 0"
    assert rows[5][2] == "exit code 1, restarted 1 time"
    assert rows[6][2] == "not started"
    health = house.run_tool("health")
    assert health.stdout.startswith("warn: ")
    assert "bad is FATAL" in health.stdout
    processes = document(house.run_tool("status", "--json"), "status")["processes"]
    running = [one for one in processes if one["state"] == "RUNNING"]
    assert len(running) == 4
    assert all(one["rss_bytes"] > 1 << 20 and one["threads"] >= 1 and one["fds"] > 2 for one in running)
    # What only ends with its own traceback is in the log, under its name.
    assert "bad: RuntimeError: as always" in house.logged()


def test_status_names_those_that_are_on_their_way(build: Callable[..., House]) -> None:
    """Not there yet, waiting for the next life, and asked to end."""
    house = build(
        f'[workers.slow]\ntarget = "{TARGETS}:talk"\nstart_s = 600\n'
        f'[workers.bad]\ntarget = "{TARGETS}:fail"\nbackoff_s = 600\nbackoff_max_s = 600\n'
        f'[workers.mule]\ntarget = "{TARGETS}:stubborn"\nstop_timeout_s = 600\nstart_s = 0.5\n'
    ).start()
    up = {"slow": "STARTING", "bad": "BACKOFF", "mule": "RUNNING"}
    wait_for("all are on their way", lambda: states(house) == up, 20.0)
    assert house.run_tool("stop", "mule", "--timeout", "0.2s").returncode == 3
    ran = house.run_tool("status")
    assert ran.returncode == 3
    rows = [line.split(maxsplit=2) for line in ran.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["slow", "STARTING"], ["bad", "BACKOFF"], ["mule", "STOPPING"]]
    assert rows[1][2].startswith("exit code 1")
    os.kill(processes(house)["mule"]["pid"], signal.SIGKILL)


def test_start_stop_and_restart_wait_until_it_is_so(house: House) -> None:
    """One line a process, 0 where all is as it was asked for, 3 where it is not."""
    before = processes(house)
    stopped = house.run_tool("stop", "web:2")
    assert (stopped.returncode, stopped.stdout) == (0, "web:2: stopped\n")
    assert not alive(before["web:2"]["pid"])
    assert house.run_tool("stop", "web:2").returncode == 0
    assert states(house)["web:2"] == "STOPPED"
    started = house.run_tool("start", "web", "--json")
    assert started.returncode == 0
    first, second = document(started, "manage")["processes"]
    assert (first["text"], first["done"]) == (f"ran already (pid {before['web:1']['pid']})", True)
    assert alive(second["pid"])
    restarted = document(house.run_tool("restart", "web", "--json"), "manage")["processes"]
    assert not {one["pid"] for one in restarted} & {first["pid"], second["pid"]}
    assert processes(house)["web:1"]["managed"]["restarts"] == 0
    bad = house.run_tool("start", "bad")
    assert bad.returncode == 3
    assert bad.stdout.startswith("bad: FATAL: exit code 1")


def test_all_are_stopped_and_started_together(house: House) -> None:
    """`all` is every worker of the configuration and nothing of breakerd's own."""
    pids = [one["pid"] for one in processes(house).values() if one["pid"]]
    ran = house.run_tool("stop", "all", timeout=20.0)
    assert ran.returncode == 0
    assert sorted(line.partition(":")[0] for line in ran.stdout.splitlines()) == sorted(
        ["web", "web", "job", "bad", "idle"]
    )
    assert set(states(house).values()) == {"STOPPED"}
    assert not any(map(alive, pids))
    house.ask("version")
    ran = house.run_tool("start", "all", timeout=30.0)
    assert ran.returncode == 3  # one of them always fails
    assert states(house)["idle"] == states(house)["web:2"] == "RUNNING"


def test_what_is_not_there_is_refused_with_what_is(house: House) -> None:
    """Nothing is done for a name that was mistyped."""
    for words in (("stop", "wbe"), ("restart", "web:3"), ("tail", "wbe")):
        ran = house.run_tool(*words)
        assert ran.returncode == 1, words
        assert "there are web:1, web:2, job, bad, idle" in ran.stderr
    assert "say which" in house.run_tool("tail", "web").stderr
    assert states(house)["web:1"] == "RUNNING"


def test_one_that_does_not_end_is_killed_and_waited_for(build: Callable[..., House]) -> None:
    """Its table says how long it may take; --timeout says how long the operator looks."""
    house = build(
        f'[workers.mule]\ntarget = "{TARGETS}:stubborn"\nstop_timeout_s = 2.0\nstart_s = 0.5\n'
    ).start()
    wait_for("it runs", lambda: states(house) == {"mule": "RUNNING"}, 20.0)
    impatient = house.run_tool("stop", "mule", "--timeout", "0.5s")
    assert impatient.returncode == 3
    assert impatient.stdout.startswith("mule: STOPPING still after")
    ran = house.run_tool("stop", "mule")
    assert (ran.returncode, ran.stdout) == (0, "mule: stopped\n")
    assert "killed by SIGKILL" in house.run_tool("status").stdout


@pytest.fixture
def following(house: House) -> Iterator[subprocess.Popen[str]]:
    """`supervisorctl tail -f web:1`, running."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "supervisor.ctl.main", "tail", "-f", "web:1", "3"],
        env=house.surroundings(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_tail_follows_over_the_death_of_a_daemon(house: House, following: subprocess.Popen[str]) -> None:
    """Every line once and in order, though the daemon is killed meanwhile; ^C ends it well."""
    assert following.stdout is not None
    seen = [following.stdout.readline() for _ in range(3)]
    house.wait_reborn(house.kill_daemon())
    deadline = time.monotonic() + 15.0
    latest = numbers(house.ask_patiently("tail", name="web:1", lines=1)["lines"])[0] + 10
    while numbers(seen)[-1] < latest:
        assert time.monotonic() < deadline
        seen.append(following.stdout.readline())
    found = numbers(seen)
    assert found == list(range(found[0], found[0] + len(found)))
    following.send_signal(signal.SIGINT)
    assert following.wait(20.0) == 0


def test_tail_has_a_workers_lines_over_its_lives(house: House) -> None:
    """The last ones of the dead and the first ones of its follower stand in one file."""
    pid = processes(house)["web:1"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for("the next one runs", lambda: processes(house)["web:1"]["pid"] not in (0, pid), 10.0)
    wait_for("it logs", lambda: numbers(tail(house, 200)).count(0) == 2, 10.0)
    found = numbers(tail(house, 200))
    again = found.index(0, 1)
    assert found[:again] == list(range(found[0], found[0] + again))
    assert found[again:] == list(range(len(found) - again))
    assert house.run_tool("tail", "web:1", "5").stdout.count("\n") == 5
    document(house.run_tool("tail", "web:1", "--json"), "tail")


def tail(house: House, lines: int, title: str = "web:1") -> list[str]:
    """The last lines of one worker."""
    found: list[str] = house.ask_patiently("tail", name=title, lines=lines)["lines"]
    return found


def test_a_worker_killed_while_it_floods_silences_nobody(build: Callable[..., House]) -> None:
    """Five times: its neighbour's lines are all there, what was lost is counted, and nothing is left."""
    house = build(
        f'[workers.web]\ntarget = "{TARGETS}:talk"\nargs = [0.01]\n'
        f'[workers.mad]\ntarget = "{TARGETS}:flood"\nmax_restarts = 100\nbackoff_s = 0.01\nstart_s = 0.1\n'
    ).start()
    wait_for("both run", lambda: set(states(house).values()) == {"RUNNING"}, 20.0)
    # Each attached worker costs the nursery two descriptors, and each one that has logged a file.
    wait_for("both are attached", lambda: len(house.workers()) == 2, 20.0)
    for title in ("web", "mad"):
        wait_for("both have logged", partial(tail, house, 1, title), 20.0)
    nursery = psutil.Process(house.nursery_pid)
    before = (nursery.num_threads(), nursery.num_fds())
    for _ in range(5):
        pid = processes(house)["mad"]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for("the next one floods", partial(flooding, house, pid), 20.0)
    shown = wait_for("lost lines are counted", lambda: processes(house)["mad"]["managed"]["log_gaps"], 10.0)
    assert shown > 0
    assert "managed:mad:log" in house.run_tool("health").stdout
    wait_for("nothing is left", lambda: (nursery.num_threads(), nursery.num_fds()) <= before, 10.0)
    lines = [line for line in house.logged().splitlines() if line.startswith("web: INFO app: line ")]
    found = numbers(lines)
    assert found == list(range(len(found)))
    assert processes(house)["web"]["managed"]["log_gaps"] == 0


def flooding(house: House, old: int) -> bool:
    """Whether another life of the flooding worker logs."""
    return processes(house)["mad"]["pid"] not in (0, old) and processes(house)["mad"]["state"] == "RUNNING"


def test_wide_workers_show_what_each_costs(house: House) -> None:
    """The process itself is asked, and no other one that has its number."""
    ran = document(house.run_tool("workers", "--wide", "--json"), "workers")["workers"]
    by_pid = {one["pid"]: one for one in ran}
    for title in ("web:1", "web:2"):
        pid = processes(house)[title]["pid"]
        found, process = by_pid[pid], psutil.Process(pid)
        assert abs(found["rss_bytes"] - process.memory_info().rss) < 16 << 20
        assert found["threads"] == process.num_threads()
        assert found["fds"] == process.num_fds()
        assert 0.0 <= found["cpu_s"] <= sum(process.cpu_times()[:2]) + 0.05
    plain = house.run_tool("workers", "--wide").stdout.splitlines()
    assert plain[0].split()[-5:] == ["RSS", "CPU", "THREADS", "FDS", "ISOLATED"]
    assert "rss_bytes" not in json.loads(house.run_tool("workers", "--json").stdout)["workers"][0]


def test_lines_in_json_carry_their_worker(build: Callable[..., House]) -> None:
    """`log_format = "json"`: one object a line on standard error, of breakerd's own too."""
    house = build(f'[supervisor]\nlog_format = "json"\n[workers.job]\ntarget = "{TARGETS}:once"\n').start()
    wait_for("it has logged", lambda: "all is done" in house.logged(), 20.0)
    wait_for("breakerd has logged", lambda: "serving" in house.logged(), 20.0)
    said = [json.loads(line) for line in house.logged().splitlines()]
    one = next(line for line in said if line["text"] == "all is done")
    assert (one["worker"], one["level"], one["logger"]) == ("job", "WARNING", "app")
    assert any(line["logger"] == "breakerd.daemon" and "worker" not in line for line in said)


def test_a_worker_that_is_called_otherwise_keeps_its_log(build: Callable[..., House]) -> None:
    """A second one of its kind is configured: the first goes on, and `tail` finds what it said and says."""
    table = f'[workers.web]\ntarget = "{TARGETS}:talk"\nstart_s = 0.1\n'
    house = build(table).start()
    wait_for("it runs", lambda: states(house) == {"web": "RUNNING"}, 20.0)
    pid = processes(house)["web"]["pid"]
    house.configure(f"{table}count = 2\n")
    assert house.run_tool("reload").returncode == 0
    wait_for("both run", lambda: states(house) == {"web:1": "RUNNING", "web:2": "RUNNING"}, 20.0)
    assert processes(house)["web:1"]["pid"] == pid
    found = numbers(tail(house, 1000))
    wait_for("it logs under its new name", lambda: numbers(tail(house, 1000))[-1] > found[-1] + 2, 10.0)
    found = numbers(tail(house, 1000))
    assert found == list(range(len(found)))
    house.configure("")
    assert house.run_tool("reload").returncode == 0
    wait_for("its log goes with it", lambda: os.listdir(house.runtime / "logs") == [], 20.0)


def test_the_last_lines_at_the_end_of_breakerd_arrive(build: Callable[..., House]) -> None:
    """A worker that ends as it is asked to is read to its end before the nursery goes."""
    house = build(f'[workers.web]\ntarget = "{TARGETS}:polite"\nstart_s = 0.1\n').start()
    wait_for("it is up", lambda: "app: here" in house.logged(), 20.0)
    assert house.stop() == 0
    said = [line for line in house.logged().splitlines() if line.startswith("web: INFO app: bye ")]
    assert [int(line.rpartition(" ")[2]) for line in said] == list(range(1000))
