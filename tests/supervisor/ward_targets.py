"""What the managed processes of `test_wards` and `tests.live.test_managed` do: each does one thing.

They say that they have begun by a file, `FOLDER/NAME`, that has what they see of themselves.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import ipc


def _say(folder: str, name: str) -> None:
    """Make the file whole or not at all."""
    seen = {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "parent": os.getppid(),
        "descriptors": {number: _what(number) for number in os.listdir("/proc/self/fd")},
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "arguments": sys.argv,
        "path": sys.path[0],
        "level": logging.getLevelName(logging.getLogger().getEffectiveLevel()),
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    }
    half = Path(folder, f".{name}.{os.getpid()}")
    half.write_text(json.dumps(seen))
    half.rename(Path(folder, name))


def _what(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""  # the one by which the list was read


def stays(folder: str, name: str = "begun") -> None:
    """Until it is ended."""
    _say(folder, name)
    threading.Event().wait()


def ignores(folder: str, name: str = "begun") -> None:
    """Until it is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stays(folder, name)


def ends(code: int) -> None:
    """At once, with this exit code."""
    sys.exit(code)


def returns() -> None:
    """At once, and well."""


def raises() -> None:
    """At once, and badly."""
    raise LookupError("what was looked for")


def grows(folder: str, megabytes: int) -> None:
    """Takes that much memory."""
    hoard = b"x" * (megabytes << 20)
    stays(folder, f"grown-{len(hoard)}")


def beats(folder: str, times: int) -> None:
    """Beats that often, every 20 ms, then hangs."""
    _say(folder, "begun")
    pause = threading.Event()
    for _ in range(times):
        ipc.beat()
        pause.wait(0.02)
    pause.wait()


def talks(talk: socket.socket) -> None:
    """Answers each message with its pid in front of it."""
    with talk:
        while data := talk.recv(8192):
            talk.send(f"{os.getpid()} ".encode() + data)


def leaves_a_note(folder: str, name: str) -> None:
    """Ended by SIGTERM, writes its name below those of the others first."""

    def ended(_number: int, _frame: object) -> None:
        with Path(folder, "order").open("a") as file:
            file.write(f"{name}\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, ended)
    _say(folder, name)
    while True:
        signal.pause()
