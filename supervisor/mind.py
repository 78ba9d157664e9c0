"""The actor around the engine: handles messages, commits them, and only then lets their effects out.

The order is drain, judge, commit, publish: nothing leaves this process before the journal record of its
cause is valid. A message that makes the engine raise is dropped, the engine is built again from the
journal, and whoever reads the rings goes back to the positions that it knows.
Neighbours: `engine` (decides), `journal` (remembers), `outlet` (carries out), `actor` (the stage).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from supervisor.actor import Stage
from supervisor.engine import Engine
from supervisor.image import Loaded, read_image
from supervisor.journal import Journal
from supervisor.messages import Answer, Effect, Message, Refused, Tick, from_plain, to_plain
from supervisor.probe_watch import Probing
from supervisor.steps import Step

log = logging.getLogger("breakerd.mind")

AGAIN_S: Final = 2.0
"""After a snapshot for which there was no room, the next one is tried so much later."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Handle these messages as one commit, then send `Told` with the same ticket to `sender`."""

    messages: tuple[Message, ...]
    sender: str = ""
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """The messages of the `Tell` with this ticket are committed; `answer` is the last to one of them."""

    ticket: int
    answer: Answer | Refused | None


@dataclass(frozen=True, slots=True)
class Reseek:
    """The engine was built again: read the rings from where it stands now."""


class Outlet(Protocol):
    """What carries effects out into the world, after their commit."""

    def deliver(self, effects: list[Effect]) -> None:
        """Carry out every effect that is not an answer."""


class Mind:
    """Owns the engine and the journal; single writer of both."""

    name = "mind"

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        outlet: Outlet,
        clock: Callable[[], float],
        dice: Callable[[], float],
        step: Step,
    ) -> None:
        self.engine = engine
        self.journal = journal
        self.stage: Stage
        self.problem = ""
        """Why the last commit failed; empty = it did not."""
        self._outlet = outlet
        self._clock = clock
        self._dice = dice
        self._step = step
        self._again_at = -math.inf

    def openings(self) -> tuple[Probing, ...]:
        """Which probes the breakers wait for. The engine is another one after a restart: ask each time."""
        return self.engine.catalogue.probing()

    def receive(self, message: Tell) -> None:
        """Handle, commit, deliver, tell the sender."""
        effects = self.transact(message.messages)
        if not message.sender:
            return
        answers = [effect for effect in effects if isinstance(effect, Answer | Refused)]
        self.stage.post(message.sender, Told(message.ticket, answers[-1] if answers else None))
        self._step("told")

    def transact(
        self, messages: tuple[Message, ...], wait: Callable[[str], object] | None = None
    ) -> list[Effect]:
        """The effects of these messages, committed and delivered.

        Raises OSError where there is no room to commit them; with `wait` it calls that and tries again.
        """
        now = self._clock()
        effects: list[Effect] = []
        whole = True
        if self.engine.next_time() <= now:
            # Time comes first: a lease that ran out while this process was stopped is gone before
            # anybody is served.
            messages = (Tick(), *messages)
        for message in messages:
            chance = self._dice()
            effects += self.engine.handle(message, now, chance)
            whole = whole and self.journal.append(now, chance, to_plain(message))
        self._step("appended")
        while True:
            try:
                self._commit(whole, now)
                break
            except OSError:
                if wait is None:
                    raise
                wait(self.problem)
        self._step("committed")
        self._outlet.deliver(effects)
        self._step("published")
        return effects

    def _commit(self, whole: bool, now: float) -> None:
        """Make what was appended valid. Raises OSError if the checkpoint must grow and cannot: then the
        message fails as a whole, and health says that the supervisor is not ready.
        """
        try:
            if whole and (not self.journal.wants_snapshot or now < self._again_at):
                self.journal.commit()
            else:
                self._snapshot(whole, now)
        except OSError as error:
            self.problem = error.strerror or str(error)
            raise
        self.problem = ""

    def _snapshot(self, whole: bool, now: float) -> None:
        """A snapshot; where there is no room for one, records behind the last as long as they fit."""
        try:
            self.journal.snapshot(self.engine.to_plain())
        except OSError as error:
            if not whole:
                raise
            self.journal.cramped = f"checkpoint: there is no room for a snapshot: {error.strerror or error}"
            self._again_at = now + AGAIN_S
            self.journal.commit()

    def make_room(self) -> None:
        """Now and then, outside of any message: the snapshot for which there was no room."""
        now = self._clock()
        if self.journal.cramped and now >= self._again_at:
            self._again_at = now + AGAIN_S
            self._snapshot(whole=True, now=now)

    def restart(self) -> None:
        """Forget what was not committed; tell the reader of the rings."""
        self.engine = rebuild(read_image(self.journal.image()))
        self.journal.rollback()
        with contextlib.suppress(OSError):  # there is no room: what was committed is valid
            self.journal.snapshot(self.engine.to_plain())
        self._outlet.deliver(list(self.engine.publications()))
        self.stage.post("intake", Reseek())


def rebuild(loaded: Loaded) -> Engine:
    """The engine that the journal tells of: its snapshot and every message since."""
    engine = Engine() if loaded.snapshot is None else Engine.from_plain(loaded.snapshot)
    for now, chance, plain in loaded.records:
        engine.handle(from_plain(plain), now, chance)
    return engine
