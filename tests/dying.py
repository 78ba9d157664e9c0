"""A process that dies between two lines: every line of one file is tried in turn."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

DIED = 77
STEPS_MAX = 2000
"""More lines than any action here runs through."""


def deaths(
    module: ModuleType, prepare: Callable[[], Any], action: Callable[[Any], object], every: int = 1
) -> Iterator[int]:
    """Run `action(prepare())` in children, each of which dies before the n-th line of `module` in the action.

    Yields n while the state that the dead child left behind can be looked at, until one child lives to
    the end of the action. With `every` only each so many-th line is tried.
    """
    for step in range(1, STEPS_MAX, every):
        pid = os.fork()
        if pid == 0:
            _live(module, prepare, action, step)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, DIED), f"the child failed with {code}"
        if code == 0:
            assert step > 1
            return
        yield step
    raise AssertionError("the action never came to its end")


def _live(
    module: ModuleType, prepare: Callable[[], Any], action: Callable[[Any], object], steps: int
) -> None:
    """In the child: act until the line at which to die."""
    left = steps

    def line(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                os._exit(DIED)
        return line

    def call(frame: FrameType, _event: str, _arg: Any) -> Any:
        return line if frame.f_code.co_filename == module.__file__ else None

    code = 1
    try:
        ready = prepare()
        threading.settrace(call)
        sys.settrace(call)
        action(ready)
        sys.settrace(None)
        code = 0
    finally:
        os._exit(code)
