"""Messages survive the journal: plain values, through JSON, back to an equal message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import messages
from supervisor.messages import (
    BreakerDeclared,
    ClassDeclared,
    Command,
    Configured,
    CounterDeclared,
    DaemonStarted,
    Forget,
    Judged,
    Message,
    Noted,
    OutcomeBatch,
    PermitAsked,
    PermitReturned,
    ProbeEnded,
    ProbeRule,
    ProbesConfigured,
    Reloaded,
    Taken,
    Tick,
    WorkerForgotten,
    WorkerJoined,
    WorkerLeft,
    WorkerQuarantined,
    from_plain,
    to_plain,
)

A = "a" * 32
TAKEN = Taken(
    A,
    300,
    90,
    ((17, 90), (18, 0)),
    64,
    1,
    2,
    ((0, 2, 0, 250), (0, 3, 1, 4)),
    ((0, ((40, 9),)),),
    ((0, 12, 7),),
)
EVERY_ONE: tuple[Message, ...] = (
    WorkerJoined(A, 42, 99, 500, "deploy", "web-1", "shop", "0.1.0"),
    WorkerLeft(A, segment_lost=True),
    WorkerForgotten(A),
    WorkerQuarantined(A, "its ring holds words that no worker writes"),
    BreakerDeclared(A, 3, "database", '{"failure_threshold":5}'),
    ClassDeclared(A, 4, 3, "OperationalError"),
    OutcomeBatch((TAKEN,), (Judged(A, 0, 2, 1, -1, 91.25, 250), Judged(A, 0, 3, 1, 63, 91.5, 1))),
    PermitAsked(A, 3, 12),
    PermitReturned(A, 3, 130),
    Command("shop/database", "force-open", 600.0, "migration", 0, "root"),
    Configured((("database", "{}", True), ("shop/cache", '{"failure_threshold":3}', False))),
    DaemonStarted(4, 1 << 63, ("the checkpoint was damaged",)),
    Tick(),
    CounterDeclared(A, 8, "DATABASE_QUERY", "load"),
    ProbesConfigured(
        (ProbeRule("database", 2, 3, False, 68.0, "5f0c"), ProbeRule("shop/cache", 1, 1, True, 4.0))
    ),
    ProbeEnded("database", "failed", "connection refused", 0.25, 91.5, "5f0c"),
    Reloaded(1000, "deploy", "breakers: added cache"),
    Noted("managed", "web ended with 3", (("code", "3"),), "app/database", "f" * 32),
    Forget("app/database", 0, "root"),
)


@pytest.mark.parametrize("message", EVERY_ONE, ids=lambda message: type(message).__name__)
def test_every_message_survives_json(message: Message) -> None:
    """What goes into the journal comes out equal."""
    assert from_plain(json.loads(json.dumps(to_plain(message)))) == message


def test_the_example_has_every_kind() -> None:
    """No kind of message is left out of the round trip above."""
    assert [type(message) for message in EVERY_ONE] == list(messages._KINDS)


def test_the_numbers_of_the_kinds_are_pinned() -> None:
    """A journal of an older daemon means the same to a newer one."""
    assert [to_plain(message)[0] for message in EVERY_ONE] == list(range(19))


def test_a_message_is_written_as_its_fields_in_order() -> None:
    """The bytes of the journal are pinned by one example with all nesting."""
    assert json.dumps(to_plain(EVERY_ONE[6])) == (
        f'[6, [["{A}", 300, 90, [[17, 90], [18, 0]], 64, 1, 2, [[0, 2, 0, 250], [0, 3, 1, 4]], '
        f"[[0, [[40, 9]]]], [[0, 12, 7]]]], "
        f'[["{A}", 0, 2, 1, -1, 91.25, 250], ["{A}", 0, 3, 1, 63, 91.5, 1]]]'
    )


@pytest.mark.parametrize("plain", [[], [99], [12, 1], [1, "a"], "x", None, [0]])
def test_what_was_never_written_is_refused(plain: object) -> None:
    """Reading back raises instead of making a message of anything."""
    with pytest.raises((IndexError, TypeError, ValueError, KeyError)):
        from_plain(plain)  # type: ignore[arg-type]  # the point of the test


def test_a_start_that_an_older_supervisor_wrote_is_read() -> None:
    """Its last field was not there yet; one of before its other fields was never written."""
    assert from_plain([11, 4, 7, []]) == DaemonStarted(4, 7, (), -1)
    with pytest.raises(ValueError, match="zip"):
        from_plain([11, 4, 7])
    with pytest.raises(ValueError, match="zip"):
        from_plain([11, 4, 7, [], 0, 0])


@given(
    st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 11), st.integers(0, 1), st.integers(1, 1 << 40))),
    st.floats(0, 1e9),
)
def test_any_counts_and_times_survive(counts: list[tuple[int, int, int, int]], end: float) -> None:
    """Numbers of any size keep their value and their type."""
    part = Taken(A, 1 << 50, 0, (), 0, 0, 0, tuple(counts), (), ())
    message = OutcomeBatch((part,), (Judged(A, 0, 2, 1, -1, end, 1),))
    assert from_plain(json.loads(json.dumps(to_plain(message)))) == message
