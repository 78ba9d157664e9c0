"""The actor that puts another configuration into force, all of it or nothing, while everybody is served.

    who dies, and when                          what the next life begins with
    daemon, before its text reached the nursery   the old one, everywhere
    daemon, later, at any step                    the new one: the nursery keeps it, the opening commits it
    nursery (the daemon ends with it)             the file as it then is, checked by the start itself

One reload at a time; who asks meanwhile gets the next one, whose reading begins after the question. A wrong
file changes nothing. Once the text is given away there is no way back: a nursery that is silent is given it
again, a mind that failed is told again. Neighbours: `control_server`, `config_file`, `kept`, `mind`.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from supervisor import descriptors, start
from supervisor.actor import Stage
from supervisor.changes import Changes, compare
from supervisor.config_file import Checked, check
from supervisor.connections import Connections, Request
from supervisor.errand import Run
from supervisor.messages import Reloaded
from supervisor.mind import Tell, Told
from supervisor.places import default_configuration
from supervisor.settings import SupervisorSettings
from supervisor.steps import Step

log = logging.getLogger("breakerd.reload")

ASKERS_MAX: Final = 64
"""Who may wait for the next reload; beyond it one is refused."""
ANSWER_S: Final = 5.0
"""Whoever waited this long is told that it takes longer; the reload itself goes on."""
AGAIN_S: Final = 1.0
"""What was not answered is said again after this long, then after twice as long each time."""
AGAIN_MAX_S: Final = 60.0
LOGGED_MAX: Final = 50
"""Mistakes of a file that go to the log."""
PROBLEM_MAX: Final = 1000
"""Characters of the sentence that health shows."""
SIGNAL_UID: Final = -1
ABSENT: Final = "there is no configuration file to read: none was named by --config and none is in /etc"


class Phase(enum.Enum):
    """Where the one reload is."""

    IDLE = "idle"
    READING = "the file is being read"
    GIVING = "the nursery has not answered"
    COMMITTING = "it is being committed"


class Event(enum.Enum):
    """What moves it on."""

    ASKED = enum.auto()
    GOOD = enum.auto()
    WRONG = enum.auto()
    TAKEN = enum.auto()
    NOT_TAKEN = enum.auto()
    COMMITTED = enum.auto()


TABLE: Final[dict[tuple[Phase, Event], Phase]] = {
    **{(phase, event): phase for phase in Phase for event in Event},
    (Phase.IDLE, Event.ASKED): Phase.READING,
    (Phase.READING, Event.GOOD): Phase.GIVING,
    (Phase.READING, Event.WRONG): Phase.IDLE,
    (Phase.GIVING, Event.TAKEN): Phase.COMMITTING,
    (Phase.GIVING, Event.NOT_TAKEN): Phase.IDLE,
    (Phase.COMMITTING, Event.COMMITTED): Phase.IDLE,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants the file to be read again; `request` is None where nobody waits for an answer."""

    uid: int = SIGNAL_UID
    user: str = "SIGHUP"
    request: Request | None = None
    hangup: int = 0
    """The number of the SIGHUP; 0 = it was none."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The nursery took the text of this ticket, or says why not."""

    ticket: int
    text: str


@dataclass(frozen=True, slots=True)
class Look:
    """A few times a second, and when a thread has ended."""


class Reload:
    """Owns the settings in force. `apply` puts committed ones where they are used; it cannot fail."""

    name = "reload"

    def __init__(
        self,
        settings: SupervisorSettings,
        send: Callable[[bytes, tuple[int, ...]], bool],
        run: Run,
        apply: Callable[[SupervisorSettings], None],
        clock: Callable[[], float],
        step: Step,
    ) -> None:
        self.stage: Stage
        self.connections: Connections
        self.problem = ""
        """What was wrong with the last reload; empty = nothing."""
        self.settings = settings
        self.phase = Phase.IDLE
        self.appeared = default_configuration
        """Finds a first configuration file."""
        self._send = send
        self._run = run
        self._apply = apply
        self._clock = clock
        self._step = step
        self._ticket = 0
        self._asking: list[tuple[Asked, float]] = []
        """Whom the present reload is for, and when they asked."""
        self._hangup = 0
        """The last SIGHUP for which the present reload is, or one before it was."""
        self._by = Asked()
        """Who asked for it first; in the chronicle."""
        self._next: list[tuple[Asked, float]] = []
        """Whom the next one is for."""
        self._found: list[Checked] = []
        """Written by the thread of the present reload, once."""
        self._new = Checked()
        self._unanswered = 0
        """How often the text was given away without an answer yet: each of them may still be taken."""
        self._again_at = 0.0
        self._pause_s = AGAIN_S
        self._untold: str | None = None
        """What the nursery has to be told of the last reload's end."""

    def receive(self, message: Asked | Look | Answered | Told) -> None:
        """One message; what belongs to an earlier reload is dropped."""
        if isinstance(message, Asked):
            self._ask(message)
        elif isinstance(message, Look):
            self._look()
        elif message.ticket != self._ticket:
            return
        elif isinstance(message, Told):
            self._committed()
        else:
            self._answered(message)

    def restart(self) -> None:
        """Who asks is told to ask again; what was given away is carried on with."""
        for asked, _ in (*self._asking, *self._next):
            self._refuse(asked, "busy", "the supervisor could not handle this; try again")
        self._asking, self._next = [], []
        self._pause_s = AGAIN_S
        if self.phase is Phase.GIVING:
            self._give()
        elif self.phase is Phase.COMMITTING:
            self._commit()
        elif self.phase is Phase.READING:
            self._over("the reload failed; the log says why")
            self._move(Event.WRONG)

    def _move(self, event: Event) -> None:
        self.phase = TABLE[self.phase, event]

    def _path(self) -> str:
        """The file; where none was named, one may have appeared since the start. Empty = there is none."""
        return self.settings.file or self.appeared() or ""

    # --- step by step -------------------------------------------------------------------------------

    def _ask(self, asked: Asked) -> None:
        if not self._path():
            log.warning("reload asked for by %s: %s", asked.user, ABSENT)
            self._refuse(asked, "unconfigured", ABSENT)
            self._hangup = max(self._hangup, asked.hangup)
            self._tell_nursery(self.problem)
        elif len(self._next) >= ASKERS_MAX:
            self._refuse(asked, "busy", "too many wait for a reload already; try again")
        else:
            self._next.append((asked, self._clock()))
            self._begin()

    def _begin(self) -> None:
        """Read the file for everybody who has asked so far, unless a reload is under way."""
        if self.phase is not Phase.IDLE or not self._next:
            return
        self._asking, self._next = self._next, []
        self._by = self._asking[0][0]
        self._hangup = max(self._hangup, *(asked.hangup for asked, _ in self._asking), 0)
        self._ticket += 1
        self._unanswered = 0
        self._pause_s = AGAIN_S
        found: list[Checked] = []
        self._found = found
        file = self._path()
        self._move(Event.ASKED)
        log.info("reading %s again, asked for by %s", file, self._who())
        self._step("reload-asked")
        try:
            self._run(lambda: _find(file, found), self._found_some)
        except RuntimeError as error:
            found.append(Checked((f"{file}: cannot be read at the moment: {error}",)))
            self._found_some()

    def _found_some(self) -> None:
        """The thread has ended; if the mailbox is full, the next look finds it."""
        self.stage.post(self.name, Look())

    def _checked(self, found: Checked) -> None:
        if found.errors:
            self._wrong(found.errors)
            return
        self._new = found
        self._move(Event.GOOD)
        self._step("reload-checked")
        if not self._give():
            self._not_taken("it takes no messages at the moment")
        self._step("reload-given")

    def _give(self) -> bool:
        """The text to the nursery, whole; for the second time it changes nothing. False = it did not go."""
        self._wait_longer()
        try:
            number = os.memfd_create("breakerd-configuration", os.MFD_CLOEXEC)
        except OSError:
            return False
        try:
            with open(number, "wb", closefd=False) as file:
                file.write(self._new.text.encode())
            sent = self._send(descriptors.LOAD + self._ticket.to_bytes(8, "big"), (number,))
        except OSError:
            return False
        finally:
            os.close(number)
        self._unanswered += sent
        return sent

    def _answered(self, answered: Answered) -> None:
        if self.phase is not Phase.GIVING:
            return
        self._unanswered -= 1
        if answered.text:
            # What was given again meanwhile may be taken yet, so nothing is refused before its answer.
            if self._unanswered <= 0:
                self._not_taken(answered.text)
            return
        self._step("reload-taken")
        self._move(Event.TAKEN)
        self._pause_s = AGAIN_S
        self._commit()

    def _commit(self) -> None:
        """One commit for all that the engine learns, and who asked for it."""
        self._wait_longer()
        told = Reloaded(self._by.uid, self._by.user, self._changes().sentence())
        messages = (*start.configuring(self._new.settings), told)
        self.stage.post("mind", Tell(messages, self.name, self._ticket))

    def _committed(self) -> None:
        if self.phase is not Phase.COMMITTING:
            return
        self._step("reload-committed")
        changes = self._changes()
        self.settings = self._new.settings
        self._apply(self.settings)
        self._move(Event.COMMITTED)
        log.info("the configuration of %s is in force: %s", self.settings.file, changes.sentence())
        self._over("")
        self._answer((), changes)
        self._step("reload-answered")
        self._begin()

    # --- how it may end otherwise -------------------------------------------------------------------

    def _wrong(self, errors: tuple[str, ...]) -> None:
        """The configuration of before stays, all of it."""
        self._move(Event.WRONG)
        for line in errors[:LOGGED_MAX]:
            log.error("%s", line)
        text = "the old one stays, but breakerd could not start with this file"
        log.error("the configuration was not reloaded: %d mistakes; %s", len(errors), text)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        self._over(errors[0] + more)
        self._answer(errors, compare(self.settings, self.settings))
        self._begin()

    def _not_taken(self, why: str) -> None:
        self._move(Event.NOT_TAKEN)
        text = f"the nursery did not take the new configuration: {why}"
        log.error("%s; the old one stays", text)
        self._over(text)
        for asked, _ in self._asking:
            self._refuse(asked, "refused", f"{text}; the old one stays")
        self._asking = []
        self._begin()

    def _look(self) -> None:
        """Go on with what a thread has found; say again what was not answered; let nobody wait for ever."""
        if self._untold is not None:
            self._tell_nursery(self._untold)
        if self.phase is Phase.READING and self._found:
            self._checked(self._found[0])
        elif self.phase in (Phase.GIVING, Phase.COMMITTING) and self._clock() >= self._again_at:
            log.warning("reload: %s; trying again", self.phase.value)
            self.problem = f"a new configuration waits: {self.phase.value}"
            if self.phase is Phase.GIVING:
                self._give()
            else:
                self._commit()
        late = self._clock() - ANSWER_S
        for waiting in (self._asking, self._next):
            for asked, since in [one for one in waiting if one[1] < late]:
                waiting.remove((asked, since))
                self._refuse(asked, "late", f"not yet: {self.phase.value}; it goes on by itself")

    def _wait_longer(self) -> None:
        self._again_at = self._clock() + self._pause_s
        self._pause_s = min(AGAIN_MAX_S, 2.0 * self._pause_s)

    # --- who is told --------------------------------------------------------------------------------

    def _changes(self) -> Changes:
        return compare(self.settings, self._new.settings)

    def _who(self) -> str:
        names = dict.fromkeys(asked.user for asked, _ in self._asking)
        return ", ".join(names)

    def _over(self, problem: str) -> None:
        """Health shows it, and the nursery gives it to the next daemon."""
        self.problem = problem[:PROBLEM_MAX]
        self._tell_nursery(self.problem)

    def _tell_nursery(self, problem: str) -> None:
        told = descriptors.SETTLED + self._hangup.to_bytes(8, "big") + problem.encode()[: 2 * PROBLEM_MAX]
        self._untold = None if self._send(told, ()) else problem

    def _answer(self, errors: tuple[str, ...], changes: Changes) -> None:
        value: dict[str, Any] = {"schema": 1, "file": self._path(), "ok": not errors}
        value |= {"errors": list(errors), **changes.to_json()}
        for asked, _ in self._asking:
            if asked.request is not None:
                self.connections.answer(asked.request.connection, asked.request.number, value)
        self._asking = []

    def _refuse(self, asked: Asked, code: str, text: str) -> None:
        if asked.request is not None:
            self.connections.refuse(asked.request.connection, asked.request.number, code, text)


def _find(file: str, found: list[Checked]) -> None:
    """In the thread: whatever happens, something is found."""
    try:
        found.append(check(file))
    finally:
        if not found:
            found.append(Checked((f"{file}: could not be checked; the log says why",)))
