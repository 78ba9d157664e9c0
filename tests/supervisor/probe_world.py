"""A pretend surrounding of the actor that has probes asked: engine, nursery, probers and time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import pytest

from supervisor.actor import Stage
from supervisor.connections import Peer, Request
from supervisor.messages import ProbeEnded
from supervisor.mind import Tell
from supervisor.probe_watch import Probing
from supervisor.probes import (
    Key,
    Look,
    ProberCame,
    ProberSaid,
    Probes,
    Reconfigured,
)
from supervisor.settings_probe import ProbeTable

TABLE: Final = ProbeTable("tcp", address="h:80", interval_s=5.0, timeout_s=2.0, jitter=0.0)
HUNG: Final = replace(TABLE, address="hung:80")
ONE: Final[Key] = ("prober:1", 101)
TWO: Final[Key] = ("prober:2", 102)


class World:
    """The stage of one daemon's life, with whatever was put on its wires."""

    def __init__(self, dice: float = 0.5) -> None:
        self.now = 100.0
        self.sent: dict[Key, list[dict[str, Any]]] = {}
        self.killed: list[Key] = []
        self.groups: list[int] = []
        self.sweeps: list[float] = []
        self.told: list[ProbeEnded] = []
        self.answers: list[tuple[int, Any]] = []
        self.openings: list[Probing] = []
        self.deaf: set[Key] = set()
        self.stage = Stage(lambda _: None, lambda: self.now, lambda failed: pytest.fail(str(failed)))
        self.probes = Probes(self.opened, self, lambda: self.now, lambda: dice)
        self.probes.stage = self.stage
        self.probes.connections = self  # type: ignore[assignment]  # answer and refuse are all that is used
        self.stage.add(self.probes)
        self.stage.add(self)

    # --- what the actor has around it ---

    name = "mind"

    def receive(self, message: Tell) -> None:
        """The engine is told."""
        self.told += [one for one in message.messages if isinstance(one, ProbeEnded)]

    def restart(self) -> None:
        """Nothing to forget."""

    def opened(self) -> Iterable[Probing]:
        """What the engine says of its breakers."""
        return self.openings

    def say(self, key: Key, data: bytes) -> bool:
        """A message to a prober."""
        if key in self.deaf:
            return False
        self.sent.setdefault(key, []).append(json.loads(data))
        return True

    def kill(self, key: Key) -> None:
        """The nursery is asked."""
        self.killed.append(key)

    def kill_group(self, group: int) -> None:
        """A program is killed."""
        self.groups.append(group)

    def sweep(self) -> None:
        """Strays are looked for."""
        self.sweeps.append(self.now)

    def answer(self, _connection: int, number: int, value: Any) -> bool:
        """Somebody gets an answer."""
        self.answers.append((number, value))
        return True

    def refuse(self, _connection: int, number: int, code: str, _text: str) -> bool:
        """Somebody gets a no."""
        self.answers.append((number, code))
        return True

    # --- what a test does ---

    def post(self, message: Any) -> None:
        """One message to the actor."""
        assert self.stage.post("probes", message)

    def configure(self, **probes: ProbeTable) -> None:
        """These are in force."""
        self.post(Reconfigured(probes))

    def come(self, *keys: Key) -> None:
        """These probers come, and are free."""
        for key in keys:
            self.post(ProberCame(key))
            self.verdict(key)

    def last(self, key: Key) -> dict[str, Any]:
        """What that prober was told last."""
        return self.sent[key][-1]

    def say_back(self, key: Key, **said: Any) -> None:
        """That prober says this about what it was asked last."""
        self.post(ProberSaid(key, json.dumps({"number": self.last(key)["number"], **said}).encode()))

    def verdict(self, key: Key, verdict: str = "passed", text: str = "", **details: int) -> None:
        """That prober is done."""
        self.say_back(key, verdict=verdict, text=text, took_s=0.25, details=details)

    def pass_time(self, seconds: float) -> None:
        """Time goes by, looked at ten times a second."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.1)
            self.post(Look())

    def asked(self, key: Key) -> str | None:
        """The address that this prober was asked last; None = whether it is free."""
        probe = self.last(key).get("probe")
        return None if probe is None else str(probe["address"])


def request(number: int) -> Request:
    """A request on a connection of that number."""
    return Request(number, number, {"verb": "probe"}, Peer(1, 0, 0), ())
