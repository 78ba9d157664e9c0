"""How answers come together: what is fresh, what is shown, in which order, each once."""

from __future__ import annotations

import pytest

from workers.memory import recall
from workers.memory.codec import Page, pages
from workers.memory.epochs import RANDOM_BITS, Stamp
from workers.memory.recall import Freshness
from workers.memory.records import Conversation, Found, Source, ToolCall, ToolStatistics
from workers.memory.spooled import Spooled

STAMP = Stamp(1, 10, 20)


def said(text: str) -> Conversation:
    """A conversation that takes place now."""
    return Conversation.now("ann", text, "x")


@pytest.mark.parametrize(
    ("stamp", "age_s", "what"),
    [
        (STAMP, 0.0, Freshness.FRESH),
        (STAMP, 60.0, Freshness.FRESH),
        (STAMP, 61.0, Freshness.STALE),
        (STAMP, 3601.0, Freshness.DEAD),
        (STAMP, -5.0, Freshness.STALE),
        (Stamp(1, 11, 20), 0.0, Freshness.STALE),
        (Stamp(1, 10, 21), 0.0, Freshness.DEAD),
        (Stamp(2, 11, 21), 0.0, Freshness.FRESH),
        (Stamp(2, 997_000 << RANDOM_BITS, 21), 0.0, Freshness.FRESH),
        (Stamp(2, 999_000 << RANDOM_BITS, 21), 0.0, Freshness.STALE),
    ],
)
def test_freshness(stamp: Stamp, age_s: float, what: Freshness) -> None:
    """Past the soft age or stored since: stale; past the hard age or erased since: dead; another host's
    words say nothing, but for what this one has stored about then or since.
    """
    assert recall.freshness(Page((), 1000.0, STAMP), stamp, 1000.0 + age_s, 60.0, 3600.0) is what


def test_a_history_has_each_once_and_the_newest_first() -> None:
    """What is in both is the database's; `before` holds for the spool, too."""
    one, two, three = said("1"), said("2"), said("3")
    spooled = Spooled((two, three))
    merged = recall.merge_history([Found(two, 0.0), Found(one, 0.0)], spooled, 10, None)
    assert [(found.conversation, found.source) for found in merged] == [
        (three, Source.SPOOL),
        (two, Source.DATABASE),
        (one, Source.DATABASE),
    ]
    assert [found.conversation for found in recall.merge_history([], spooled, 10, three.id)] == [two]
    assert [found.conversation for found in recall.merge_history([], spooled, 1, None)] == [three]


def test_what_is_erased_is_not_merged() -> None:
    """Neither from the database nor from a cache."""
    old, new = said("old"), said("new")
    spooled = Spooled((new,), old.created_at)
    assert [one.conversation for one in recall.merge_history([Found(old, 0.0)], spooled, 10, None)] == [new]
    assert [one.conversation for one in recall.merge_search([Found(old, 1.0)], spooled, "new old", 10)] == [
        new
    ]


def test_a_search_ranks_the_spool_by_words_and_recency() -> None:
    """More words of the query first; no match, no result; a query without words matches nothing."""
    both, first, other = said("red fox"), said("red hen"), said("blue")
    assert [one.conversation for one in recall.ranked([both, first, other], "red fox")] == [both, first]
    assert recall.ranked([both, other], "?!") == []


def test_a_page_of_another_search_is_better_than_nothing() -> None:
    """Only what matches, and its age is told."""
    page = Page(pages([said("red fox"), said("blue")]), 1000.0)
    (found,) = recall.search_page(page, "fox", 1005.0)
    assert (found.conversation.user_message, found.source, found.age_s) == ("red fox", Source.CACHE, 5.0)


def test_tools_are_added_up() -> None:
    """Used once per conversation however often named; durations only where they are known."""
    calls = [ToolCall("1", "a", True, 2.0), ToolCall("2", "a", False), ToolCall("3", "b", True, 0.5)]
    waiting = [Conversation.now("ann", "x", "y", ["a", "a"], calls)]
    assert recall.add_tools([ToolStatistics("a", 1, 1, 0, 1.0, 1.0, 1)], waiting) == [
        ToolStatistics("a", 2, 3, 1, 3.0, 2.0, 2),
        ToolStatistics("b", 0, 1, 0, 0.5, 0.5, 1),
    ]
