"""The gate: one thread at a time, no deadlock with itself, never left held."""

from __future__ import annotations

import threading

import pytest

from ipc.gate import Gate


def test_one_at_a_time_and_never_twice_in_one_thread() -> None:
    """A second thread waits as long as it says; the same thread inside gets None instead of a deadlock."""
    gate = Gate()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> bool:
        assert gate.mine
        assert gate.run(lambda: True) is None
        inside.set()
        return leave.wait(10)

    thread = threading.Thread(target=gate.run, args=(hold,))
    thread.start()
    inside.wait()
    assert gate.held
    assert not gate.mine
    assert gate.run_within(0.01, lambda: True) is None
    leave.set()
    assert gate.run(lambda: 7) == 7
    thread.join()
    assert not gate.held


def test_what_the_work_raises_passes_through() -> None:
    """An exception of the work comes out, and the gate is open again."""
    gate = Gate()
    with pytest.raises(ZeroDivisionError):
        gate.run(lambda: 1 / 0)
    assert not gate.held
