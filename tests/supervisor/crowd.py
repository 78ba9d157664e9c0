"""A pretend host whose workers are of many users, and declare a great many breakers."""

from __future__ import annotations

from supervisor.messages import BreakerDeclared, DaemonStarted, Happened, Tick, WorkerJoined
from tests.supervisor.conversation import Host, nonce


class Crowd(Host):
    """A host whose workers are of any user, and whose supervisor is user 77."""

    def __init__(self) -> None:
        super().__init__()
        self.say(DaemonStarted(1, 7, (), 77))

    def tick(self, now: float) -> None:
        """Time passes."""
        self.now = now
        self.say(Tick())

    def come(self, letter: str, uid: int, namespace: str) -> None:
        """A worker of this user joins."""
        self.say(WorkerJoined(nonce(letter), uid, 0, uid, f"u{uid}", letter, namespace, "0.1.0"))

    def fill(self, letter: str, count: int, first: int = 0) -> None:
        """This worker declares so many breakers."""
        for row in range(count):
            told = BreakerDeclared(nonce(letter), row, f"b{first + row}", "{}")
            self.effects = self.engine.handle(told, self.now, 0.0)

    @property
    def refused(self) -> str:
        """The event of the message said last; empty = there was none."""
        return next((one.text for one in self.effects if isinstance(one, Happened)), "")

    @property
    def names(self) -> list[str]:
        """Every breaker."""
        return list(self.engine.catalogue.named)
