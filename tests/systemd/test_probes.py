"""Probes inside the sandbox of the shipped unit: databases on another host, programs, files of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import could_not_run
from tests.faults.judge import judge
from tests.live.house import wait_for
from tests.schemas import problems
from tests.servers import Postgres, RedisServer, room
from tests.systemd.box import PYTHON
from tests.systemd.elsewhere import THERE, Elsewhere
from tests.systemd.service import UNIT, Service

FILE: Final = "/var/lib/breakerd/probed.db"
OPEN_S: Final = 2.5
CONFIG: Final = """
[breakers.{name}]
failure_threshold = 3
recovery_timeout = {open_s}
recovery_growth = 1
recovery_jitter = 0
successes_to_close = 2
[breakers.{name}.probe]
interval_s = {interval_s}
interval_max_s = {interval_s}
timeout_s = 1.0
rise = 2
"""
PROBES: Final = {
    "database": f'kind = "sqlalchemy"\nurl = "postgresql+psycopg://postgres@{THERE}/postgres"\n',
    "cache": f'kind = "redis"\nurl = "redis://{THERE}:6379/0"\n',
    "port": f'kind = "tcp"\naddress = "{THERE}:6379"\n',
    "page": f'kind = "http"\nurl = "http://{THERE}:8080/"\n',
    "function": 'kind = "python"\ntarget = "os:getpid"\n',
    "file": f'kind = "sqlalchemy"\nurl = "sqlite:///{FILE}"\n',
    "program": 'kind = "exec"\ncommand = ["/bin/sh", "-c", "test -w /var/lib/breakerd && ! touch /etc/x"]\n',
    "sleeper": 'kind = "exec"\ncommand = ["/bin/sh", "-c", "sleep 4711 & sleep 4711"]\n',
}
REMOTE: Final = ("database", "cache", "port")


@pytest.fixture
def other(service: Service) -> Iterator[tuple[Elsewhere, Postgres, RedisServer]]:
    """Another host with both servers."""
    if shutil.which("ip") is None:
        could_not_run("systemd:probes", "there is no ip to wire namespaces with")
    with contextlib.ExitStack() as kept:
        there = kept.enter_context(Elsewhere(service.box))
        places: list[Path] = [kept.enter_context(room()) for _ in range(2)]
        servers = there.postgres(places[0]), there.valkey(places[1])
        for server in servers:
            kept.callback(server.kill)
        yield there, *servers


def configured(service: Service, *names: str) -> Service:
    """Installed as shipped, and started with the probes of these breakers."""
    service.install()
    text = "".join(
        CONFIG.format(name=name, open_s=OPEN_S, interval_s=60 if name == "sleeper" else 0.4) + PROBES[name]
        for name in names
    )
    service.box.write("/etc/breakerd/breakerd.toml", text)
    service.start()
    if "file" in names:
        nobody_else = ("setpriv", "--reuid=breakerd", "--regid=breakerd", "--clear-groups", PYTHON, "-c")
        service.box.run(
            *nobody_else, f"import sqlite3; sqlite3.connect('{FILE}').execute('CREATE TABLE t (x)')"
        )
    return service


def probe(service: Service, name: str) -> Any:
    """What `supervisorctl probe NAME` says."""
    ran = service.box.run("/opt/env/bin/supervisorctl", "probe", name, "--json", check=False)
    told = json.loads(ran.stdout)
    assert problems("probe", told) == []
    return told


def test_every_kind_of_probe_works_inside_the_shipped_sandbox(
    service: Service, other: tuple[Elsewhere, Postgres, RedisServer], tmp_path: Path
) -> None:
    """PostgreSQL, Redis, a port and a page of another host; SQLite, a program, a function in its own."""
    names = [name for name in PROBES if name != "sleeper"]
    with other[0].pages(tmp_path):
        configured(service, *names)
        _every_kind_works(service, names)


def _every_kind_works(service: Service, names: list[str]) -> None:
    told = {name: probe(service, name) for name in names}
    assert {
        name: (one["verdict"], one["text"]) for name, one in told.items() if one["verdict"] != "passed"
    } == {}
    assert not service.box.path("/etc/x").exists(), "the program was outside of the sandbox"
    health = service.ask("health", level="full")
    assert health["status"] == "pass", health.get("output")
    score = service.box.run("systemd-analyze", "security", "--threshold=20", UNIT)
    assert score.returncode == 0


def test_a_program_that_overruns_is_killed_with_its_children_inside_the_sandbox(service: Service) -> None:
    """Nothing of it is left in the unit, and the next probe is asked."""
    configured(service, "sleeper", "file")
    told = probe(service, "sleeper")
    assert told["verdict"] == "failed"
    assert "1 s" in told["text"] or "time" in told["text"]

    def asleep() -> list[int]:
        return [pid for pid in service.processes if b"4711" in _line(pid)]

    wait_for("nothing of it is left", lambda: not asleep(), 5.0)
    assert probe(service, "file")["verdict"] == "passed"
    assert asleep() == []


def _line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.parametrize("how", ["server frozen", "wire cut"])
def test_a_dependency_on_another_host_is_held_open_until_its_probe_passes(
    service: Service, other: tuple[Elsewhere, Postgres, RedisServer], how: str
) -> None:
    """Frozen, or behind a cut wire: nobody is let through meanwhile, and trials follow when it answers."""
    there, *servers = other
    configured(service, *REMOTE)
    hand = service.hand()
    for name in REMOTE:
        hand.order("guard", breaker=name)
        hand.order("call", breaker=name)
    if how == "wire cut":
        there.cut()
    else:
        for server in servers:
            server.freeze()
    # A port is open as long as the kernel has room in the queue: only the wire closes that one.
    closed = REMOTE if how == "wire cut" else REMOTE[:2]
    for name in closed:
        hand.order("call", breaker=name, how="fail", times=3)

    opened = time.monotonic()

    def failed(name: str) -> bool:
        return bool(service.ask("breaker", name=name)["breaker"]["probe"]["verdict"] == "failed")

    for name in closed:
        wait_for(f"the probe of {name} fails", partial(failed, name), 10.0, 0.05)
    wait_for("its open time is over", lambda: time.monotonic() - opened > OPEN_S + 1.0, 10.0, 0.1)
    for name in closed:
        assert service.state(name) == "OPEN", f"{name} lets trials through while its probe fails"
        assert hand.order("call", breaker=name)["refused"] == 1
    if how == "wire cut":
        there.join()
    else:
        for server in servers:
            server.thaw()
    for name in closed:
        wait_for(f"{name} lets trials through", partial(_admits, service, name), 20.0, 0.05)
        for _ in range(2):
            hand.order("call_until", breaker=name, result="ok")
        wait_for(f"{name} is closed", partial(_is_closed, service, name), 5.0)
    assert hand.leave() == 0
    judge(service)


def _is_closed(service: Service, name: str) -> bool:
    return service.state(name) == "CLOSED"


def _admits(service: Service, name: str) -> bool:
    return service.state(name) != "OPEN"
