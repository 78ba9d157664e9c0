"""Records refuse what no database takes, and survive JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import RecordError
from workers.memory.records import (
    TEXT_CHARS_MAX,
    TOOLS_MAX,
    Conversation,
    ToolCall,
    from_plain,
    to_plain,
    user_mark,
)

ONE = Conversation.now("ann", "hello", "hi", ["find"], [ToolCall("1", "find", False, 0.5, "no")])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(message=TEXTS, answer=TEXTS)
def test_through_json_and_back(message: str, answer: str) -> None:
    """What `to_plain` makes is JSON, and `from_plain` makes the same record of it."""
    one = replace(ONE, user_message=message, bot_response=answer)
    assert from_plain(json.loads(json.dumps(to_plain(one)))) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "1"),
        ("user_id", ""),
        ("user_id", "x" * 256),
        ("user_message", "secret\0"),
        ("bot_response", "secret\ud800"),
        ("bot_response", None),
        ("user_message", "x" * (TEXT_CHARS_MAX + 1)),
        ("tools_used", ("",)),
        ("tools_used", ("t",) * (TOOLS_MAX + 1)),
        ("created_at", datetime(2026, 1, 1)),  # noqa: DTZ001 (the case that is refused)
    ],
)
def test_what_no_database_takes_is_refused(field: str, value: object) -> None:
    """The error names the field and not its contents."""
    with pytest.raises(RecordError, match=field) as caught:
        replace(ONE, **cast("Any", {field: value}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"tool": ""}, {"duration_s": float("nan")}, {"duration_s": -1}, {"error": "\0"}]
)
def test_a_tool_call_is_checked(change: dict[str, object]) -> None:
    """So are tool calls."""
    with pytest.raises(RecordError, match="tool_calls"):
        replace(ONE.tool_calls[0], **cast("Any", change))


@pytest.mark.parametrize(
    "plain", [{}, {"id": 1}, {**to_plain(ONE), "created_at": "x"}, {**to_plain(ONE), "tool_calls": [1]}]
)
def test_what_is_no_conversation_is_refused(plain: dict[str, object]) -> None:
    """Damaged JSON is a RecordError, whatever is damaged."""
    with pytest.raises(RecordError):
        from_plain(plain)


def test_one_text_is_no_list_of_tools() -> None:
    """The commonest slip is named."""
    with pytest.raises(RecordError, match="got one text"):
        Conversation.now("ann", "a", "b", "find")


def test_made_now_in_utc() -> None:
    """A conversation that takes place now has the time of day in UTC and an id of its own."""
    assert ONE.created_at.tzinfo is UTC
    assert Conversation.now("ann", "a", "b").id > ONE.id


def test_a_tombstone_does_not_name_the_user() -> None:
    """It holds a hash, of any text."""
    assert len(user_mark("ann")) == 64
    assert user_mark("ann") != user_mark("bob") != user_mark("\ud800")
