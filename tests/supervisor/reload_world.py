"""A reload in a pretend world: nursery, mind, thread and clock are the test's, the file is a real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from supervisor import descriptors
from supervisor.actor import Fault, Stage
from supervisor.connections import Connections, Peer, Request
from supervisor.mind import Tell, Told
from supervisor.reload import Answered, Asked, Look, Reload
from supervisor.settings import SupervisorSettings, parse

OLD = "[breakers.database]\nfailure_threshold = 3\n"
NEW = "[breakers.database]\nfailure_threshold = 4\n[breakers.cache]\n[supervisor]\nring_slots = 1024\n"
NOTHING: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
WRONG = "[breakers.database]\nfailure_threshold = -3\n[supervisor]\ntick_s = 5\n"


class Mind:
    """Keeps what it is told; answers when the test says."""

    name = "mind"

    def __init__(self) -> None:
        self.told: list[Tell] = []

    def receive(self, message: Tell) -> None:
        """Keep it."""
        self.told.append(message)

    def restart(self) -> None:
        """Nothing to forget."""


class World:
    """A reload with a pretend nursery, mind, thread and clock, and a real file."""

    def __init__(self, folder: Path, text: str = OLD, fault: str | None = None) -> None:
        self.file = folder / "breakerd.toml"
        self.file.write_text(text)
        self.now = 100.0
        self.threads: list[tuple[Callable[[], object], Callable[[], None]]] = []
        self.given: list[tuple[int, str]] = []
        """(ticket, text) that went to the nursery."""
        self.settled: list[str] = []
        self.hangups: list[int] = []
        self.thread = True
        """Whether one can be started."""
        self.room = True
        """Whether the nursery's queue has any."""
        self.applied: list[SupervisorSettings] = []
        self.answers: dict[int, Any] = {}
        self.refusals: dict[int, tuple[str, str]] = {}
        self.steps: list[str] = []
        self.stage = Stage(lambda _: None, lambda: self.now, lambda _: None, fault=Fault(fault))
        self.mind = Mind()
        self.reload = Reload(
            parse(text, str(self.file)),
            self.send,
            self.run,
            self.applied.append,
            lambda: self.now,
            self.steps.append,
        )
        self.reload.connections = cast(Connections, self)
        self.reload.stage = self.stage
        self.stage.add(self.mind)
        self.stage.add(self.reload)

    def run(self, work: Callable[[], object], done: Callable[[], None]) -> None:
        """In the thread, when the test says."""
        if not self.thread:
            raise RuntimeError("can't start new thread")
        self.threads.append((work, done))

    def send(self, data: bytes, numbers: tuple[int, ...]) -> bool:
        """To the nursery."""
        if not self.room:
            return False
        if data[:1] == descriptors.LOAD:
            (number,) = numbers
            text = os.pread(number, 1 << 20, 0).decode()
            self.given.append((int.from_bytes(data[1:], "big"), text))
        else:
            assert (data[:1], numbers) == (descriptors.SETTLED, ())
            self.hangups.append(int.from_bytes(data[1:9], "big"))
            self.settled.append(data[9:].decode())
        return True

    def answer(self, connection: int, _number: int, value: Any) -> bool:
        """As Connections does it."""
        self.answers[connection] = value
        return True

    def refuse(self, connection: int, _number: int, code: str, text: str) -> bool:
        """As Connections does it."""
        self.refusals[connection] = (code, text)
        return True

    def ask(self, connection: int = 1) -> None:
        """Somebody asks for a reload."""
        request = Request(connection, 7, {"verb": "reload"}, Peer(1, 1000, 1000), ())
        self.stage.post("reload", Asked(1000, "deploy", request))

    def read(self) -> None:
        """The thread does its work."""
        work, done = self.threads.pop()
        work()
        done()

    def taken(self, text: str = "") -> None:
        """The nursery answers what it was given last."""
        self.stage.post("reload", Answered(self.given[-1][0], text))

    def committed(self) -> None:
        """The mind answers what it was told last."""
        self.stage.post("reload", Told(self.mind.told[-1].ticket, None))

    def look(self, seconds: float = 0.0) -> None:
        """Time passes."""
        self.now += seconds
        self.stage.post("reload", Look())

    def through(self) -> None:
        """A good file to its end."""
        self.read()
        self.taken()
        self.committed()
