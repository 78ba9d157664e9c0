"""What a process pays to begin: `import ipc`, and `supervisorctl health` as a whole process.

The rival of the second is `supervisorctl status` of PyPI's supervisor 4.3.0 with its own running daemon.
Both are installed by pip into virtual environments that are made here, so that both have the same
start-up files and console scripts; the runs alternate. Needs the network or pip's cache.
Neighbours: `supervised`, whose daemon is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, main, share
from benchmarks.supervised import ROOT, supervisor

ROUNDS: Final = 40
RIVAL: Final = "supervisor==4.3.0"
IMPORT_TARGET_S: Final = 0.030
SHIPPED: Final = (
    *("ipc", "supervisor", "workers", "systemd", "pyproject.toml", "README.md", "LICENSE"),
    *("memory_config", "memory_error_handler", "memory_error_handler_integration_example"),
)

CONFIG: Final = """
[unix_http_server]
file={folder}/s.sock
[supervisord]
logfile={folder}/s.log
pidfile={folder}/s.pid
nodaemon=true
user=root
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/s.sock
[program:sleeper]
command=sleep 3600
"""


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """How long one run of a process takes. Raises CalledProcessError if it fails."""
    began = time.monotonic()
    subprocess.run(command, env=environment, cwd="/", check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def alternate(first: list[str], second: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """The quicker quarters of two commands that take turns: other work on the machine only ever adds.

    The first round is warming up.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for command, taken in zip((first, second), times, strict=True):
            taken.append(seconds(command, environment))
    return share(times[0][1:], 0.25), share(times[1][1:], 0.25)


def environment_with(folder: str, what: str) -> str:
    """The `bin` folder of a new virtual environment with one distribution installed."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([f"{folder}/bin/pip", "install", "-q", what], check=True, stdout=sys.stderr)
    return f"{folder}/bin"


def own_copy(folder: str) -> str:
    """The shipped files in a folder of their own, so that installing leaves nothing in the tree."""
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, f"{folder}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


def wait_for_rival(command: list[str], environment: dict[str, str]) -> None:
    """Wait until the rival's daemon answers and its program runs."""
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline:
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if "RUNNING" in told.stdout:
            return
        time.sleep(0.1)
    raise RuntimeError("PyPI's supervisord does not answer")


def measure() -> list[Figure]:
    """Two rows."""
    hidden = ("PYTHON", "BREAKERD_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    with tempfile.TemporaryDirectory(prefix="bkb-", dir="/tmp") as folder:
        Path(folder, "copy").mkdir()
        ours = environment_with(f"{folder}/ours", own_copy(f"{folder}/copy"))
        bare, imported = alternate(
            [f"{ours}/python", "-c", "pass"], [f"{ours}/python", "-c", "import ipc"], environment
        )
        theirs = environment_with(f"{folder}/theirs", RIVAL)
        config = Path(folder, "s.conf")
        config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
        ask = [f"{theirs}/supervisorctl", "-c", str(config), "status"]
        daemon = subprocess.Popen(
            [f"{theirs}/supervisord", "-c", str(config)],
            env=environment,  # without a path on which its package has the name of one of ours
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_rival(ask, environment)
            with supervisor() as running:
                health = [f"{ours}/supervisorctl", "--socket", running.socket, "health"]
                mine, rival = alternate(health, ask, environment)
        finally:
            daemon.terminate()
            daemon.wait()
    cost = imported - bare
    return [
        Figure(
            "`import ipc` over bare `python -c pass`",
            f"{cost * 1e3:.1f} ms (bare {bare * 1e3:.1f} ms)",
            f"{cost / IMPORT_TARGET_S:.2f} x target, {imported / bare:.2f} x bare",
            "<= 30 ms",
            cost <= IMPORT_TARGET_S,
        ),
        Figure(
            "`supervisorctl health`, whole process",
            f"{mine * 1e3:.0f} ms ({RIVAL}: {rival * 1e3:.0f} ms)",
            f"**{mine / rival:.2f} x** supervisor 4.3.0's `supervisorctl status`",
            "<= 1.0 x",
            mine <= rival,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(measure))
