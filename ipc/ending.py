"""How a guarded call ended: the outcomes that the quick path does not put, and what the application is told.

Neighbours: `admission` (whether a call may start), `guard` (the quick path), `verdict` (what a failure is),
`link` (board and ring). Holds no lock while anything of the user's runs.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final

from ipc import layout as at
from ipc.blocks import FREE_THREADED
from ipc.gate import Gate
from ipc.link import Link
from ipc.logbook import report
from ipc.rows import Row
from ipc.verdict import Verdict
from ipc.vocabulary import FAILURES, BreakerState, OutcomeKind

Change = tuple[BreakerState, BreakerState]
"""(old, new): what the application is told."""


class Entry:
    """One call that was admitted the slow way: its start, its permit, the change it was first to see."""

    __slots__ = ("change", "done", "frame", "head", "link", "owner", "permit", "row", "start", "within")

    def __init__(self, owner: object, link: Link, row: int, head: float) -> None:
        self.owner, self.link, self.row, self.head = owner, link, row, head
        self.frame: FrameType | None = None
        """Where its `with` block stands; None = it is none. Kept, so that no other frame gets its address."""
        self.within: Entry | None = None
        """The entry that was the innermost of this context when this one began: a trial or a block."""
        self.permit: int | None = None
        self.change: Change | None = None
        self.start = 0.0
        self.done = False


class Trial(Entry):
    """A call that holds a permit: that goes back when nobody is left who could end the call."""

    __slots__ = ("__weakref__",)

    def __del__(self) -> None:
        """An exception of a signal handler has lost it: as a cancellation, which has no verdict."""
        try:
            if getattr(self, "done", True):
                return  # ended; or lost while it was being made, before it held anything
            link, start = self.link, self.start
            self.done = True
            if start >= link.born:
                link.put(self.row, OutcomeKind.CANCELLED, _code(self.head), self.permit, start, start)
                link.ring()
                if link.local:
                    link.look(link.clock())
        except BaseException:  # noqa: BLE001 (a second signal, inside of this: the permit ends by its lease)
            return


_innermost: Final[ContextVar[weakref.ref[Trial] | None]] = ContextVar("ipc_trial", default=None)
"""The innermost trial of this context; set by trials alone, so that other calls pay nothing. Weak: a trial
that is lost would else go on here, and whatever the context calls would be a part of it for ever."""
CAUSES_MAX: Final = 8
"""How many causes of an exception are looked at for one that was put already."""


def innermost_trial() -> Entry | None:
    """The innermost trial of this context that is not lost."""
    held = _innermost.get()
    return None if held is None else held()


def set_innermost_trial(trial: Entry | None) -> None:
    """From now on this context runs in that trial."""
    _innermost.set(weakref.ref(trial) if isinstance(trial, Trial) else None)


class Ending:
    """The half of a breaker that puts outcomes; `Admission` sets what is declared here."""

    verdict: Verdict
    _tell: Callable[..., object] | None
    _seen: BreakerState
    _noticing: Gate
    _noticed_by: int = 0
    _shared: Row
    _link: Link
    _row: int
    _mark: str
    _usual: type[BaseException] | None
    _usual_tally: int

    # --- how it ended -------------------------------------------------------------------------------

    def _late(self, head: float, start: float, end: float) -> None:
        """A success that the quick path could not put: slow, long, or no slot."""
        slow = self._shared.settings.slow_call_s
        kind = OutcomeKind.SUCCESS if slow is None or end - start < slow else OutcomeKind.SLOW_SUCCESS
        link = self._link
        link.put(self._row, kind, _code(head), None, start, end)
        if kind is OutcomeKind.SLOW_SUCCESS and link.local:
            link.look(end)

    def _failed(self, head: float, start: float, end: float, error: BaseException) -> None:
        """An exception is passing that the quick path did not put: put what it means."""
        entry = Entry(self, self._link, self._row, head)
        entry.start = start
        self._end(entry, error, end)

    def _end(self, entry: Entry, error: BaseException | None, end: float, bad: bool = False) -> None:
        """Put the outcome of a call that was admitted the slow way or ended in a rare way, once."""
        if entry.done:
            return
        entry.done = True
        if entry.permit is not None and innermost_trial() is entry:
            set_innermost_trial(entry.within)
        link, start = entry.link, entry.start
        if error is not None and entry.permit is None and self._counted(error, start):
            return
        kind = self.verdict.kind(error, end - start, self._shared.settings, self._shared.name)
        if bad:
            slow = kind is OutcomeKind.SLOW_SUCCESS
            kind = OutcomeKind.SLOW_FAILURE if slow else OutcomeKind.FAILURE
        link.put(entry.row, kind, _code(entry.head), entry.permit, start, end)
        failed = kind in FAILURES
        marks = _attributes(error) if failed and error is not None else {}
        marks[self._mark] = end
        if start >= link.born:
            if failed and error is not None:
                self._count_class(type(error), marks is _attributes(error))
            decides = kind is not OutcomeKind.SUCCESS or entry.permit is not None
            if failed or entry.permit is not None:
                link.ring()
            if end >= link.fresh_until or (link.local and decides):
                link.look(end)
        if entry.change is not None:
            self._fire(entry.change)
        if self._tell is not None:
            self._fire_if_changed()

    def _counted(self, error: BaseException, start: float) -> bool:
        """True if a guard of this breaker inside this call has put this failure already, or its cause.

        The mark is the time at which it was put: an object that is raised again later is another failure.
        """
        mark, one, left = self._mark, error, CAUSES_MAX
        while left:
            if _attributes(one).get(mark, -1.0) > start:
                return True
            cause = one.__cause__ or one.__context__
            if cause is None:
                break
            one, left = cause, left - 1
        return False

    def _count_class(self, kind: type[BaseException], marked: bool) -> None:
        """One more of this exception class; from now on the quick path may count it."""
        index = self._shared.class_index(kind)
        row, place = divmod(index, at.TALLIES)
        self._shared.link.tally(row, place)
        self._usual = None  # first: the two belong together
        if marked and self._tell is None and not FREE_THREADED and self.verdict.by_class(kind):
            self._usual_tally = index
            self._usual = kind

    # --- changes of state ---------------------------------------------------------------------------

    def _notice(self, word: int) -> Change | None:
        """The change that this board word shows, to the first call that sees it; else None."""
        if at.unpack_row(word)[0] is self._seen:
            return None
        if self._noticed_by != os.getpid():
            # A thread that a fork left behind may have been inside.
            self._noticing, self._noticed_by = Gate(), os.getpid()
        return self._noticing.run_within(0.0, self._first_to_see)

    def _first_to_see(self) -> Change | None:
        """The change from what was told last to the board as it is now: a thread that comes later, with an
        older word, finds it told.
        """
        new = at.unpack_row(self._link.board[self._row])[0]
        old, self._seen = self._seen, new
        return None if new is old else (old, new)

    def _fire_if_changed(self) -> None:
        change = self._notice(self._link.board[self._row])
        if change is not None:
            self._fire(change)

    def _fire(self, change: Change) -> None:
        """Tell the application, in this thread, with no lock held."""
        if self._tell is not None:
            try:
                self._tell(self, *change)
            except Exception:  # noqa: BLE001 (the callable is the application's)
                report("on_state_change of breaker %s raised", self._shared.name)


def _attributes(error: BaseException) -> dict[str, Any]:
    """What is kept on an exception; an empty dictionary where its class does not let it be read."""
    try:
        attributes: dict[str, Any] = error.__dict__
    except Exception:  # noqa: BLE001 (an exception's attributes may be anything)
        return {}
    return attributes


def _code(head: float) -> int:
    """The generation code in a head."""
    return int(head / at.GENERATION_WEIGHT) & 15
