"""Whether a call may start, and how it ended: everything of a guarded call that is not its quick path.

`admit` compares nothing but board words; a refusal, a trial, a new generation and a ramp are decided here,
and each outcome that is not a quick success or failure is put here. Neighbours: `guard` (the quick path
and the public face), `link` (board and ring), `asking` (permits), `client`. Holds no lock while anything
of the user's runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from ipc import layout as at
from ipc.asking import LOOP_WAIT_S, PERMIT_WAIT_S, SILENCE, PermitAsk, Question, Reply
from ipc.blocks import FREE_THREADED
from ipc.circuit import GOLDEN, generation_code, ramp_share
from ipc.client import Client
from ipc.control_async import running_loop
from ipc.ending import Change, Ending, Entry, Trial, innermost_trial, set_innermost_trial
from ipc.errors import BreakerdError, CircuitOpenError
from ipc.gate import Gate
from ipc.layout import W_CHANGES
from ipc.rows import Row
from ipc.verdict import Verdict
from ipc.vocabulary import FOREVER, BreakerSettings, BreakerState, OutcomeKind, Tally

_OPEN: Final = int(BreakerState.OPEN)
_HALF_OPEN: Final = int(BreakerState.HALF_OPEN)
_FORCED_OPEN: Final = int(BreakerState.FORCED_OPEN)
_CLOSED: Final = int(BreakerState.CLOSED)
NO_STATE: Final = 7 << 61
"""A board word that is never accepted."""
NO_WORD: Final = float("nan")
"""Equals no board word: the next call goes the slow way."""
BUSY_RETRY_S: Final = 0.1
"""What a call is told that finds all trials under way: their end is not known, and "now" would be false."""
ASKING_MAX_S: Final = 0.2
"""A question that has not ended by then has lost its thread; another may ask."""


class Asking(NamedTuple):
    """A permit must be asked for; `change` is told when the trial is over."""

    question: Question
    change: Change | None


class Binding(NamedTuple):
    """What a breaker object belongs to; no client: to itself alone."""

    row: Row
    client: Client | None


class Admission(Ending):
    """The cold half of a CircuitBreaker. One object per breaker object; the row is what they share."""

    def __init__(self, settings: BreakerSettings, verdict: Verdict, row: Row, client: Client | None) -> None:
        self.settings = settings
        self.verdict = verdict
        self._tell: Callable[..., object] | None = verdict.on_state_change
        self._seen = BreakerState.CLOSED
        self._noticing = Gate()
        self._ramp: tuple[int, float] = 0, 0.0
        """The board word whose ramp this is, and its length as far as it is known here, s."""
        self._dice = 0.0
        """In [0, 1): drawn when the ramp is first seen, and moved on by each call."""
        self._adopts = True
        """False: no board word is ever accepted, so that every call goes the slow way."""
        self._moved = False
        """Bound anew: functions that were decorated before look at the old board, and go the slow way."""
        self._bind(row, client)

    def _move(self, row: Row, client: Client) -> None:
        """Belong to that row from now on."""
        old_link, old_row = self._link, self._row
        self._moved = True
        self._bind(row, client)
        old_link.retire(old_row, NO_STATE)

    def bind_slowly(self, binding: Binding, adopts: bool = False) -> Binding:
        """Belong to something else from now on, every call going the slow way; gives what was before.

        With `adopts` only those go the slow way whose functions were decorated while it belonged elsewhere.
        """
        before = Binding(self._shared, self._client)
        self._moved = True
        self._adopts = adopts
        self._seen = BreakerState.CLOSED
        self._bind(binding.row, binding.client)
        return before

    def _bind(self, row: Row, client: Client | None) -> None:
        """Decide by this row from the next call on."""
        self._closed = NO_WORD  # first: a call in between goes the slow way
        self._mark = f"_breakerd_{id(row)}"
        """The attribute by which an exception tells when a guard of this breaker put it."""
        self._shared, self._client, self._link, self._row = row, client, row.link, row.number
        self.clock = row.link.clock
        self._usual: type[BaseException] | None = None
        """The class of the last failure, if that alone makes it one: the quick path puts the next like it."""
        self._usual_tally = 0
        self._head = at.head(row.number, 0)
        slow = row.settings.slow_call_s
        self._quick = at.QUICK_LIMIT_S if slow is None else min(at.QUICK_LIMIT_S, slow)
        self._rejected = at.TALLIES * row.number + Tally.REJECTED
        self._refused = -1
        self._refused_until = 0.0
        self._refused_state = BreakerState.OPEN

    # --- may it start -------------------------------------------------------------------------------

    def _admit(self) -> Entry | None:
        """Called when the board word is not the accepted one. None = go on the quick way. May raise."""
        link, now = self._link, self.clock()
        if link.board[self._row] == self._refused and now < link.fresh_until and link.page[0]:
            # The quick refusal, by the word that was refused last.
            if FREE_THREADED:
                link.tally(self._row, Tally.REJECTED)
            else:
                link.words[link.tallies + self._rejected] += 1
                link.floats[W_CHANGES] = now
            left = self._refused_until - now
            raise CircuitOpenError(self._shared.name, self._refused_state, left if left > 0.0 else 0.0)
        if self._client is not None:
            if self._client.untried:
                self._client.introduce()
            if not self._shared.awaited:
                self._client.await_row(self._shared)
        decided = self._decide()
        if isinstance(decided, Asking):
            decided = self._ask(decided)
        return decided or (self._plain() if self._moved else None)

    def _plain(self) -> Entry:
        """A call that was admitted as any other, for the slow way."""
        return Entry(self, self._link, self._row, self._head)

    def _must_wait(self) -> bool:
        """True if something may have to be awaited; else `_admit` does it on an event loop too."""
        half_open = self._link.board[self._row] >> 61 == _HALF_OPEN
        client = self._client
        return half_open or (client is not None and (client.untried or not self._shared.awaited))

    async def _admit_async(self) -> Entry | None:
        """As `_admit`, awaiting on an event loop, which is never blocked."""
        loop = running_loop()
        if loop is None:
            return self._admit()
        if self._client is not None and self._client.untried:
            await self._client.introduce_async(loop)
        if self._client is not None and not self._shared.awaited:
            await self._client.await_row_async(self._shared, loop)
        decided = self._decide()
        if isinstance(decided, Asking):
            decided = await self._ask_async(decided, loop)
        return decided or (self._plain() if self._moved else None)

    def _decide(self) -> Entry | Asking | None:
        """Admit, refuse, or say which permit to ask for."""
        link, row, now = self._link, self._row, self.clock()
        link.awake()
        if now >= link.fresh_until:
            link.look(now)
        board, unjudged, local = link.board, link.unjudged, link.local
        word = board[row]
        if word == at.ALONE:
            word = link.decide_alone(row)
        alone = row in link.refused
        state = word >> 61
        change = self._notice(word) if self._tell is not None else None
        if state in (_OPEN, _FORCED_OPEN):
            self._refuse_at(word, now, change)
        if link.holds and (until := link.held_until(row, word, now)):
            self._turn_down(BreakerState.OPEN, until - now, change)
        if state == _HALF_OPEN:
            return self._half_open(word, local or alone, now, change)
        ramped = state == _CLOSED and word & at.TIME_MASK and self._climb(word, now, change)
        generation = word >> 40 & at.BOARD_GENERATION_MASK
        head = at.head(row, 0 if unjudged else generation_code(generation))
        if ramped or change is not None:
            return self._entry(head, change)
        accepted = link.states[row]
        if word and board[row] == word and link.board is board and self._adopts and not alone:
            # No call since: nobody sees one board's word with another's head.
            self._head, self._closed = head, accepted
            return None
        return self._entry(head, None)

    def _entry(self, head: float, change: Change | None) -> Entry:
        entry = Entry(self, self._link, self._row, head)
        entry.change = change
        return entry

    def _climb(self, word: int, now: float, change: Change | None) -> bool:
        """After a closing more and more calls are let in; True while that lasts. May refuse.

        The word tells a length that is short by a fifth at most; who was there at the beginning knows better.
        """
        until, length = at.unpack_ramp(word)
        left = until - now
        if left <= 0.0:
            return False
        if self._ramp[0] == word:
            self._dice = (self._dice + GOLDEN) % 1.0  # no system call, and more even than chance
        else:
            self._ramp, self._dice = (word, max(length, left)), self._link.chance()
        if self._dice >= ramp_share(left, self._ramp[1]):
            self._turn_down(BreakerState.CLOSED, left, change, Tally.RAMPED)
        return True

    def _refuse_at(self, word: int, now: float, change: Change | None) -> NoReturn:
        """OPEN or FORCED_OPEN: remember what this word says, and refuse."""
        state, _, until, _ = at.unpack_row(word)
        if state is BreakerState.FORCED_OPEN and until <= 0.0:
            until = FOREVER
        self._refused_state, self._refused_until, self._refused = state, until, word
        self._turn_down(state, until - now, change)

    def _turn_down(
        self, state: BreakerState, retry_after_s: float, change: Change | None, tally: Tally = Tally.REJECTED
    ) -> NoReturn:
        """Refuse for another reason than an open board word."""
        self._link.tally(self._row, tally)
        if change is not None:
            self._fire(change)
        least = BUSY_RETRY_S if state is BreakerState.HALF_OPEN else 0.0
        raise CircuitOpenError(self._shared.name, state, max(least, retry_after_s))

    # --- trials -------------------------------------------------------------------------------------

    def _half_open(self, word: int, local: bool, now: float, change: Change | None) -> Entry | Asking:
        """A trial by our own machine's permit, or the question to ask for one; else refused.

        A call inside a trial of the same breaker is a part of that trial: it asks and puts nothing.
        """
        shared = self._shared
        if self._in_trial():
            part = self._entry(NO_WORD, change)
            part.done = True
            return part
        if local:
            shared.ask += 1
            grant = self._link.ask_here(self._row, shared.ask, now)
            if grant is None:
                self._turn_down(BreakerState.HALF_OPEN, 0.0, change)
            return self._trial(grant.permit, grant.generation, change)
        question = self._client.question(shared) if self._client is not None else None
        if question is None or not word & at.PERMITS_BIT or now < shared.asking_until:
            self._turn_down(BreakerState.HALF_OPEN, 0.0, change)
        shared.asking_until = now + ASKING_MAX_S
        return Asking(question, change)

    def _trial(self, permit: int, generation: int, change: Change | None) -> Entry:
        code = 0 if self._link.unjudged else generation_code(generation)
        entry = Trial(self, self._link, self._row, at.head(self._row, code))
        entry.change, entry.permit, entry.start = change, permit, self.clock()
        entry.within = innermost_trial()
        set_innermost_trial(entry)
        return entry

    def _in_trial(self) -> bool:
        """True if this context is inside a trial of this breaker that has not ended."""
        trial = innermost_trial()
        while trial is not None:
            if not trial.done and trial.link is self._link and trial.row == self._row:
                return True
            trial = trial.within
        return False

    def _ask(self, asked: Asking) -> Entry:
        """Wait for the permit; a call that is not async waits less where an event loop runs."""
        asking: PermitAsk | None = None
        try:
            asking = PermitAsk(asked.question)
            reply = asking.wait(PERMIT_WAIT_S if running_loop() is None else LOOP_WAIT_S)
            self._shared.ask += reply.answered
        except BreakerdError:
            reply = SILENCE
        except BaseException:
            self._give_back(asking)
            raise
        finally:
            self._asked(asking)
        return self._answer(reply, asked.change)

    async def _ask_async(self, asked: Asking, loop: Any) -> Entry:
        """The same, awaited."""
        asking: PermitAsk | None = None
        try:
            asking = PermitAsk(asked.question)
            reply = await asking.wait_on(loop, PERMIT_WAIT_S)
            self._shared.ask += reply.answered
        except BreakerdError:
            reply = SILENCE
        except BaseException:
            self._give_back(asking)
            raise
        finally:
            self._asked(asking)
        return self._answer(reply, asked.change)

    def _asked(self, asking: PermitAsk | None) -> None:
        """Let the next call ask. An answered question has used up its number: no permit comes twice."""
        self._shared.asking_until = 0.0
        if asking is not None:
            asking.close()

    def _give_back(self, asking: PermitAsk | None) -> None:
        """Interrupted or cancelled while asking: a permit that came all the same is not kept."""
        reply = asking.last_word() if asking is not None else SILENCE
        if reply.permit is not None:
            self._shared.ask += 1
            now, code = self.clock(), generation_code(reply.generation)
            self._link.put(self._row, OutcomeKind.CANCELLED, code, reply.permit, now, now)
            self._link.ring()

    def _answer(self, reply: Reply, change: Change | None) -> Entry:
        """What the supervisor's word means for this call."""
        if not reply.answered:
            # The question keeps its number: asked again, it gets the permit that may be on its way.
            self._turn_down(BreakerState.HALF_OPEN, 0.0, change, Tally.PERMIT_TIMEOUT)
        if reply.permit is None:
            self._turn_down(BreakerState.HALF_OPEN, reply.retry_after_s, change)
        return self._trial(reply.permit, reply.generation, change)
