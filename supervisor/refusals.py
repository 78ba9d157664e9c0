"""Who was turned away: hellos and commands, told once a minute for each user and reason, with a count.

The first of its kind is an event at once; the next ones of a minute are counted and told together. What
others wrote into a refused request is cut off, and so are users without number: nobody fills the log or
the memory with what is refused. Neighbours: `control_server` (which refuses), `mind` (which remembers the
events), `health` and `views` (which show what goes on). Knows no socket and no right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from supervisor.facts import Refusal
from supervisor.messages import Noted

HELLO: Final = "refused"
COMMAND: Final = "denied"
"""The kinds of refusals, which are those of their events."""
TRANSIENT: Final = frozenset({"busy"})
"""Refusals of a hello that mean `again`: nobody is turned away."""
TELL_S: Final = 60.0
"""One line in so many seconds for each user, reason and subject."""
LASTS_S: Final = 90.0
"""A refusal goes on for so long after its last time: a refused worker asks every 30 s."""
ROWS_MAX: Final = 256
"""Refusals remembered; beyond it the one goes that was quiet for longest."""
SUBJECTS_MAX: Final = 8
"""Subjects that one user is told of by name for one reason; further ones are told together."""
LINES_MAX: Final = 60
"""Lines in TELL_S, over all users; beyond it they are counted alone."""
TEXT_MAX: Final = 400
SUBJECT_MAX: Final = 128


@dataclass(slots=True)
class _Row:
    """What is known of one user, reason and subject."""

    user: str
    text: str
    pid: int
    first: float
    last: float
    count: int = 0
    """Since `first`."""
    untold: int = 0
    told: float = 0.0


_Key = tuple[str, int, str, str]
"""(kind, uid, reason, subject)."""


class Refusals:
    """Counts every refusal and tells of each user, reason and subject once a minute."""

    def __init__(self, clock: Callable[[], float], note: Callable[[Noted], object]) -> None:
        self.totals = {HELLO: 0, COMMAND: 0}
        self._clock = clock
        self._note = note
        self._rows: dict[_Key, _Row] = {}
        """The one that was quiet for longest comes first."""
        self._window = -TELL_S
        self._lines = 0

    def hello(self, uid: int, user: str, pid: int, refused: tuple[str, str], namespace: str) -> None:
        """A worker may not join: `refused` is the code and the sentence that it was answered."""
        code, text = refused
        if code not in TRANSIENT:
            self._take((HELLO, uid, code, namespace[:SUBJECT_MAX]), user, pid, text)

    def command(self, uid: int, user: str, pid: int, verb: str, what: str) -> None:
        """A user asked for what only commanders may; `what` names it."""
        self._take((COMMAND, uid, "commander", verb[:SUBJECT_MAX]), user, pid, what)

    def _take(self, key: _Key, user: str, pid: int, text: str) -> None:
        now = self._clock()
        kind, uid, reason, _ = key
        self.totals[kind] += 1
        if key not in self._rows:
            alike = sum(other[:3] == key[:3] for other in self._rows)
            key = (kind, uid, reason, "") if alike >= SUBJECTS_MAX else key
        row = self._rows.pop(key, None)
        if row is None or now - row.last >= LASTS_S:
            untold, told = (row.untold, row.told) if row is not None else (0, now - TELL_S)
            row = _Row(user, "", pid, now, now, untold=untold, told=told)
        self._rows[key] = row
        row.text, row.pid, row.last = text[:TEXT_MAX], pid, now
        row.count += 1
        row.untold += 1
        if len(self._rows) > ROWS_MAX:
            del self._rows[next(iter(self._rows))]
        self._tell(key, row, now)

    def look(self) -> None:
        """Now and then: tell what was held back, and forget what is over."""
        now = self._clock()
        for key, row in list(self._rows.items()):
            if row.untold:
                self._tell(key, row, now)
            elif now - row.last >= LASTS_S:
                del self._rows[key]

    def _tell(self, key: _Key, row: _Row, now: float) -> None:
        """An event, unless one of the same was told less than a minute ago or too many were."""
        if now - row.told < TELL_S:
            return
        if now - self._window >= TELL_S:
            self._window, self._lines = now, 0
        if self._lines >= LINES_MAX:
            return
        self._lines += 1
        kind, uid, reason, _ = key
        times = "" if row.untold == 1 else f", {row.untold} times since it was last told"
        text = f"{kind}: {row.text} (uid {uid}, user {row.user}, pid {row.pid}{times})"
        row.told, told, row.untold = now, row.untold, 0
        facts = {"uid": str(uid), "user": row.user, "pid": str(row.pid), "reason": reason, "count": str(told)}
        self._note(Noted(kind, text, tuple(facts.items())))

    def going_on(self) -> tuple[Refusal, ...]:
        """What is refused at the moment, the newest last."""
        now = self._clock()
        return tuple(
            Refusal(kind, uid, row.user, row.pid, reason, row.text, row.count, row.first, row.last)
            for (kind, uid, reason, _), row in self._rows.items()
            if now - row.last < LASTS_S
        )
