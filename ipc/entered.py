"""The `with` and `async with` forms: which open block a block's end belongs to.

A block is found by the frame that it stands in; an ExitStack, or a subclass that overrides the two methods,
leaves from another frame, and is found by its context. Neighbours: `admission` (which admits and ends),
`guard` (the other forms).
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Final, NamedTuple, Self

from ipc.ending import Entry
from ipc.orders import Orders


class Block(NamedTuple):
    """An open `with` block and the one around it; an entry without a frame has been left."""

    entry: Entry
    outer: Block | None


_entered: Final[ContextVar[Block | None]] = ContextVar("ipc_entered", default=None)
"""The innermost `with` block of this context that is open, of all breakers."""


class Enterable(Orders):
    """A breaker as a context manager. Many threads and tasks may be inside at once, and may nest."""

    __slots__ = ()
    _entries: dict[FrameType, list[Entry]]
    """Open `with` blocks by the frame that they stand in."""

    def _begin(self) -> Entry:
        """Admit one call. Raises CircuitOpenError."""
        if self._link.states[self._row] == self._closed:
            return self._plain()
        return self._admit() or self._plain()

    async def _begin_async(self) -> Entry:
        """The same, awaiting where a permit must be asked for."""
        return (await self._admit_async() if self._must_wait() else None) or self._begin()

    def __enter__(self) -> Self:
        """Admit the block. Raises CircuitOpenError."""
        self._enter(self._begin(), sys._getframe(1))
        return self

    async def __aenter__(self) -> Self:
        """Admit the block, awaiting a trial's permit. Raises CircuitOpenError."""
        frame = sys._getframe(1)
        self._enter(await self._begin_async(), frame)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Put the block's outcome; its exception passes on."""
        self._leave(error, sys._getframe(1))

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Put the block's outcome; its exception passes on."""
        self._leave(error, sys._getframe(1))

    def _enter(self, entry: Entry, frame: FrameType) -> None:
        """Remember the block by the frame it stands in, and by its context for an ExitStack's sake."""
        self._entries.setdefault(frame, []).append(entry)
        entered = _entered.get()
        while entered is not None and entered.entry.frame is None:
            entered = entered.outer
        _entered.set(Block(entry, entered))
        entry.frame = frame
        entry.start = self.clock()

    def _leave(self, error: BaseException | None, frame: FrameType) -> None:
        """End the innermost block of this frame, else of this context: each entry ends exactly once."""
        entered = _entered.get()
        mine = self._entries.get(frame)
        if mine:
            entry = mine[-1]
        else:
            block = entered
            while block is not None and (block.entry.owner is not self or block.entry.frame is None):
                block = block.outer
            if block is None:
                return
            entry = block.entry
        assert entry.frame is not None
        stands, entry.frame = entry.frame, None
        mine = self._entries.get(stands, [])
        if entry in mine:
            mine.remove(entry)
        if not mine:
            self._entries.pop(stands, None)
        self._end(entry, error, self.clock())
        while entered is not None and entered.entry.frame is None:
            entered = entered.outer
        _entered.set(entered)
