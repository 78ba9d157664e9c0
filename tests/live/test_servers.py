"""Servers and pools as people run them: each process attaches by itself, each outcome is counted once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.house import ROOT, House, wait_for

SECONDS = 30.0


@contextlib.contextmanager
def running(house: House, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program of a test, which is ended with all its children."""
    log = house.root / "program.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
            env=house.surroundings(**environment), start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        children = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(10.0)
        finally:
            for child in children:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            assert process.stdout is not None
            process.stdout.close()


def told(house: House, process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the program says that it did."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (house.root / "program.log").read_text()
    values: dict[str, Any] = json.loads(line)
    return values


def counted(house: House) -> dict[str, int]:
    """The outcomes of all breakers."""
    totals: dict[str, int] = house.stats()["totals"]["outcomes"]
    return totals


def attached(house: House) -> set[int]:
    """The processes that are attached."""
    return {worker["pid"] for worker in house.workers()}


def check(house: House, calls: int, pids: set[int]) -> None:
    """Everybody is attached by itself, and everything was counted, once, and stays so after the end."""
    wait_for("everybody is attached", lambda: pids <= attached(house), SECONDS)
    wait_for(f"{calls} outcomes are counted", lambda: counted(house)["success"] >= calls, SECONDS)
    assert sum(counted(house).values()) == calls
    assert set(house.stats()["lost"].values()) == {0}


@pytest.mark.parametrize(
    "program", ["fork", "spawn", "forkserver", "pool", "fork-in-a-call", "fork-in-c", "threads", "asyncio"]
)
def test_processes_of_one_program(house: House, program: str) -> None:
    """However a process came to be, it attaches by itself, and its outcomes are counted exactly once."""
    with running(house, "-m", "tests.live.programs", program) as process:
        did = told(house, process)
        check(house, did["calls"], set(did["pids"]))
    wait_for("nobody is attached", lambda: not attached(house), SECONDS)
    assert sum(counted(house).values()) == did["calls"]


@pytest.mark.parametrize("order", ["patched-first", "patched-last"])
def test_gevent(house: House, order: str) -> None:
    """Under gevent's patches greenlets take turns in guarded calls and blocks; everything is counted."""
    with running(house, "-m", "tests.live.gevent_program", order) as process:
        did = told(house, process)
        check(house, did["calls"], set(did["pids"]))


class Unix(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


def get(path: Path) -> int:
    """One request; the process that answered it."""
    connection = Unix(path)
    try:
        connection.request("GET", "/")
        return int(connection.getresponse().read())
    finally:
        connection.close()


def test_gunicorn_preload(house: House) -> None:
    """Workers forked from a master that has made a guarded call: each its own attachment, exact counts."""
    bind = house.root / "web.sock"
    command = (
        "-m",
        "gunicorn",
        "--preload",
        "-w",
        "3",
        "-b",
        f"unix:{bind}",
        "tests.live.web_program:application",
    )
    with running(house, *command) as process:
        wait_for("gunicorn listens", bind.exists, SECONDS)
        pids: set[int] = set()
        requests = 0
        while requests < 300 or len(pids) < 3:
            pids.add(get(bind))
            requests += 1
            assert requests < 5_000
        check(house, 1 + requests, {*pids, process.pid})
        process.send_signal(signal.SIGTERM)
    assert sum(counted(house).values()) == 1 + requests


def test_celery_prefork(house: House) -> None:
    """Tasks in Celery's forked pool are guarded in processes that attach by themselves; exact counts."""
    folder = house.root / "tasks"
    for name in ("queue", "control", "done"):
        (folder / name).mkdir(parents=True)
    environment = {"TASKS_FOLDER": str(folder)}
    send = "from tests.live.task_program import ask\nfor number in range(60): ask.delay(number)"
    worker = (
        "-m",
        "celery",
        "-A",
        "tests.live.task_program",
        "worker",
        "-P",
        "prefork",
        "-c",
        "2",
        "-l",
        "WARNING",
    )
    if os.getuid() == 0:
        environment["C_FORCE_ROOT"] = "1"
    subprocess.run(
        [sys.executable, "-c", send],
        cwd=ROOT,
        env=house.surroundings(**environment),
        check=True,
        timeout=SECONDS,
    )
    with running(house, *worker, "--without-gossip", "--without-mingle", **environment) as process:
        done = folder / "done"
        wait_for("all tasks are done", lambda: len(list(done.iterdir())) == 60, SECONDS)
        pids = {int(text) for path in done.iterdir() if (text := path.read_text())}
        check(house, 60, pids)
        process.send_signal(signal.SIGTERM)
