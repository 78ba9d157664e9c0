"""A process's link to whoever decides: the board that is read, and the mode.

What it points at is swapped under functions that are decorated already. Attached, the supervisor reads
the ring and writes the board; on its own (never attached, or the heartbeat is stale) the local machine
does both, and the guard's code is the same. Neighbours: `outlet` (what is written), `local` (decides),
`client` (attaches it), `admission` (reads the board and puts outcomes). Knows no socket.

    ring, tallies, declarations, granted   written by this process, read by the supervisor
    board, heartbeat, bell, committed      written by the supervisor; if it dies they stand still, which
                                           the heartbeat tells within STALE_S
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ipc import layout as at
from ipc.blocks import FREE_THREADED, Queue, arm, drawn, give_up, open_block
from ipc.fallback import Declared, Fallback
from ipc.forks import process_began, remember
from ipc.gate import Gate
from ipc.local import LocalMachine
from ipc.outlet import NEVER
from ipc.ring import NO_EPOCH, Reader, epoch_of
from ipc.segment import Segment
from ipc.vocabulary import FOREVER, BreakerSettings, OutcomeKind, Verb

STALE_S: Final = 1.0
"""A heartbeat older than this means that nobody decides: the process does it by itself."""
LOCAL_LOOK_S: Final = 0.05
"""How often, at most, a process on its own looks whether the heartbeat is back."""
FLAP_S: Final = 60.0
HOLD_S: Final = 5.0
"""A second switch to local within FLAP_S lasts at least so long."""
LOOK_MIN_S: Final = 0.001
FORKED_WAIT_S: Final = 0.1
"""A gate that is held for so long in a child that has just been forked is held by nobody."""
_ZEROS: Final = memoryview(bytes(1 << 16)).cast("d")
_TRIES: Final = 4
"""Blocks that one put may find used up by other threads before it goes to the tallies."""


class Outside(Protocol):
    """What gets a link attached."""

    due: float
    """When it wants to be called again, s."""

    def attend(self, now: float) -> None:
        """Take the next step towards being attached, without waiting."""

    def introduce(self) -> None:
        """The process's first guarded call: be attached if that is quick."""

    def lost(self, now: float) -> None:
        """The supervisor's heartbeat is stale."""

    def forked(self) -> None:
        """This is another process now: forget what belonged to the parent."""


class Link(Fallback):
    """Everything that a guarded call reads and writes."""

    states: memoryview[float]
    """The board again, as doubles: compared, never read as numbers. Comparing whole words is what the quick
    path does, and doubles are compared and made faster than integers of 64 bits. No word that is accepted is
    a zero, a NaN or so small that a processor may take it for zero."""
    unjudged: bool
    """It decides about calls whose outcomes a supervisor counts: they carry generation code 0."""

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[], float], outside: Outside | None = None
    ) -> None:
        super().__init__()
        self.clock, self.chance, self._outside = clock, chance, outside
        self.breakers: dict[int, Declared] = {}
        self._numbers: dict[str, int] = {}
        """The rows of the same breakers by name."""
        self.born = NEVER
        """When this process forked off, s: calls that started before are its parent's to report."""
        self._forked_at = NEVER
        self._begin([0] * at.ROWS)
        remember(self)

    def _begin(self, board: list[int]) -> None:
        """Start on our own, from the board that was obeyed before: the parent's, or nothing at birth."""
        now = self.clock()
        self.machine = LocalMachine(self.chance)
        for row, declared in self.breakers.items():
            self.machine.add(row, declared.name, declared.settings, board[row], now)
        self.holds = {}
        self._refuse_none(memoryview(bytearray(8 * at.ROWS)).cast("Q"))
        self._switched = now if self.breakers else NEVER
        self._attached_at = self._hold_until = self._last_local = NEVER
        self.fresh_until = NEVER
        self._use(Segment.private())
        self._obey(self.machine.board, self.machine.states, local=True)
        self.page[0] = 1.0

    def _use(self, segment: Segment) -> None:
        """Put into this segment."""
        granted = -(-segment.words[at.W_GRANTED] // at.BLOCK) * at.BLOCK
        self._reader = Reader(segment.words, segment.layout, position=granted)
        self._write_into(segment)

    def _obey(self, board: memoryview[int], states: memoryview[float], local: bool) -> None:
        """Admit by this board; no thread sees a part of it. `local` is stored last: until it stands, the
        next look does it all again.
        """
        unjudged = local and self.attached
        self.unjudged, self.board, self.states, self.local = unjudged, board, states, local

    def _obey_supervisor(self) -> None:
        floats = self.segment.floats[at.W_BOARD : at.W_BOARD + at.ROWS]
        self._obey(_board(self.segment), floats, local=False)
        for row in self.refused:
            self.refused.move_here(self.machine, row)

    # --- a forked child -----------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a child of os.fork: from here on its calls are its own. The rest waits for its first call."""
        self.born = self._forked_at = self.clock()
        self._gate = Gate()
        self.page[:] = _ZEROS[: len(self.page)]  # as the kernel does by itself where it can

    def awake(self) -> None:
        """Begin this process's own life if it is a forked child that has not yet: attached, if that is quick.

        The function that brings us here may be quick for ever from now on, its board word being the same.
        """
        if self.page[0]:
            return
        done = self._gate.run_within(FORKED_WAIT_S, self._reborn)
        if done is None and not self._gate.mine:
            self._gate = Gate()  # inside was a thread that a fork in C left behind
            done = self._gate.run(self._reborn)
        if done and self._outside is not None:
            self._outside.introduce()

    def _reborn(self) -> bool:
        if not self.page[0]:
            # The hook knows it to the microsecond; after a fork in C the kernel is asked.
            self.born = self._forked_at if self._forked_at != NEVER else process_began()
            self._forked_at = NEVER
            self._detach()
            if self._outside is not None:
                self._outside.forked()
        return True

    # --- attaching ----------------------------------------------------------------------------------

    def attach(self, segment: Segment, bell: int, now: float) -> bool:
        """A supervisor gave us this segment: everything goes there, and its board is obeyed at once.

        May be done again for the same segment, if an exception came in between. False = not done: this
        thread is in the middle of another piece of work, as in a signal handler.
        """
        return bool(self._gate.run(self._attach, segment, bell, now))

    def _attach(self, segment: Segment, bell: int, now: float) -> bool:
        old = self.segment
        if old is not segment:
            self._refuse_none(_board(segment))
        self._declare_again(segment)
        self._hold_what_is_open(now)
        self._attached_at = now
        self._switched = FOREVER  # until the board is obeyed too, nothing that is put can be judged
        self._use(segment)
        self._obey_supervisor()
        self._switched = self.clock()
        self.fresh_until = now + STALE_S
        if old is not segment:
            self._drop(old)
        self.hear(bell)
        return True

    def _hold_what_is_open(self, now: float) -> None:
        """The supervisor decides from now on, but what we opened ourselves stays open until its time."""
        opened = self.machine.open_until() if self.local else {}
        self.holds = {row: (until, None) for row, until in opened.items() if until > now}

    def detach(self) -> None:
        """Be on our own from now on."""
        self._gate.run(self._detach)

    def _detach(self) -> bool:
        board = self.board.tolist()
        self._drop(self.segment)
        self._begin(board)
        return True

    def add_breaker(self, name: str, settings: BreakerSettings, record: bytes) -> int | None:
        """A row for a breaker (`record` lacks its row number); None = there is no room for one more."""
        self.awake()
        return self._gate.run(self._add_breaker, name, settings, record)

    def _add_breaker(self, name: str, settings: BreakerSettings, record: bytes) -> int | None:
        if name in self._numbers:  # another thread was quicker
            return self._numbers[name]
        row = self._declare(record)
        if row is not None:
            self.breakers[row] = Declared(name, settings)
            self._numbers[name] = row
            if self.local:
                self.machine.add(row, name, settings, 0, self.clock())
        return row

    # --- putting ------------------------------------------------------------------------------------

    def put(
        self, row: int, kind: OutcomeKind, generation: int, permit: int | None, start: float, end: float
    ) -> None:
        """Put one outcome, whatever it is; into the tallies if the ring is full. Never waits.

        `generation` is the code, 0 to 15, under which the call was admitted, `permit` its trial's.
        """
        self.awake()
        if start < self.born:
            return
        if start < self._switched:
            generation, permit = 0, None  # admitted by another board: counted, never judged
        if row in self.refused:
            self._put_alone(row, kind, generation, permit, end)
            return
        took = end - start
        code = at.pack_code(kind, took >= at.QUICK_LIMIT_S, permit)
        for _ in range(_TRIES):
            queue = self.queue
            block = queue[5]
            if end < block.limit:
                words = block.words
                word = at.pack_outcome(code, generation, block.lap, row, end - block.epoch, took)
                if FREE_THREADED:
                    if self._gate.run(self._store, queue, word):
                        return
                elif self.queue is queue:
                    # No call between ticket and store: see `blocks`.
                    for slot in queue[0]:
                        words[slot] = word
                        return
            if not self._go_on(queue, end):
                break
        self.tally(row, kind)
        if self.local:
            self._gate.run(self._feed, row, kind, generation, permit, end)

    def _go_on(self, queue: Queue, end: float) -> bool:
        """After a put that found no slot: look, then open a block. False = the ring is full."""
        if end >= self.fresh_until:
            self.look(self.clock())
        return bool(self._gate.run(self._refill, queue, end))

    def _refill(self, queue: Queue, end: float) -> bool:
        block, now = queue[5], self.clock()
        if self.queue is not queue:
            return True
        if end < block.until and drawn(queue) < block.after:
            self._arm(queue, now)
            return end < block.limit
        give_up(queue)
        if self.local:
            self._drain(now)
            if self._reader.position < block.after:
                self._reader.look_for_holes()
        start = block.after
        if start + at.BLOCK - self.words[at.W_COMMITTED] > self.segment.layout.slots:
            return False
        fresh = open_block(self.segment, self.page, start, now)
        self._arm(fresh, now)
        self.queue = fresh
        return True

    # --- looking after ------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Heartbeat, mode, the next step of attaching, and the local machine's turn. Never waits."""
        self.awake()
        outside = self._outside
        if outside is not None and now >= outside.due:
            outside.attend(now)
        self._gate.run(self._look, now)
        self._tell()

    def _look(self, now: float) -> bool:
        due, outside = FOREVER, self._outside
        if self.attached:
            beat = max(self.words[at.W_HEARTBEAT] * 1e-9, self._attached_at)
            if not self.local and now - beat > STALE_S:
                self._go_local(now)
            elif self.local and now - beat <= STALE_S and now >= self._hold_until:
                self._hold_what_is_open(now)
                self._obey_supervisor()
            elif self.local and now - beat > STALE_S and outside is not None and outside.due == FOREVER:
                # It came back and went again while we held on to local mode: knock again.
                outside.lost(now)
            due = now + LOCAL_LOOK_S if self.local else beat + STALE_S
        if self.local:
            self._drain(now)
            due = min(due, self.machine.next_time())
        else:
            self.refused.advance(now)
            due = min(due, self.refused.next_time())
        if outside is not None:
            due = min(due, outside.due)
        for row in tuple(self.holds):
            if not self.local and not self.held_until(row, self.board[row], now):
                self.release(row)
        self.fresh_until = max(due, now + LOOK_MIN_S)
        self._arm(self.queue, now)
        return True

    def _arm(self, queue: Queue, now: float) -> None:
        """Open the quick path, but for calls that may have started in another life or on another board."""
        settled = max(self.born, self._switched) + at.QUICK_LIMIT_S
        if now < settled:
            self.fresh_until = min(self.fresh_until, settled)
        arm(queue, self.fresh_until, now >= settled)

    def _go_local(self, now: float) -> None:
        """Nobody decides: do it ourselves, from the last board words and what was never judged."""
        self._hold_until = now + HOLD_S if now - self._last_local < FLAP_S else NEVER
        self._last_local = now
        segment, words = self.segment, self.words
        machine = LocalMachine(self.chance)
        for row, declared in self.breakers.items():
            if not machine.move_here(self.refused, row):
                machine.add(row, declared.name, declared.settings, words[at.W_BOARD + row], now)
        slots = segment.layout.slots
        position = max(words[at.W_COMMITTED], words[at.W_GRANTED] - slots)
        first = words[segment.layout.ring + (position // at.BLOCK * at.BLOCK & (slots - 1))]
        epoch = epoch_of(first) if position % at.BLOCK else NO_EPOCH
        self._reader = Reader(words, segment.layout, position=position, epoch=epoch)
        self.machine = machine
        self._obey(machine.board, machine.states, local=True)
        if self._outside is not None:
            self._outside.lost(now)

    def _drain(self, now: float) -> None:
        """The local machine reads what was put; only a private ring is its own to commit."""
        reader = self._reader
        ahead = drawn(self.queue) - reader.position
        if ahead > 0:
            self.machine.take(reader.read(ahead), now)
            if not self.attached:
                self.words[at.W_COMMITTED] = reader.committed
        self.machine.advance(now)

    def command_here(self, row: int, verb: Verb, until: float, reason: str, now: float) -> None:
        """An operator's verb, to the local machine."""
        self.awake()
        self._gate.run(self._judge(row).command, row, verb, until, reason, now)
        self.look(now)


def _board(segment: Segment) -> memoryview[int]:
    return segment.words[at.W_BOARD : at.W_BOARD + at.ROWS]
