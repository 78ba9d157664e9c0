"""What every store does, over both databases, with threads and with asyncio."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workers.memory.shelves import Shelf
from workers.memory.records import Conversation, Found, ToolCall, ToolStatistics

LATER = timedelta(seconds=5)


def said(user: str, message: str, answer: str = "yes", *tools: str) -> Conversation:
    """A conversation that takes place now."""
    return Conversation.now(user, message, answer, tools)


def test_what_is_stored_is_read_back(shelf: Shelf) -> None:
    """Every field comes back as it was, to the microsecond."""
    calls = [ToolCall("1", "find", True, 0.25), ToolCall("2", "find", False, None, "näh ' \"")]
    one = Conversation.now("ann", "Grüße, 'ann' \\ %_", "漢字 🙂", ["find", "read"], calls)
    assert shelf.insert(one) == 1
    assert shelf.history("ann") == [one]
    assert shelf.export("ann") == [one]
    shelf.ping()


def test_an_id_is_stored_once(shelf: Shelf) -> None:
    """The same id again, in one batch or later, adds nothing: not a row, not a tool, not a word."""
    one = Conversation.now("ann", "ask once", "yes", ["find"], [ToolCall("1", "find", True, 1.0)])
    assert shelf.insert(one, one) == 1
    assert shelf.insert(one) == 0
    assert shelf.insert(one, two := said("ann", "ask twice")) == 1
    assert shelf.history("ann") == [two, one]
    assert shelf.tool_statistics() == [ToolStatistics("find", 1, 1, 0, 1.0, 1.0, 1)]
    assert sorted(shelf.texts("ann", "ask")) == ["ask once", "ask twice"]
    assert shelf.insert() == 0


def test_history_goes_back_in_pages(shelf: Shelf) -> None:
    """Latest first, by the order of the ids, and `before` goes on from there."""
    every = [said("ann", f"number {number}") for number in range(7)]
    assert shelf.insert(*reversed(every)) == 7
    latest = every[::-1]
    assert shelf.history("ann", 3) == latest[:3]
    assert shelf.history("ann", 3, before=latest[2].id) == latest[3:6]
    assert shelf.history("ann", 3, before=latest[6].id) == []
    assert shelf.export("ann") == every
    with pytest.raises(ValueError, match="not an id"):
        shelf.history("ann", 3, before="1; DROP TABLE")


def test_an_export_has_many_pages(shelf: Shelf) -> None:
    """More than a page is exported whole and in order."""
    every = [said("ann", f"number {number}") for number in range(450)]
    assert shelf.insert(*every) == 450
    assert shelf.export("ann") == every


def test_users_never_mix(shelf: Shelf) -> None:
    """Each question answers for its user alone, also where one name is part of another."""
    mine, theirs = said("ann", "shared word", "yes", "find"), said("anna", "shared word", "yes", "find")
    shelf.insert(mine, theirs)
    assert shelf.history("ann") == [mine]
    assert [one.conversation for one in shelf.search("anna", "word")] == [theirs]
    assert shelf.search("an_", "word") == shelf.search("%", "word") == []
    assert shelf.tool_statistics("ann") == [ToolStatistics("find", 1, 0, 0, 0.0, None, 0)]
    shelf.erase("ann", datetime.now(UTC) + LATER)
    assert shelf.history("ann") == []
    assert shelf.history("anna") == [theirs]
    assert shelf.texts("anna", "word") == ["shared word"]


def test_tool_statistics(shelf: Shelf) -> None:
    """Uses, calls, failures and durations by tool, the busiest first."""
    calls = [ToolCall("1", "find", True, 1.0), ToolCall("2", "find", False, 3.0), ToolCall("3", "find", True)]
    shelf.insert(Conversation.now("ann", "a", "b", ["find", "read"], calls), said("bob", "a", "b", "read"))
    assert shelf.tool_statistics() == [
        ToolStatistics("find", 1, 3, 1, 4.0, 3.0, 2),
        ToolStatistics("read", 2, 0, 0, 0.0, None, 0),
    ]
    found = shelf.tool_statistics("bob")
    assert found == [ToolStatistics("read", 1, 0, 0, 0.0, None, 0)]
    assert found[0].failure_rate == 0.0
    assert found[0].duration_mean_s is None


def test_search_finds_words_of_both_sides(shelf: Shelf) -> None:
    """A word of the message or of the answer, in any case and form, alone or among others; any will do."""
    shelf.insert(
        said("ann", "Handle ERRORS gently", "indeed"), said("ann", "nothing", "about error-handling")
    )
    assert sorted(shelf.texts("ann", "errors")) == ["Handle ERRORS gently", "nothing"]
    assert shelf.texts("ann", "who is (gently) gentle?") == ["Handle ERRORS gently"]
    assert "nothing" in shelf.texts("ann", "error-handling")
    assert shelf.texts("ann", "absentword") == []
    assert shelf.texts("ann", "errors", limit=0) == []


def test_a_word_of_three_letters_is_a_beginning(shelf: Shelf) -> None:
    """The guide's question finds its answer; a shorter word is a word."""
    shelf.insert(said("ann", "How do I handle errors?", "I don't know"))
    assert shelf.texts("ann", "error handling") == ["How do I handle errors?"]
    assert shelf.texts("ann", "do") == ["How do I handle errors?"]


def test_search_ranks_matches_and_age(shelf: Shelf) -> None:
    """Two words beat one; of two equal matches the later is first."""
    first, second = said("ann", "red apple"), said("ann", "red apple")
    both = said("ann", "green pear and red apple")
    shelf.insert(first, second, both, *[said("ann", f"something else {number}") for number in range(5)])
    found: list[Found] = shelf.search("ann", "pear red")
    assert found[0].conversation == both
    assert [one.conversation for one in found[1:]] == [second, first]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert {(one.source, one.age_s) for one in found} == {("database", None)}


ODD = (
    '"',
    "'",
    "a AND",
    "NEAR(",
    "*",
    "a*",
    "-a",
    "user_message:a",
    "a:b",
    "(",
    "^a",
    "{a b}: c",
    "\0",
    "a\0b",
    "\ud800",
    "%",
    "_",
    "\\",
    "a & | !",
    "<->",
    "'a':*",
    "🙂",
    "x" * 5000,
    " ",
    "",
)


@pytest.mark.parametrize("question", ODD, ids=range(len(ODD)))
def test_any_text_is_a_question(shelf: Shelf, question: str) -> None:
    """What is a sign of some query language is text here."""
    shelf.insert(said("ann", "a b c"))
    assert len(shelf.search("ann", question)) in (0, 1)
    assert len(shelf.search("ann", f"{question} b")) in (0, 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(max_size=60))
def test_any_text_at_all_is_a_question(shelf: Shelf, question: str) -> None:
    """No text makes a search fail."""
    assert shelf.search("ann", question) == []


def test_statistics_leave_out_conversations_by_id(shelf: Shelf) -> None:
    """Those that are there do not count, those that are not change nothing; of one user or of all; many."""
    calls = [ToolCall("1", "find", True, 2.0)]
    one, other = (Conversation.now("ann", text, "x", ["find"], calls) for text in ("one", "other"))
    away = [said("ann", "never stored").id for _ in range(10_000)]
    shelf.insert(one, other)
    for user in (None, "ann"):
        assert shelf.tool_statistics(user, *away) == shelf.tool_statistics(user)
        assert shelf.tool_statistics(user, one.id, *away) == [ToolStatistics("find", 1, 1, 0, 2.0, 2.0, 1)]
        assert shelf.tool_statistics(user, one.id, other.id) == []


def test_erased_means_never_again(shelf: Shelf) -> None:
    """What was said until the erasure is gone and stays away; what is said after it is welcome."""
    old = [
        Conversation.now("ann", f"secret {number}", "x", ["find"], [ToolCall("1", "t", True)])
        for number in range(3)
    ]
    shelf.insert(*old)
    now = datetime.now(UTC)
    shelf.erase("ann", now)
    shelf.erase("ann", now - LATER)
    assert shelf.history("ann") == []
    assert shelf.texts("ann", "secret") == []
    assert shelf.tool_statistics() == []
    assert shelf.insert(*old) == 0
    new = said("ann", "fresh start")
    assert shelf.insert(old[0], new) == 1
    assert shelf.history("ann") == [new]
    assert shelf.texts("ann", "secret fresh") == ["fresh start"]


def test_more_than_a_batch_is_erased(shelf: Shelf) -> None:
    """An erasure goes on until nothing is left."""
    shelf.insert(*[said("ann", f"word {number}") for number in range(1200)])
    shelf.erase("ann", datetime.now(UTC) + LATER)
    assert shelf.history("ann") == []
    assert shelf.texts("ann", "word") == []


def test_a_large_text(shelf: Shelf) -> None:
    """The longest text that a record may have is stored and searched, whatever its signs are."""
    many = " ".join(chr(0x10000 + number % 0x8000) for number in range(499_000))
    one = said("ann", "needle " + many, many)
    assert shelf.insert(one) == 1
    assert [found.conversation.id for found in shelf.search("ann", "needle")] == [one.id]


@pytest.mark.parametrize("rows", [3, 800])
def test_nothing_is_left_in_the_bytes(shelf: Shelf, rows: int) -> None:
    """After an erasure no word of the user is in any file of SQLite, and the others' still are."""
    if not shelf.config.database_url.startswith("sqlite"):
        return
    path = shelf.config.database_url.partition("///")[2]
    shelf.insert(*[said(f"other{number}", f"ordinary talk {number}", "fine " * 20) for number in range(rows)])
    for number in range(rows):
        filler = " ".join(f"qzx{number}w{word}" for word in range(10))
        shelf.insert(said("zyxuser", f"canarymessage {filler}", f"canaryanswer {filler}", "canarytool"))
    shelf.insert(*[said(f"other{number}", f"more talk {number}", "fine " * 20) for number in range(rows)])
    shelf.erase("zyxuser", datetime.now(UTC) + LATER)
    for suffix in ("", "-wal"):
        with open(path + suffix, "rb") as file:
            content = file.read()
        for word in (b"canary", b"qzx", b"zyxuser"):
            assert word not in content, (suffix, word)
    with sqlite3.connect(path) as link:
        link.execute("PRAGMA integrity_check").fetchall()
        assert link.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    link.close()
    assert shelf.texts("other1", "talk")
