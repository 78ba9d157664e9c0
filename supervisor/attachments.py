"""The attached workers as the daemon holds them: segment, pidfd, and the way effects reach them.

The supervisor's words of a segment are written here and in `intake`, by the daemon's one thread; the
worker writes its own and dies when it likes. Its pidfd becomes readable then, once, and the last drain
begins; the nursery drops its copies only after the counts are folded and committed.
Neighbours: `hello` (who comes), `intake` (reads the rings), `mind` (whose outlet this is), `nursery`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ipc import layout as at
from ipc.errors import SegmentError
from ipc.segment import Segment
from supervisor import descriptors
from supervisor.connections import Watcher
from supervisor.descriptors import Held
from supervisor.engine import Engine
from supervisor.intake import Intake
from supervisor.messages import Effect, Happened, Publish, Retire
from supervisor.steps import Step

log = logging.getLogger("breakerd.events")

AWAITED_S: Final = 600.0
"""How long a worker is waited for of which no pid is known here. It says hello again within seconds; one that
came after it was buried would be counted anew from its first call.
"""
REMIND_S: Final = 1.0
"""A dead worker that is not retired, or not dropped, after this long is told of again."""
LEVELS: Final = dict.fromkeys(("supervisor", "breaker", "command", "denied", "refused"), logging.WARNING)
"""How an event of each kind is logged; others are information."""


GOOD_NEWS: Final = ("started", "reloaded")
RECOVERING: Final = ("HALF_OPEN", "CLOSED")
"""States that a breaker enters when things become better."""


@dataclass(frozen=True, slots=True)
class Attached:
    """One worker process that may be alive."""

    held: Held
    segment: Segment


class Attachments:
    """Owns segments and pidfds of all workers; carries out the engine's effects on them."""

    def __init__(
        self,
        loop: Watcher,
        intake: Intake,
        channel: socket.socket,
        died: Callable[[str], object],
        clock: Callable[[], float],
        step: Step,
    ) -> None:
        self._loop = loop
        self._intake = intake
        self._channel = channel
        self._died = died
        self._clock = clock
        self._step = step
        self._live: dict[str, Attached] = {}
        self._ended: dict[str, float] = {}
        """Dead workers that are not retired yet, and when that was told last, s."""
        self._dropping: dict[str, float] = {}
        """Workers whose copies the nursery was asked to close and has not, and when it was asked last, s."""
        self.managed = False
        """Under systemd: who is not in its store yet is not welcome yet."""
        self._stored: set[str] = set()
        """Workers that systemd's store has, as far as the nursery said."""
        self._absent: dict[str, int] = {}
        """Workers of the checkpoint without a segment: their pidfds, until they come back or die."""
        self._awaited: dict[str, tuple[float, Callable[[str], object]]] = {}
        """Those of other PID namespaces: until when, s, and whom to tell then that they are lost."""

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, worker: str) -> bool:
        return worker in self._live

    def get(self, worker: str) -> Attached | None:
        """The worker with this nonce, if its segment is here."""
        return self._live.get(worker)

    def all(self) -> list[Attached]:
        """Every worker whose segment is here."""
        return list(self._live.values())

    def stored(self, worker: str) -> None:
        """The nursery says that systemd has this worker's descriptors."""
        self._stored.add(worker)

    def is_safe(self, worker: str) -> bool:
        """True if this worker's segment outlives this process, and under systemd the nursery as well."""
        return not self.managed or worker in self._stored

    def ring_used(self) -> dict[str, tuple[int, int]]:
        """Per worker (slots given out and not yet free again, all slots); its own word, so it may lie."""
        found = {}
        for worker, attached in self._live.items():
            words, slots = attached.segment.words, attached.segment.layout.slots
            used = min(max(0, words[at.W_GRANTED] - words[at.W_COMMITTED]), slots)
            found[worker] = (used, slots)
        return found

    def deposit(self, held: Held) -> bool:
        """Give copies to the nursery; True = whatever becomes of this process, they are safe."""
        self._dropping.pop(held.nonce, None)  # a worker that comes again must not be dropped again
        done = descriptors.deposit(self._channel, held)
        self._step("deposited")
        return done

    def add(self, held: Held, segment: Segment, engine: Engine) -> None:
        """Read this worker's ring from where the engine stands, show it the board, wait for its death."""
        self._forget_absent(held.nonce)
        self._live[held.nonce] = Attached(held, segment)
        reading = engine.reading(held.nonce)
        if not reading.position and not reading.holes:
            # The checkpoint knows nothing of this ring: what was committed was counted by an earlier one.
            reading = replace(reading, position=segment.words[at.W_COMMITTED])
        self._intake.add(held.nonce, segment, reading)
        self.stamp(held.nonce, engine.incarnation)
        self._intake.publish_committed(held.nonce)
        self._loop.add_reader(held.pidfd, self._has_ended, held.nonce)

    def stamp(self, worker: str, incarnation: int) -> None:
        """Tell a worker which life of the supervisor it is attached to."""
        self._live[worker].segment.words[at.W_INCARNATION] = incarnation

    def adopt(self, held: Held, engine: Engine, lost: Callable[[str], object]) -> str:
        """At start: take over what the nursery kept. Returns what is wrong with it, or nothing.

        A segment that cannot be used is set aside; its worker may say hello again, or dies and is `lost`.
        """
        try:
            if held.about.get("layout", at.LAYOUT_VERSION) != at.LAYOUT_VERSION:
                raise SegmentError("it has the layout of another version of breakerd")
            segment = Segment.adopt(held.memory)
        except (SegmentError, OSError, ValueError) as error:
            os.close(held.memory)
            self._watch_absent(held.nonce, held.pidfd, lost)
            return f"segment of {held.about.get('name', held.nonce)}: {error}"
        self.add(held, segment, engine)
        self.stored(held.nonce)
        return ""

    def await_return(self, worker: str, pid: int, lost: Callable[[str], object]) -> None:
        """A worker that lives without a segment here: it hands its own back, or dies and is told as lost.

        Without a pid its death cannot be seen: it has AWAITED_S.
        """
        if not pid:
            self._awaited[worker] = (self._clock() + AWAITED_S, lost)
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            lost(worker)
            return
        self._watch_absent(worker, pidfd, lost)

    def _watch_absent(self, worker: str, pidfd: int, lost: Callable[[str], object]) -> None:
        def died() -> None:
            self._forget_absent(worker)
            lost(worker)

        self._absent[worker] = pidfd
        self._loop.add_reader(pidfd, died)

    def _forget_absent(self, worker: str) -> None:
        self._awaited.pop(worker, None)
        pidfd = self._absent.pop(worker, None)
        if pidfd is not None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _has_ended(self, worker: str) -> None:
        """The pidfd stays readable for ever: it is not watched any longer."""
        self._loop.remove_reader(self._live[worker].held.pidfd)
        self._ended[worker] = self._clock()
        self._died(worker)

    def end_earlier_image(self, new: Held) -> None:
        """This process attached before, as another program: exec has unmapped what that one wrote into.

        Its pidfd will not tell: the process lives. Dying before the farewell is committed leaves the old one
        until the process ends or is executed again.
        """
        about = new.about
        if not about.get("image"):
            return
        for worker, attached in list(self._live.items()):
            old = attached.held.about
            if old.get("pid") != about["pid"] or not old.get("image") or old["image"] == about["image"]:
                continue
            pid = descriptors.pid_of(attached.held.pidfd)  # 0 = in another namespace, where ids mean nothing
            if worker not in self._ended and pid > 0 and pid == descriptors.pid_of(new.pidfd):
                self._has_ended(worker)

    def remind(self) -> None:
        """Now and then: tell again of the dead whose end an actor's own failure swallowed, and ask again
        for drops that found the channel full, or whose answer did.
        """
        now = self._clock()
        for worker in [one for one, (until, _) in self._awaited.items() if now > until]:
            _, lost = self._awaited.pop(worker)
            lost(worker)
        for worker in [one for one, asked_at in self._dropping.items() if now - asked_at > REMIND_S]:
            self.drop(worker)
        for worker in [one for one, told_at in self._ended.items() if now - told_at > REMIND_S]:
            self._ended[worker] = now
            self._died(worker)

    def deliver(self, effects: list[Effect]) -> None:
        """Carry out what was committed: verdicts first, since calls wait for them and logs do not."""
        for effect in effects:
            if isinstance(effect, Publish):
                attached = self._live.get(effect.worker)
                if attached is not None:
                    attached.segment.words[at.W_BOARD + effect.row] = effect.word
        for effect in effects:
            if isinstance(effect, Happened):
                log.log(level_of(effect), "%s", effect.text)
            elif isinstance(effect, Retire):
                self._retire(effect.worker)

    def _retire(self, worker: str) -> None:
        """The counts are folded: forget the segment here, then ask the nursery to close its copies."""
        attached = self._live.pop(worker, None)
        self._ended.pop(worker, None)
        if attached is not None:
            self._intake.remove(worker)
            self._loop.remove_reader(attached.held.pidfd)
            os.close(attached.held.pidfd)
            attached.segment.close_fd()
        self.drop(worker)

    def drop(self, worker: str) -> None:
        """Ask the nursery to close its copies; `remind` asks again until it says that it has."""
        self._dropping[worker] = self._clock()
        descriptors.send(self._channel, descriptors.DROP + bytes.fromhex(worker))
        self._step("dropped")

    def dropped(self, worker: str) -> None:
        """The nursery has closed its copies."""
        self._stored.discard(worker)
        self._dropping.pop(worker, None)


def level_of(event: Happened) -> int:
    """How an event is logged: good news and what was asked for is information, not a warning."""
    facts = dict(event.fields)
    if facts.get("event") in GOOD_NEWS or (
        facts.get("new") in RECOVERING and facts["new"] != facts.get("old")
    ):
        return logging.INFO
    return LEVELS.get(event.kind, logging.INFO)
