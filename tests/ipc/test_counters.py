"""Counters: rows whose cumulative word the process raises, and totals that a supervisor adds up."""

from __future__ import annotations

import os

from ipc import CircuitBreaker, OutcomeKind, process_counters
from ipc.client import Client
from ipc.counters import KINDS_RESERVED, Counters
from ipc.process import set_default
from ipc.vocabulary import COUNTERS_PER_PROCESS
from tests.ipc.calls import call
from tests.ipc.fake_supervisor import FakeSupervisor

COUNT = int(OutcomeKind.COUNT)


def rows(supervisor: FakeSupervisor) -> dict[tuple[str, str], int]:
    """The counters that the worker has declared, with their rows."""
    declared = supervisor.worker().declared()
    return {(one["counter"][0], one["counter"][1]): one["row"] for one in declared if "counter" in one}


def test_a_count_attaches_declares_and_raises_its_word(client: Client, supervisor: FakeSupervisor) -> None:
    """Also in a process without any breaker; a row per kind and operation, beside those of breakers."""
    counters = Counters()
    for operation in ("load", "load", "store"):
        counters.add("QUERY", operation)
    call(CircuitBreaker("database"))
    counters.add("QUERY", "load")
    found = rows(supervisor)
    assert found == {("QUERY", "load"): 0, ("QUERY", "store"): 1}
    assert [supervisor.worker().tally(row, COUNT) for row in found.values()] == [3, 1]


def test_totals_are_the_supervisors_of_this_namespace(client: Client, supervisor: FakeSupervisor) -> None:
    """Asked for at most once a second; None where nobody decides."""
    counters = Counters(client)
    assert counters.totals() is None
    counters.add("QUERY", "load")
    supervisor.counters = [
        {"namespace": "tests", "kind": "QUERY", "operation": "load", "count": 41},
        {"namespace": "other", "kind": "QUERY", "operation": "load", "count": 1000},
    ]
    assert counters.totals() == {("QUERY", "load"): 41}
    supervisor.counters = []
    assert counters.totals() == {("QUERY", "load"): 41}
    assert supervisor.errors_asked == 1
    supervisor.counters = [{"namespace": "tests"}]
    counters.after_fork()
    assert counters.totals() is None
    client.close()
    assert counters.totals() is None


def test_a_process_has_256_counters(client: Client, supervisor: FakeSupervisor) -> None:
    """Of them a few are kept for `other`: beyond the limit an operation is counted so."""
    counters, named = Counters(client), COUNTERS_PER_PROCESS - KINDS_RESERVED
    for number in range(named + 5):
        counters.add("QUERY", f"operation {number}")
    for number in range(KINDS_RESERVED + 5):
        counters.add(f"KIND {number}", "load")
    found = rows(supervisor)
    assert len(found) == COUNTERS_PER_PROCESS
    assert supervisor.worker().tally(found["QUERY", "other"], COUNT) == 5
    assert supervisor.worker().tally(found["KIND 0", "other"], COUNT) == 1


def test_a_forked_child_counts_for_itself(client: Client, supervisor: FakeSupervisor) -> None:
    """With the same rows, in a segment of its own, from nothing."""
    counters = Counters(client)
    counters.add("QUERY", "load")
    (parent,) = supervisor.workers
    child = os.fork()
    if child == 0:
        counters.add("QUERY", "load")
        counters.add("QUERY", "load")
        os._exit(0 if client.connect() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    counts = {nonce == parent: worker.tally(0, COUNT) for nonce, worker in supervisor.workers.items()}
    assert counts == {True: 1, False: 2}


def test_the_processs_counters_follow_its_client(client: Client, supervisor: FakeSupervisor) -> None:
    """There is one object, and another client means other rows."""
    counters = process_counters()
    counters.add("QUERY", "load")
    assert counters is process_counters()
    assert counters.client is client
    alone = Client("off")
    before = set_default(alone)
    try:
        counters.add("QUERY", "load")
        assert counters.client is alone
        assert counters.totals() is None
    finally:
        set_default(before)
    assert supervisor.worker().tally(0, COUNT) == 1
