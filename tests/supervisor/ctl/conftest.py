"""A tiny supervisor that says what a test tells it to, and a way to run supervisorctl against it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ipc import wire
from supervisor.ctl.ask import Clock
from supervisor.ctl.main import run


@dataclass(frozen=True)
class No:
    """An answer that says no."""

    code: str
    text: str


SILENCE = object()
"""Said instead of an answer: the connection stays open and nothing comes."""
HANG_UP = object()
"""Said instead of an answer: the connection is closed."""


class Stage:
    """Listens on a UNIX socket and gives the answers of `script`, by verb; a list is given one by one."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/breakerd.sock"
        self.script: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self._kept: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(connection)
            with contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        frames: list[wire.Frame] = []
        reader = wire.FrameReader()
        while not frames:
            data = connection.recv(65_536)
            if not data:
                return
            frames = reader.feed(data)
        body = json.loads(frames[0].body)
        body.pop("until", None)  # when the asker gives up
        self.asked.append(body)
        said = self.script[body["verb"]]
        if isinstance(said, list):
            said = said.pop(0) if len(said) > 1 else said[0]
        if said is HANG_UP:
            connection.close()
        elif isinstance(said, No):
            connection.sendall(wire.error(frames[0].request, said.code, said.text))
        elif said is not SILENCE:
            connection.sendall(wire.answer(frames[0].request, said))

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)
        for connection in self._kept:
            connection.close()


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        """True."""
        return True


@dataclass
class Ran:
    """What one run of supervisorctl left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Standard output in lines."""
        return self.out.splitlines()


@dataclass
class Ticks:
    """Time that passes only when somebody sleeps; a sleep that goes beyond `last_s` is interrupted."""

    last_s: float = float("inf")
    now_s: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        """As supervisorctl sees it."""
        return Clock(lambda: self.now_s, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        if self.now_s - 1000.0 > self.last_s:
            raise KeyboardInterrupt


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty directory whose path is short enough for a socket."""
    made = tempfile.mkdtemp(prefix="ctl-", dir="/tmp")
    yield Path(made)
    shutil.rmtree(made)


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    """A supervisor that says what it is told to."""
    made = Stage(str(folder))
    yield made
    made.close()


Ctl = Callable[..., Ran]


@pytest.fixture
def ctl(folder: Path) -> Ctl:
    """Run supervisorctl with these words against the socket of `stage`."""

    def call(*words: str, out: io.StringIO | None = None, ticks: Ticks | None = None) -> Ran:
        clock = ticks.clock() if ticks else Clock(time.monotonic, time.sleep)
        stdout, stderr = out or io.StringIO(), io.StringIO()
        given = list(words)
        if not any(word.startswith("--socket") for word in words):
            given += ["--socket", f"{folder}/breakerd.sock"]
        code = run(given, "supervisorctl", stdout, stderr, clock)
        return Ran(code, stdout.getvalue(), stderr.getvalue())

    return call
