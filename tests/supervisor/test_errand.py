"""Work that may wait for a disk: in a thread, told when it is done, and nothing is kept for later."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from supervisor.errand import Errand


def test_the_work_is_done_elsewhere_and_its_end_is_told_in_the_loop() -> None:
    """Also when it raised."""
    told: list[Callable[[], None]] = []
    ran: list[bool] = []

    def work() -> None:
        ran.append(threading.current_thread() is threading.main_thread())

    errand = Errand(told.append)
    assert errand.idle(0.0)
    errand(work, work)
    assert errand.idle(10.0)
    assert ran == [False]
    told.pop()()
    assert ran == [False, True]


def test_what_cannot_be_waited_for_is_under_way() -> None:
    """The end does not wait for ever."""
    gate = threading.Event()
    errand = Errand(lambda _: None)
    errand(gate.wait, lambda: None)
    assert not errand.idle(0.0)
    gate.set()
    assert errand.idle(10.0)


def test_a_loop_that_is_closed_is_no_error() -> None:
    """The process ends: nobody waits for the work."""

    def closed(_: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    errand = Errand(closed)
    with pytest.MonkeyPatch.context() as context:
        raised: list[object] = []
        context.setattr(threading, "excepthook", raised.append)
        errand(lambda: None, lambda: None)
        assert errand.idle(10.0)
        assert raised == []
