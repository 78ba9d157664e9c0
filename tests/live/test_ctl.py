"""supervisorctl as an operator has it: a process, against a real supervisor with real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor.ctl.parse import COMMANDS, MANAGING, VERBS
from tests.conftest import could_not_run
from tests.live.house import ROOT, House, wait_for
from tests.schemas import problems

PROMISED_S: Final = 2.0
"""Within this time supervisorctl has answered, whatever the supervisor does."""
SETTINGS: Final[dict[str, Any]] = {
    "failure_threshold": 3,
    "failure_rate": None,
    "recovery_timeout": 0.3,
    "recovery_growth": 1.0,
    "recovery_jitter": 0.0,
    "successes_to_close": 1,
}
NOBODY: Final = 65534
PROBED: Final = """
[namespaces.shop]
[breakers.disk.probe]
kind = "exec"
command = ["/bin/sh", "-c", "exit 0"]
"""


def document(ran: subprocess.CompletedProcess[str], schema: str) -> Any:
    """Standard output as JSON, which is true to the schema."""
    found = json.loads(ran.stdout)
    assert problems(schema, found) == []
    return found


@pytest.fixture
def busy(build: Callable[..., House]) -> House:
    """A supervisor with a worker that has called through two breakers, one of which is open."""
    house = build("[namespaces.shop]\n").start()
    hand = house.hand(namespace="shop")
    hand.order("guard", breaker="database", **{**SETTINGS, "recovery_timeout": 60.0})
    hand.order("guard", breaker="cache")
    hand.order("call", breaker="cache", how="ok", times=20)
    hand.order("call_until", breaker="database", how="fail", result="refused")
    wait_for("the failures are counted", lambda: house.breaker("database")["state"] == "OPEN", 5.0)
    return house


def test_json_of_every_verb_is_true_to_its_schema(busy: House) -> None:
    """Every verb of this command, with everything in it that a running host has."""
    lines = {
        "health": "health", "health live": "health", "health ready": "health", "status": "status",
        "breakers": "breakers", "breaker show database": "breaker", "workers": "workers", "stats": "stats",
        "events": "events", "errors": "errors", "errors shop/database": "errors", "version": "version",
        "wait ready": "wait", "config show": "config-show", "config example": "config-example",
        "config check /dev/null": "config-check", "help": "help", "doctor": "doctor", "reload": "reload",
        "probe disk": "probe",
    }  # fmt: skip
    busy.configure(PROBED)
    assert {line.split()[0] for line in lines} == set(VERBS) - {*MANAGING, "tail"}
    for line, schema in lines.items():
        ran = busy.run_tool(*line.split(), "--json")
        assert (ran.returncode, ran.stderr) == (0, ""), line
        document(ran, schema)


def test_json_of_every_command_is_true_to_its_schema(busy: House) -> None:
    """The commands one after the other, and the breaker and the host as they are then."""
    for action in COMMANDS:
        done = document(
            busy.run_tool("breaker", action, "database", "--reason", "drill", "--json"), "command"
        )
        assert done["breaker"] == "shop/database"
        shown = document(busy.run_tool("breaker", "show", "database", "--json"), "breaker")["breaker"]
        assert shown["state"] == done["state"]
        manual = {"uid": os.getuid(), "reason": "drill"}
        assert not shown["manual"] or manual.items() <= shown["manual"].items()
        document(busy.run_tool("health", "--json"), "health")
        document(busy.run_tool("breakers", "--json"), "breakers")


def test_what_it_shows_is_what_happened(busy: House) -> None:
    """Breakers, counts, classes and events of one outage, in plain columns."""
    breakers = busy.run_tool("breakers").stdout.splitlines()
    assert [line.split()[:2] for line in breakers[1:]] == [
        ["shop/database", "OPEN"],
        ["shop/cache", "CLOSED"],
    ]
    health = busy.run_tool("health")
    assert health.returncode == 0
    assert health.stdout.startswith("warn: shop/database is OPEN")
    assert busy.run_tool("health", "--fail-on", "warn").returncode == 3
    errors = busy.run_tool("errors", "database").stdout.splitlines()
    assert errors[1].split()[:3] == ["shop/database", "Broken", "3"]
    assert "shop/database" in busy.run_tool("events").stdout
    (row,) = (
        line.split() for line in busy.run_tool("stats").stdout.splitlines() if line.startswith("shop/cache")
    )
    assert row[1] == "20"
    processes = busy.run_tool("status").stdout.splitlines()
    assert [line.split()[:2] for line in processes] == [["breakerd", "RUNNING"], ["daemon", "RUNNING"]]


def test_a_command_is_obeyed_by_every_worker_until_it_ends(house: House) -> None:
    """Opened by hand, closed by its time: refused meanwhile, then tried, then closed."""
    hand = house.hand(namespace="shop")
    hand.order("guard", breaker="database", **SETTINGS)
    hand.order("call", breaker="database", how="ok")
    house.ask_patiently("breakers")
    wait_for("it is declared", lambda: house.run_tool("breaker", "show", "database").returncode == 0, 5.0)
    opened = house.run_tool("breaker", "open", "database", "--for", "1s", "--reason", "drill")
    assert "shop/database is FORCED_OPEN for 1s" in opened.stdout
    hand.order("call_until", breaker="database", result="refused")
    waited = house.run_tool("wait", "breaker", "database", "half-open", "--timeout", "10s", timeout=15.0)
    assert waited.returncode == 0, waited.stdout
    hand.order("call_until", breaker="database", result="ok")
    closed = house.run_tool("wait", "breaker", "shop/database", "closed", "--timeout", "10s", timeout=15.0)
    assert closed.returncode == 0, closed.stdout


def test_a_name_of_two_namespaces_is_ambiguous(house: House) -> None:
    """Both candidates are listed; the full name is taken."""
    for namespace in ("shop", "blog"):
        hand = house.hand(name=namespace, namespace=namespace)
        hand.order("guard", breaker="database")
        hand.order("call", breaker="database", how="ok")
    wait_for("both are declared", lambda: len(house.ask_patiently("breakers")["breakers"]) == 2, 5.0)
    ran = house.run_tool("breaker", "open", "database")
    assert ran.returncode == 1
    assert "shop/database" in ran.stderr
    assert "blog/database" in ran.stderr
    assert house.run_tool("breaker", "open", "blog/database").returncode == 0
    states = {one["name"]: one["state"] for one in house.ask_patiently("breakers")["breakers"]}
    assert states == {"shop/database": "CLOSED", "blog/database": "FORCED_OPEN"}


def promptly(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it; it must not take longer than is promised."""
    began = time.monotonic()
    ran = house.run_tool(*words)
    assert time.monotonic() - began <= PROMISED_S
    return ran


def test_away_is_told_from_hung(house: House) -> None:
    """J8: stopped, then killed; the text says which, with what to do; never longer than two seconds."""
    daemon = house.daemon_pid
    house.signal_nursery(signal.SIGSTOP)
    os.kill(daemon, signal.SIGSTOP)
    hung = promptly(house, "health")
    assert hung.returncode == 4
    assert f"process {daemon} is stopped" in hung.stderr
    assert f"kill -CONT {house.nursery_pid} {daemon}" in hung.stderr
    assert promptly(house, "health", "live", "--exit-code", "probe").returncode == 1
    house.signal_nursery(signal.SIGCONT)
    os.kill(daemon, signal.SIGCONT)
    assert house.run_tool("wait", "ready", "--timeout", "5s").returncode == 0
    house.kill_all()
    away = promptly(house, "health")
    assert away.returncode == 4
    assert "nobody listens" in away.stderr
    assert "start it" in away.stderr
    os.unlink(house.socket)
    gone = promptly(house, "health", "--json")
    assert document(gone, "error")["error"]["code"] == "absent"
    assert "does not exist" in gone.stderr


def test_a_killed_daemon_is_not_away(house: House) -> None:
    """The nursery has a new one before the question's time is over; the asker sees nothing of it."""
    for _ in range(3):
        house.kill_daemon()
        ran = promptly(house, "health", "live")
        assert (ran.returncode, ran.stderr) == (0, "")


def test_denied_is_told_from_both(house: House) -> None:
    """J8: another user learns which group to join, and a program of the group may not command."""
    if os.geteuid() != 0:
        could_not_run("J8-denied", "only root can become another user")
    house.root.chmod(0o755)
    began = time.monotonic()
    denied = as_nobody(house, "health")
    assert time.monotonic() - began <= PROMISED_S
    assert denied.returncode == 4
    assert "permission denied" in denied.stderr
    assert "usermod -aG" in denied.stderr
    house.runtime.chmod(0o755)
    os.chmod(house.socket, 0o666)
    assert as_nobody(house, "health").returncode == 0
    command = as_nobody(house, "breaker", "open", "database")
    assert command.returncode == 4
    assert "commanders" in command.stderr


def as_nobody(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user without any right, who perhaps cannot reach this interpreter: all is loaded before."""
    code = (
        "import os, sys; from supervisor.ctl import breaker, health, main, reloading, trouble; "
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); sys.exit(main.main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=house.surroundings(), cwd=ROOT, capture_output=True, text=True, timeout=10.0, check=False,
    )  # fmt: skip


def test_a_bad_file_is_refused_with_what_check_says(build: Callable[..., House]) -> None:
    """J2: exit code 78 at the start, and the same lines from `config check`, which needs no supervisor."""
    house = build("[breakers.database]\nfailure_threshold = -3\n[control]\ncommanders = ['deploy']\n")
    started = house.spawn()
    assert started.wait(10.0) == 78
    checked = house.run_tool("config", "check", str(house.config))
    assert checked.returncode == 3
    for line in checked.stdout.splitlines():
        assert line.startswith(f"{house.config}: ")
        assert line in house.logged()


def test_the_example_is_a_configuration_that_runs(build: Callable[..., House], tmp_path: Path) -> None:
    """What `config example` prints is taken by `breakerd run`, and shown as in use."""
    example = build().run_tool("config", "example").stdout
    house = build(example).start()
    shown = document(house.run_tool("config", "show", "--json"), "config-show")
    assert shown["file"] == str(house.config)


@pytest.fixture
def following(house: House) -> Iterator[subprocess.Popen[str]]:
    """`supervisorctl events --watch --json`, running."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "supervisor.ctl.main", "events", "--watch", "--json"],
        env=house.surroundings(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_events_are_followed_over_the_death_of_a_daemon(
    house: House, following: subprocess.Popen[str]
) -> None:
    """Every event once and in order, also those of the daemon that comes after; ^C ends it well."""
    assert following.stdout is not None
    numbers = [event["number"] for event in json.loads(following.stdout.readline())["events"]]
    house.wait_reborn(house.kill_daemon())
    house.hand(namespace="shop")
    while len(numbers) < len(house.ask_patiently("events", after=0, limit=1000)["events"]):
        found = json.loads(following.stdout.readline())
        assert problems("events", found) == []
        numbers += [event["number"] for event in found["events"]]
    assert numbers == list(range(1, len(numbers) + 1))
    following.send_signal(signal.SIGINT)
    assert following.wait(20.0) == 0
