"""Whose will it was that a call ended: the caller's own end says nothing about the dependency.

A call may be cancelled because it took too long, which may be the dependency's fault, or because its
program, its greenlet or the task group around it ends, which is not. Everything is told by names: nothing
is imported for it. Neighbours: `verdict` (which asks, at the end of a call that was cancelled late).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

FRAMES_MAX: Final = 200
"""Frames of the caller that are looked at."""
_ENDINGS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""The program's own ways to end: not a cancellation, however long the call took."""
_GREENLET_ENDS: Final = frozenset({"GreenletExit", "TaskletExit"})
_SHUTDOWNS: Final = frozenset({"_cancel_all_tasks", "shutdown_asyncgens"})
"""Functions of event loops that cancel whatever is left when a program ends."""


def ends_itself(error: BaseException) -> bool:
    """True if the caller ends by its own will: program, greenlet, event loop, or a sibling that failed."""
    if isinstance(error, (*_ENDINGS, BaseExceptionGroup)):
        return True
    if any(kind.__name__ in _GREENLET_ENDS for kind in type(error).__mro__):
        return True
    if any("shutdown" in word.lower() for word in error.args if isinstance(word, str)):
        return True  # servers say so when they cancel what did not end in time
    return _loop_or_group_ends()


def _loop_or_group_ends() -> bool:
    for frame in _callers():
        if frame.f_code.co_name in _SHUTDOWNS:
            return True
        if any(_has_failed(value) for value in _locals(frame)):
            return True
    return any(_has_failed(group) for group in _groups_of_this_task())


def _callers() -> Iterator[FrameType]:
    """The frames above this file: the guard, whoever awaits it, the event loop, the program."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(FRAMES_MAX):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _locals(frame: FrameType) -> list[Any]:
    """The values of a function's names: a task group that was opened here is among them."""
    if "TaskGroup" not in frame.f_code.co_names and "create_task_group" not in frame.f_code.co_names:
        return []
    return list(frame.f_locals.values())


def _groups_of_this_task() -> Iterator[Any]:
    """The task groups that wait for the task that runs now."""
    asyncio = sys.modules.get("asyncio")
    current = getattr(asyncio, "current_task", None)
    try:
        task = current() if current is not None else None
    except RuntimeError:
        return  # no event loop runs in this thread
    for callback, *_ in getattr(task, "_callbacks", None) or ():
        yield getattr(callback, "__self__", None)


def _has_failed(group: Any) -> bool:
    """True for a task group that cancels its tasks because one of them has failed."""
    if type(group).__name__ != "TaskGroup":
        return False
    return bool(getattr(group, "_errors", None) or getattr(group, "_exceptions", None))
