"""The actor that has the rings read: one batch at a time on its way to the mind.

While a batch is on its way nothing is drained, so the readers never stand further than one batch ahead
of what is committed; when it is committed, the writers are told which slots are free again. If the mind
had to start anew, the readers go back. A worker's death is drained to its end before it is told.
Neighbours: `intake` (reads), `mind` (judges). Knows no socket.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from supervisor.actor import Stage
from supervisor.intake import Intake
from supervisor.messages import Message, WorkerLeft
from supervisor.mind import Mind, Reseek, Tell, Told
from supervisor.steps import Step

log = logging.getLogger("breakerd.intake")

DEAR_S: Final = 0.008
"""A batch that took longer from its drain to its commit is followed by a rest: the next one gathers more."""
REST_FACTOR: Final = 3.0
"""How long a rest is, in times of the batch before it: the rings take a quarter of the loop then."""
REST_MAX_S: Final = 0.1
"""No rest is longer: so much later, at most, a failure is judged on a host that is this busy."""


@dataclass(frozen=True, slots=True)
class Look:
    """Drain what is there; `tick`: also look for holes; `last`: and rest no more."""

    tick: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class Died:
    """This worker's process has ended: drain its ring for the last time."""

    worker: str


class IntakeActor:
    """Owns the readers of all rings."""

    name = "intake"

    def __init__(self, intake: Intake, mind: Mind, clock: Callable[[], float], step: Step) -> None:
        self.intake = intake
        self.stage: Stage
        self._mind = mind
        self._clock = clock
        self._step = step
        self._dead: deque[str] = deque()
        self._on_its_way: tuple[str, ...] | None = None
        """Workers whose words are in the batch that the mind has now."""
        self._leaving = ""
        """The dead worker whose last words and farewell the mind has now."""
        self._ticket = 0
        """Of the last `Tell`; a `Told` of an earlier one says nothing about what is on its way now."""
        self._batches = 0
        """Batches that the engine had handled when it was sent."""
        self._look_again = False
        self._began = self._rests_until = -math.inf
        """When the batch on its way was drained, and until when (s) only the dead are drained."""
        self._ends = False
        """This life ends: there is no rest any more."""

    @property
    def idle(self) -> bool:
        """True if nothing is on its way to the mind."""
        return self._on_its_way is None

    def receive(self, message: Look | Died | Told | Reseek) -> None:
        """One message."""
        if isinstance(message, Died):
            self._dead.append(message.worker)
        elif isinstance(message, Told):
            if message.ticket == self._ticket:
                self._committed()
        elif isinstance(message, Reseek):
            self._reseek()
        else:
            self._ends = self._ends or message.last
            if message.tick and self.idle:
                self.intake.look_for_holes()
        if not self.idle:
            self._look_again = True
            return
        told = isinstance(message, Told)
        if told and not (self._look_again or self._dead or self.intake.more):
            # Successes may wait for the next tick: a batch of many costs what a batch of few does.
            return
        if not (self._dead or self.intake.more or self._ends) and self._clock() < self._rests_until:
            # The tick after the rest looks again.
            return
        self._look_again = False
        self._drain()

    def restart(self) -> None:
        """Go back to what the engine knows: words that were read and not told are read again.

        What the mind has not handled yet is still on its way: reading it again would count it twice.
        """
        if self._on_its_way and self._mind.engine.counting.batches == self._batches:
            self._look_again = True
            return
        self._reseek()

    def _drain(self) -> None:
        """The next dead worker, else every ring with new words."""
        now = self._began = self._clock()
        if self._dead:
            worker = self._dead.popleft()
            self._leaving = worker
            messages, batch = self.intake.drain_dead(worker, now)
            last: tuple[Message, ...] = (WorkerLeft(worker),)
        else:
            messages, batch = self.intake.drain(now)
            last = ()
        if not messages and batch is None and not last:
            return
        self._step("drained")
        taken = tuple(one.worker for one in batch.taken) if batch else ()
        middle: tuple[Message, ...] = (batch,) if batch else ()
        self._on_its_way = taken
        self._ticket += 1
        self._batches = self._mind.engine.counting.batches
        self.stage.post("mind", Tell((*messages, *middle, *last), self.name, self._ticket))

    def _committed(self) -> None:
        """What was on its way is safe: its slots may be written again."""
        for worker in self._on_its_way or ():
            self.intake.publish_committed(worker)
        self._on_its_way, self._leaving = None, ""
        now = self._clock()
        took = now - self._began
        if took > DEAR_S:
            self._rests_until = now + min(REST_MAX_S, REST_FACTOR * took)

    def _reseek(self) -> None:
        """Every reader back to where the engine stands, which is committed; a farewell is said again."""
        if self._leaving in self._mind.engine.workers:
            self._dead.appendleft(self._leaving)
        self._on_its_way, self._leaving = None, ""
        self.intake.engine = self._mind.engine
        for worker in list(self.intake.sources):
            if worker in self._mind.engine.workers:
                self.intake.seek(worker, self._mind.engine.reading(worker))
                self.intake.publish_committed(worker)
        self._look_again = True
