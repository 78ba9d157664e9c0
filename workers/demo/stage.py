"""What the play stands on: the crew of one act, the audience's view, and waiting for things to happen.

`until` is the only way to wait: it shows a frame, looks after signals and fallen processes, and has a limit.
Neighbours: `acts` (what is played), `processes`, `ledger` and `tap` (what is looked at), `scene` (what is
shown).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from workers.demo.ledger import Counts, Cues, Ledger, Phase
from workers.demo.processes import Running, Troupe
from workers.demo.scene import BreakerView, Event, Rates, Scene, SupervisorView, WorkerView
from workers.demo.tap import Tap

FRAME_S: Final = 0.1
HISTORY_STEP_S: Final = 0.25
HISTORY_MAX: Final = 120
"""Steps of the rates that are kept."""
RATE_OVER_S: Final = 0.5
"""The rate of a worker is a mean over this long."""
TOTAL_MAX_S: Final = 37.0
"""Every wait ends here at the latest, so that the whole takes no longer than 40 s, its cleaning up too."""


class DemoFailed(Exception):
    """The demo could not go on; the text says what did not happen."""


def fell(running: Running) -> DemoFailed:
    """What to raise for a process that ended by an accident."""
    return DemoFailed(f"{running.name} ended with {running.code}:\n{running.last_words()}")


class Asked(Exception):
    """Somebody asked the demo to stop: Ctrl-C or a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """The signal."""


class Audience(Protocol):
    """Where the scene is shown."""

    def show(self, scene: Scene) -> None:
        """Show the scene as it is now."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Member:
    """One worker of the crew: its process and its ledger."""

    __slots__ = ("killed", "ledger", "number", "past", "running")

    def __init__(self, number: int, running: Running, ledger: Ledger) -> None:
        self.number = number
        self.running = running
        self.ledger = ledger
        self.killed = False
        self.past: deque[tuple[float, Counts]] = deque()
        """Readings of the last `RATE_OVER_S`."""

    def look(self, now: float) -> Counts:
        """Read the ledger and remember the reading."""
        counts = self.ledger.read()
        self.past.append((now, counts))
        while len(self.past) > 2 and now - self.past[0][0] > RATE_OVER_S:
            self.past.popleft()
        return counts

    def view(self) -> WorkerView:
        """The worker as the audience sees it."""
        (before, first), (now, last) = self.past[0], self.past[-1]
        refused = last.refused - first.refused
        succeeded = last.done_success - first.done_success
        calls = refused + succeeded + last.done_failure - first.done_failure
        if self.killed:
            doing = "killed"
        elif last.phase is not Phase.WORKING:
            doing = last.phase.name.lower()
        elif last.last_refusal > last.back:
            doing = "refused"
        else:
            doing = "working" if succeeded else "waiting"
        return WorkerView(
            number=self.number,
            pid=self.running.pid,
            doing=doing,
            sees=last.sees,
            calls_per_s=calls / (now - before) if now > before else 0.0,
            succeeded=last.done_success,
            failed=last.done_failure,
            refused=last.refused,
        )


class Stage:
    """The state of the play that everything else looks at. One act at a time has its crew on it."""

    def __init__(self, directory: str, troupe: Troupe, audience: Audience) -> None:
        self.directory = directory
        self.troupe = troupe
        self.members: list[Member] = []
        self.cues: Cues | None = None
        self.tap: Tap | None = None
        self.act = 0
        self.phase = ""
        self.signalled = 0
        """The signal that asked the demo to stop; its handler only writes it here."""
        self.began = time.monotonic()
        self.expected_s = TOTAL_MAX_S
        """How long it should take; only the progress bar depends on it."""
        self.result = ""
        """What came of the act before."""
        self._audience = audience
        self._events: list[Event] = []
        self._history: deque[Rates] = deque(maxlen=HISTORY_MAX)
        self._step: tuple[float, tuple[int, int, int]] | None = None

    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began

    def say(self, text: str, source: str = "demo") -> None:
        """Something happened."""
        self._events.append(Event(self.elapsed(), source, text))

    def enter(self, phase: str) -> None:
        """The next phase begins."""
        self.phase = phase
        self.frame()

    def assemble(self, act: int, count: int, environment: dict[str, str]) -> None:
        """Start the crew of one act: `count` workers, their ledgers and their cues."""
        self.act = act
        self._history.clear()
        self._step = None
        place = self.place
        os.mkdir(place)
        self.cues = Cues(f"{place}/cues", create=True)
        for number in range(1, count + 1):
            ledger = Ledger(f"{place}/agent-{number}.ledger", create=True)
            paths = [f"{self.directory}/act-{act}.db", f"{place}/agent-{number}.ledger", f"{place}/cues"]
            arguments = ["-m", "workers.demo.crew", str(os.getpid()), str(number), *paths]
            running = self.troupe.start(f"act-{act}-agent-{number}", arguments, environment)
            self.members.append(Member(number, running, ledger))

    @property
    def place(self) -> str:
        """The directory of the act's ledgers and cues."""
        return f"{self.directory}/act-{self.act}"

    def dismiss(self) -> None:
        """The act is over and its workers are gone: forget them."""
        for member in self.members:
            member.ledger.close()
        self.members.clear()
        if self.cues is not None:
            self.cues.close()
            self.cues = None

    def close(self) -> None:
        """Let go of every file; the processes are the troupe's."""
        self.dismiss()
        if self.tap is not None:
            self.tap.close()

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that happened, oldest first."""
        return tuple(self._events)

    def counts(self) -> list[Counts]:
        """What every ledger says now."""
        return [member.ledger.read() for member in self.members]

    def until(
        self, condition: Callable[[], bool], limit_s: float, what: str, step_s: float = FRAME_S
    ) -> None:
        """Show frames until the condition holds. Raises DemoFailed after `limit_s`, and Asked."""
        deadline = min(time.monotonic() + limit_s, self.began + TOTAL_MAX_S)
        while not condition():
            now = time.monotonic()
            if now >= deadline:
                raise DemoFailed(f"{what}: not within {limit_s:g} s")
            self.frame()
            time.sleep(min(step_s, max(0.0, deadline - now)))

    def play(self, seconds: float) -> None:
        """Let the crew work for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + 1.0, self.phase)

    def frame(self) -> None:
        """Look at everything once and show it. Raises Asked and DemoFailed."""
        if self.signalled:
            raise Asked(self.signalled)
        fallen = self.troupe.fallen()
        if fallen is not None:
            raise fell(fallen)
        now = time.monotonic()
        for member in self.members:
            member.look(now)
        self._remember(now)
        if self.tap is not None:
            self.tap.poll(now)
            for text in self.tap.take_news():
                self.say(text, "breakerd")
        self._audience.show(self.scene())

    def scene(self) -> Scene:
        """What the audience sees now."""
        tap = self.tap
        breaker: BreakerView | None = tap.breaker if tap is not None else None
        cues = self.cues
        locked = cues is not None and cues.locked_ns > 0 and not cues.released_ns
        return Scene(
            at_s=self.elapsed(),
            act=self.act,
            phase=self.phase,
            progress=min(0.99, self.elapsed() / self.expected_s),
            workers=tuple(member.view() for member in self.members),
            breaker=breaker,
            supervisor=SupervisorView(tap.daemon_pid, tap.answers) if tap is not None else None,
            rates=self._history[-1] if self._history else Rates(0.0, 0.0, 0.0),
            history=tuple(self._history),
            events=tuple(self._events),
            result=self.result,
            database="LOCKED" if locked else "up",
        )

    def _remember(self, now: float) -> None:
        """Add to the history what all workers did since its last step."""
        seen = [member.past[-1][1] for member in self.members]
        totals = (
            sum(one.done_success for one in seen),
            sum(one.done_failure for one in seen),
            sum(one.refused for one in seen),
        )
        if self._step is None:
            self._step = (now, totals)
            return
        before, then = self._step
        took = now - before
        if took >= HISTORY_STEP_S:
            self._step = (now, totals)
            self._history.append(Rates(*((new - old) / took for new, old in zip(totals, then, strict=True))))
