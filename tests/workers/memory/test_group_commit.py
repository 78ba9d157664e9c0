"""Threads that put at the same time share a commit, and no other thread's error."""

from __future__ import annotations

import threading

import pytest

from workers.memory.group_commit import GroupCommit, Ticket

THREADS = 12


@pytest.mark.parametrize(
    "raised", [UnicodeEncodeError("utf-8", "\ud800", 0, 1, "odd"), RuntimeError("odd"), MemoryError()]
)
def test_one_odd_record_is_nobody_elses_error(raised: Exception) -> None:
    """Whatever a commit raises: the thread whose record it was hears of it, the others are put."""
    put: set[str] = set()

    def commit(tickets: list[Ticket[str]]) -> None:
        for one in tickets:
            if "odd" in one.records:
                raise raised
            put.update(one.records)

    group = GroupCommit(commit, 100)
    errors: list[BaseException] = []
    gate = threading.Barrier(THREADS)

    def work(number: int) -> None:
        gate.wait(10)
        try:
            group.put(["odd"] if number == 5 else [f"record {number}"])
        except type(raised) as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == [raised]
    assert put == {f"record {number}" for number in range(THREADS) if number != 5}
