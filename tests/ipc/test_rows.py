"""What a process declares of its breakers: nothing that a user can name costs it its attachment."""

from __future__ import annotations

import pytest

from ipc import CircuitBreaker
from ipc import layout as at
from ipc.client import Client
from ipc.counters import Counters
from ipc.rows import printable
from ipc.vocabulary import OutcomeKind
from supervisor.source import read_declaration
from tests.ipc.calls import call
from tests.ipc.fake_supervisor import FakeSupervisor

ODD = (
    "a\tb",
    "line\nline",
    "\x1b]0;title\x07",
    "\u2067odd\u2069",
    "\udcff",
    "\x00",
    "\u00a0",
    "",
    "\U0001f4a5" * 9000,
)


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_a_class_or_counter_is_one_that_the_supervisor_reads(
    client: Client, supervisor: FakeSupervisor, name: str
) -> None:
    """Every record that the process writes is one that an honest worker writes."""
    breaker = CircuitBreaker("database")
    possible = not {"\x00", "\udcff"} & set(name)  # the interpreter has no classes of these names
    call(breaker, raises=type(name if possible else "Odd", (Exception,), {})())
    Counters(client).add(name, name)
    records = supervisor.worker().segment.declarations(0)[0]
    assert len(records) >= 3
    assert all(read_declaration("aa", record) for record in records)


def test_what_can_be_printed_stays_as_it_is() -> None:
    """Letters of every script, and blanks."""
    assert printable("Fehler in größe 漢字") == "Fehler in größe 漢字"
    assert printable("") == "other"


def test_classes_beyond_the_rows_of_a_process_are_counted_together(
    client: Client, supervisor: FakeSupervisor
) -> None:
    """In a word of the breaker's own row, which the supervisor counts as `other`."""
    breaker = CircuitBreaker("database", failure_threshold=99)
    call(breaker)
    client.link.rows = at.ROWS
    for number in range(3):
        call(breaker, raises=type(f"Odd{number}", (Exception,), {})())
    assert supervisor.worker().tally(0, OutcomeKind.COUNT) == 3
    assert list(breaker._shared.classes) == ["other"]
