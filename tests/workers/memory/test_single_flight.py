"""One loader per key: threads, tasks and processes that want the same thing load it once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from workers.memory.locks import KeyLocks
from workers.memory.single_flight import SingleFlight


@pytest.mark.fault("H8")
def test_h8_a_hundred_threads_are_one_loader() -> None:
    """Everybody gets what the one has loaded."""
    flights: SingleFlight[int] = SingleFlight(None, 10.0)
    gate, loads, results = threading.Event(), [], []

    def load() -> int:
        loads.append(1)
        gate.wait(10.0)
        return 7

    threads = [
        threading.Thread(target=lambda: results.append(flights.run("k", load, lambda: None)))
        for _ in range(100)
    ]
    for one in threads:
        one.start()
    gate.set()
    for one in threads:
        one.join()
    assert results == [7] * 100
    assert len(loads) < 100


def test_an_error_is_everybodys_and_the_next_one_loads_again() -> None:
    """A failing database is not asked once per waiting thread."""
    flights: SingleFlight[int] = SingleFlight(None, 10.0)
    with pytest.raises(ConnectionError):
        flights.run("k", _fail, lambda: None)
    assert flights.run("k", lambda: 1, lambda: None) == 1


def _fail() -> int:
    raise ConnectionError("down")


def test_an_interrupted_loader_leaves_the_loading_to_the_next() -> None:
    """KeyboardInterrupt in the loader is the loader's alone."""
    flights: SingleFlight[int] = SingleFlight(None, 10.0)
    began, gate, results = threading.Event(), threading.Event(), []

    def interrupted() -> int:
        began.set()
        gate.wait(10.0)
        raise KeyboardInterrupt

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            flights.run("k", interrupted, lambda: None)

    first = threading.Thread(target=lead)
    first.start()
    began.wait(10.0)
    second = threading.Thread(target=lambda: results.append(flights.run("k", lambda: 2, lambda: None)))
    second.start()
    gate.set()
    first.join()
    second.join()
    assert results == [2]


@pytest.mark.fault("H8")
def test_h8_processes_wait_for_each_other_and_look_into_the_cache(tmp_path: Path) -> None:
    """While another process loads, nobody else does; afterwards what it cached is taken."""
    path = str(tmp_path / "locks")
    parent = KeyLocks(path)
    flights: SingleFlight[int] = SingleFlight(KeyLocks(path), 10.0)
    told, ask = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        child: SingleFlight[int] = SingleFlight(KeyLocks(path), 10.0)

        def load() -> int:
            os.write(told[1], b"!")
            os.read(ask[0], 1)
            return 1

        child.run("k", load, lambda: None)
        os._exit(0)
    os.read(told[0], 1)
    looked: list[int] = []
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        if not waits:
            os.write(ask[1], b"!")
        waits.append(seconds)
        os.sched_yield()

    flights._sleep = sleep

    def again() -> int:
        looked.append(1)
        return 5

    assert flights.run("k", _fail, again) == 5
    assert looked == [1]
    assert waits
    os.waitpid(pid, 0)
    parent.close()
    for number in (*told, *ask):
        os.close(number)
