"""What may be read of a breaker and told to it: the live view and the operator's verbs.

Neighbours: `admission` (the breaker that is read), `control` (commands go to the supervisor where one
decides), `guard`. Reading never blocks; a command is one exchange of at most COMMAND_S.
"""

from __future__ import annotations

from typing import Any, Final

from ipc import control
from ipc import layout as at
from ipc.admission import Admission
from ipc.circuit import generation_code
from ipc.control_async import ask_async, running_loop
from ipc.errors import SettingsError
from ipc.ring import last_run
from ipc.vocabulary import FOREVER, MANUAL_DEFAULT_S, BreakerState, Verb

COMMAND_S: Final = 0.25
"""How long a command may take."""


class Orders(Admission):
    """The commanding half of a CircuitBreaker."""

    @property
    def state(self) -> State:
        """A live view of this breaker's state; reading it never blocks."""
        return State(self)

    @property
    def status(self) -> State:
        """The same view, for those who read more of it than the state."""
        return State(self)

    def reset(self) -> None:
        """CLOSED, with empty windows and no memory of failed recoveries.

        This and the other commands go to the supervisor where one decides, else to this process's own
        breaker. They raise ControlDenied where this user may not command (the text says what to do), and
        SupervisorUnavailable where the answer takes more than 250 ms.
        """
        self._command(Verb.RESET, None, "")

    def force_open(self, for_s: float | None = MANUAL_DEFAULT_S, reason: str = "") -> None:
        """FORCED_OPEN for `for_s` seconds (None = until it is changed): nothing is admitted."""
        self._command(Verb.FORCE_OPEN, for_s, reason)

    def disable(self, for_s: float | None = MANUAL_DEFAULT_S, reason: str = "") -> None:
        """DISABLED for `for_s` seconds (None = until it is changed): all is admitted, nothing judged."""
        self._command(Verb.DISABLE, for_s, reason)

    def metrics_only(self, for_s: float | None = MANUAL_DEFAULT_S, reason: str = "") -> None:
        """METRICS_ONLY for `for_s` seconds (None = until changed): would-be openings are only told."""
        self._command(Verb.METRICS_ONLY, for_s, reason)

    def enable(self) -> None:
        """End a manual state."""
        self._command(Verb.ENABLE, None, "")

    async def reset_async(self) -> None:
        """As `reset`, awaited."""
        await self._command_async(Verb.RESET, None, "")

    async def force_open_async(self, for_s: float | None = MANUAL_DEFAULT_S, reason: str = "") -> None:
        """As `force_open`, awaited."""
        await self._command_async(Verb.FORCE_OPEN, for_s, reason)

    async def disable_async(self, for_s: float | None = MANUAL_DEFAULT_S, reason: str = "") -> None:
        """As `disable`, awaited."""
        await self._command_async(Verb.DISABLE, for_s, reason)

    async def metrics_only_async(self, for_s: float | None = MANUAL_DEFAULT_S, reason: str = "") -> None:
        """As `metrics_only`, awaited."""
        await self._command_async(Verb.METRICS_ONLY, for_s, reason)

    async def enable_async(self) -> None:
        """As `enable`, awaited."""
        await self._command_async(Verb.ENABLE, None, "")

    def _command(self, verb: Verb, for_s: float | None, reason: str) -> None:
        _check(for_s)
        left = COMMAND_S if self._client is None else self._client.acquaint(self._shared, COMMAND_S)
        path = self._commanded()
        if path is None:
            self._command_here(verb, for_s, reason)
        else:
            control.ask(path, "command", left, **self._order(verb, for_s, reason))
            self._link.release(self._row)

    async def _command_async(self, verb: Verb, for_s: float | None, reason: str) -> None:
        _check(for_s)
        left, loop = COMMAND_S, running_loop()
        if self._client is not None:
            left = await self._client.acquaint_async(self._shared, COMMAND_S, loop)
        path = self._commanded()
        if path is None:
            self._command_here(verb, for_s, reason)
        else:
            await ask_async(path, "command", left, **self._order(verb, for_s, reason))
            self._link.release(self._row)

    def _commanded(self) -> str | None:
        """The socket of the supervisor that decides about this breaker; None = this process does."""
        self._link.look(self.clock())
        return None if self._client is None or self._link.decides(self._row) else self._client.path

    def _order(self, verb: Verb, for_s: float | None, reason: str) -> dict[str, Any]:
        assert self._client is not None
        name = self._client.full_name(self._shared.name)
        return {"breaker": name, "action": str(verb), "for_s": for_s, "reason": reason}

    def _command_here(self, verb: Verb, for_s: float | None, reason: str) -> None:
        now = self.clock()
        until = FOREVER if for_s is None else now + for_s
        self._link.command_here(self._row, verb, until, reason, now)


def _check(for_s: float | None) -> None:
    """Refuse a time that no manual state lasts. Raises SettingsError."""
    if for_s is not None and not 0.0 < for_s < FOREVER:
        raise SettingsError("for_s", f"must be seconds above 0, or None for ever; got {for_s!r}")


class State:
    """A live view: each attribute is read when it is asked for, as old as the last publication.

    Setting `is_open` or `failure_count` is a command, and raises what commands raise.
    """

    __slots__ = ("_breaker",)

    def __init__(self, breaker: Orders) -> None:
        self._breaker = breaker

    def _read(self) -> tuple[BreakerState, int, float]:
        """State, generation and until (s; 0.0 = none)."""
        breaker = self._breaker
        link, row, now = breaker._link, breaker._row, breaker.clock()
        if now >= link.fresh_until or not link.page[0]:
            link.look(now)
        state, generation, until, _ = at.unpack_row(link.board[row])
        held = link.held_until(row, link.board[row], now)
        if held and state is not BreakerState.FORCED_OPEN:
            return BreakerState.OPEN, generation, max(held, until)
        return state, generation, until

    @property
    def value(self) -> BreakerState:
        """The state."""
        return self._read()[0]

    @property
    def name(self) -> str:
        """The state's name, such as "OPEN"."""
        return self._read()[0].name

    @property
    def generation(self) -> int:
        """How often this breaker has changed its state (20 bits)."""
        return self._read()[1]

    @property
    def retry_after_s(self) -> float:
        """Seconds until calls may be admitted again; 0.0 = now, or nobody knows; inf = not by itself."""
        state, _, until = self._read()
        if state is BreakerState.FORCED_OPEN and until <= 0.0:
            return FOREVER
        if state not in (BreakerState.OPEN, BreakerState.FORCED_OPEN):
            return 0.0
        return max(0.0, until - self._breaker.clock())

    def __eq__(self, other: object) -> bool:
        """Compare as the state does: `breaker.state == BreakerState.OPEN`."""
        if isinstance(other, State):
            return self.value == other.value
        return self.value == other if isinstance(other, BreakerState) else NotImplemented

    def __hash__(self) -> int:
        """The object's own: what it compares by changes."""
        return id(self)

    @property
    def is_open(self) -> bool:
        """True if nothing is admitted: OPEN or FORCED_OPEN. Setting it is `force_open` or `reset`."""
        return self._read()[0] in (BreakerState.OPEN, BreakerState.FORCED_OPEN)

    @is_open.setter
    def is_open(self, value: bool) -> None:
        if value:
            self._breaker.force_open()
        else:
            self._breaker.reset()

    @property
    def failure_count(self) -> int:
        """Failures since the last success: of this process, as far back as its ring remembers.

        Setting it to 0 is `reset`; it cannot be set to anything else (ValueError).
        """
        link, row = self._breaker._link, self._breaker._row
        if link.decides(row):
            link.look(self._breaker.clock())
            return link.failure_count(row)
        state, generation, _ = self._read()
        # What a breaker failed with before it was closed is over: trials or a reset have ended that run.
        code = generation_code(generation) if state is BreakerState.CLOSED else None
        return last_run(link.words, link.segment.layout, row, code)

    @failure_count.setter
    def failure_count(self, value: int) -> None:
        if value != 0:
            raise ValueError(f"failure_count can only be set to 0, which is a reset; got {value!r}")
        self._breaker.reset()

    def __repr__(self) -> str:
        state, generation, _ = self._read()
        return f"<State {state.name}, generation {generation}>"
