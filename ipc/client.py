"""What a process asks the supervisor for, and the names of its breakers.

No thread: a first call (or `connect`) waits a little for the hello's answer, later attempts are steps that
do not wait, taken by calling threads when they are due. Each wait stands here twice, slept and awaited,
over the one machine of `attachment`. Neighbours: `link` (what is attached), `guard` (asks for rows).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ipc.asking import Question
from ipc.attachment import POLL_S, RETRY_MAX_S, RETRY_MIN_S, Attachment, chance
from ipc.control_async import pause, running_loop
from ipc.link import Link
from ipc.rows import Row, declaration
from ipc.vocabulary import BreakerSettings

FIRST_WAIT_S: Final = 0.05
"""How long the first guarded call of a process may wait to be attached."""
KNOWN_WAIT_S: Final = 0.1
"""How long a command may wait until the supervisor has read what was declared just before it."""


class Client(Attachment):
    """One attachment of this process. The default one serves every CircuitBreaker that is made plainly.

    `socket` is a path, "off" to stay alone, None for BREAKERD_SOCKET and the default places. `name` and
    `namespace` are as for `ipc.connect`. Nothing is sent before the first guarded call or `connect`.
    """

    def __init__(
        self,
        socket: str | None = None,
        name: str | None = None,
        namespace: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = chance,
    ) -> None:
        self._rows: dict[str, Row] = {}
        self._alone: dict[str, Row] = {}
        """The rows of breakers that found no room among the others, each on a board of its own."""
        super().__init__(socket, name, namespace, clock, chance)

    # --- what others ask ----------------------------------------------------------------------------

    def row(self, name: str, settings: BreakerSettings) -> Row | None:
        """The row of the breaker `name`, made on first sight; None = there is no room for one more."""
        found = self._rows.get(name)
        if found is not None:
            if found.settings != settings:
                self._warn_once(name, "breaker %s was declared before with other settings, which hold", name)
            return found
        number = self.link.add_breaker(name, settings, declaration(name, settings))
        if number is None:
            self._warn_once("rows", "no row is left for breaker %s: it stays in this process", name)
            return None
        return self._rows.setdefault(name, Row(self.link, number, name, settings))

    def row_alone(self, name: str, settings: BreakerSettings) -> Row:
        """A row on a board of its own: one for each name, so that all objects of the name share its state."""
        found = self._alone.get(name) if name else None
        if found is None:
            link = Link(self.clock, self.chance)
            number = link.add_breaker(name, settings, declaration(name, settings))
            found = Row(link, number or 0, name, settings)
            if name:
                found = self._alone.setdefault(name, found)
        return found

    def question(self, row: Row) -> Question | None:
        """How to ask for a permit; None = there is nobody to ask."""
        return None if self.path is None else Question(self.path, self.nonce.hex(), row.number, row.ask)

    def full_name(self, name: str) -> str:
        """The breaker's name on this host."""
        return f"{self.namespace}/{name}" if self.namespace else name

    # --- commands -----------------------------------------------------------------------------------

    def acquaint(self, row: Row, seconds: float) -> float:
        """Before a command about this row: what is left of `seconds` when it may be sent.

        The process is attached first if that is quick, else an order given before the first call would
        reach nobody; and the supervisor must have read the declaration, or it knows no such breaker.
        """
        begun = time.monotonic()
        if self.untried:
            self.introduce()
        while self._unknown(row) and time.monotonic() - begun < KNOWN_WAIT_S:
            time.sleep(POLL_S)
        return seconds - (time.monotonic() - begun)

    async def acquaint_async(self, row: Row, seconds: float, loop: Any) -> float:
        """The same, awaited."""
        if loop is None:
            return self.acquaint(row, seconds)
        begun = time.monotonic()
        if self.untried:
            await self.introduce_async(loop)
        while self._unknown(row) and time.monotonic() - begun < KNOWN_WAIT_S:
            await pause(loop, POLL_S)
        return seconds - (time.monotonic() - begun)

    def _unknown(self, row: Row) -> bool:
        """True if a supervisor decides and has not shown this row yet."""
        return not row.link.local and not row.link.board[row.number]

    # --- attaching ----------------------------------------------------------------------------------

    def connect(self, timeout: float = 2.0) -> bool:
        """Attach, within `timeout` seconds; True if attached. Calls work without a supervisor too."""
        self.link.awake()
        self.untried = False
        deadline = time.monotonic() + timeout
        while not self.link.attached:
            left = deadline - time.monotonic()
            if left <= 0 or not self._start(None):
                return False
            if not self._step(left):
                if self.due > self.clock() + RETRY_MAX_S:
                    return False  # refused for a reason that waiting does not change
                time.sleep(min(max(0.0, deadline - time.monotonic()), RETRY_MIN_S * (0.5 + self.chance())))
        self._settled(min(deadline, time.monotonic() + FIRST_WAIT_S))
        return True

    def introduce(self) -> None:
        """Before the first guarded call of the process: be attached if that is quick."""
        self.link.awake()
        deadline = time.monotonic() + (0.0 if running_loop() is not None else FIRST_WAIT_S)
        if not self._start(self.clock()):
            self.untried = False
            return
        done = self._turn.run_within(max(0.0, deadline - time.monotonic()), self._first_turn, deadline)
        while done is None and self.untried and time.monotonic() < deadline:
            time.sleep(POLL_S)  # another greenlet of this thread is at it

    def _first_turn(self, deadline: float) -> bool:
        """The first step, and until the board is there; whoever comes meanwhile waits for it too."""
        try:
            if self._take_turn(deadline - time.monotonic()):
                self._settled(deadline)
        finally:
            self.untried = False
        return True

    async def introduce_async(self, loop: Any) -> None:
        """The same, awaited, by any number of tasks: they look in turn, and watch no descriptor."""
        self.link.awake()
        deadline = time.monotonic() + FIRST_WAIT_S
        try:
            if self._start(self.clock()):
                self._step(0.0)
            while self._exchange is not None and time.monotonic() < deadline:
                await pause(loop, POLL_S / 4)
                if self._exchange is not None:
                    self._step(0.0)
            await self._settled_async(deadline, loop)
        finally:
            self.untried = False

    async def connect_async(self, timeout: float, loop: Any) -> bool:
        """As `connect`, awaited: the loop is never blocked."""
        self.link.awake()
        self.untried = False
        deadline = time.monotonic() + timeout
        while not self.link.attached:
            if time.monotonic() >= deadline or not self._start(None):
                return False
            if not self._step(0.0):
                if self._exchange is None and self.due > self.clock() + RETRY_MAX_S:
                    return False  # refused for a reason that waiting does not change
                waiting = POLL_S / 4 if self._exchange is not None else RETRY_MIN_S * (0.5 + self.chance())
                await pause(loop, min(max(0.0, deadline - time.monotonic()), waiting))
        await self._settled_async(min(deadline, time.monotonic() + FIRST_WAIT_S), loop)
        return True

    def await_row(self, row: Row) -> None:
        """Before a first call: a breaker that was declared after attaching may be open on this host."""
        row.awaited = True
        deadline = time.monotonic() + (0.0 if running_loop() is not None else FIRST_WAIT_S)
        while self._unknown(row) and time.monotonic() < deadline:
            time.sleep(POLL_S / 10)

    async def await_row_async(self, row: Row, loop: Any) -> None:
        """The same, awaited."""
        deadline = time.monotonic() + FIRST_WAIT_S
        while self._unknown(row) and time.monotonic() < deadline:
            await pause(loop, POLL_S / 10)
        row.awaited = True

    def _settled(self, deadline: float) -> None:
        """Wait until the board shows what we declared: a breaker that is open must not admit us first."""
        rows = list(self._rows.values())
        while any(self._unknown(row) for row in rows) and time.monotonic() < deadline:
            time.sleep(POLL_S / 10)
        for row in rows:
            row.awaited = True

    async def _settled_async(self, deadline: float, loop: Any) -> None:
        """The same, awaited."""
        rows = list(self._rows.values())
        while any(self._unknown(row) for row in rows) and time.monotonic() < deadline:
            await pause(loop, POLL_S / 10)
        if self.link.attached:
            for row in rows:
                row.awaited = True
