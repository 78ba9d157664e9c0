"""Orders that stop a thread exactly between the ticket of a ring slot and the store of its word.

A trace function looks at every opcode of the library in that thread and waits before the first store
into an item, which in a plain successful call is the one into the ring. Neighbours: `crew` (who obeys).
"""

from __future__ import annotations

import dis
import functools
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from ipc.vocabulary import OutcomeKind
from tests.faults.body import body

if TYPE_CHECKING:
    from tests.faults.crew import Crew

PAUSE_S: Final = 5.0


@functools.cache
def stores(code: CodeType) -> frozenset[int]:
    """Offsets of the instructions of `code` that store into an item."""
    return frozenset(step.offset for step in dis.get_instructions(code) if step.opname == "STORE_SUBSCR")


def ours(frame: FrameType) -> bool:
    """True if the frame runs code of the library."""
    return str(frame.f_globals.get("__name__", "")).startswith("ipc.")


class Pause:
    """One thread with one guarded call that waits before its word is stored."""

    def __init__(self, crew: Crew, breaker: str) -> None:
        self._crew, self._breaker = crew, breaker
        self._guarded = crew.breakers[breaker](body)
        self.paused = threading.Event()
        self.go_on = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        ledger = self._crew.ledger(self._breaker)
        sys.settrace(self._enter)
        try:
            self._guarded("ok", ledger)
        finally:
            sys.settrace(None)
        ledger.done(OutcomeKind.SUCCESS)
        ledger.left()

    def _enter(self, frame: FrameType, _event: str, _arg: object) -> Any:
        if not ours(frame) or self.paused.is_set():
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode" and not self.paused.is_set() and frame.f_lasti in stores(frame.f_code):
            self.paused.set()
            self.go_on.wait()
        return self._step


_pauses: Final[dict[int, Pause]] = {}


def pause(crew: Crew, breaker: str, number: int, threads: int = 1) -> dict[str, Any]:
    """Start `threads` calls; returns when each has its slot and none has stored its word."""
    for index in range(number, number + threads):
        # A block that has just been granted would make the first store another one.
        crew.call_once(breaker, "ok")
        made = _pauses[index] = Pause(crew, breaker)
        made.thread.start()
        if not made.paused.wait(PAUSE_S):
            raise TimeoutError("no store was seen")
    return {}


def resume(_: Crew, number: int, threads: int = 1) -> dict[str, Any]:
    """Let them store, and wait until they have."""
    for index in range(number, number + threads):
        made = _pauses.pop(index)
        made.go_on.set()
        made.thread.join(PAUSE_S)
        if made.thread.is_alive():
            raise TimeoutError("the thread does not end")
    return {}


ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"pause": pause, "resume": resume}
