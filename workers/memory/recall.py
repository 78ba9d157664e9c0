"""How what is read comes together: database or cache, and what is still in the spool, each once.

Pure: times and values are given. Neighbours: `manager` (who fetches), `codec` (a page),
`spooled` (a user's part of the spool). Knows no database, no cache and no breaker.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from workers.memory.codec import Page
from workers.memory.epochs import Stamp
from workers.memory.ranking import TEXT_CHARS_MAX, Text, rank
from workers.memory.records import Conversation, Found, Source, ToolStatistics
from workers.memory.spooled import Spooled

LATEST: Final = "latest"
"""The field of the page that a user's last search gave, whatever was searched for."""
SKEW_S: Final = 2.0
"""By how much the clocks of two hosts may differ."""


class Freshness(enum.Enum):
    """What a cached page is good for."""

    FRESH = "fresh"
    STALE = "stale"
    """To be served only while the database fails, and its age told."""
    DEAD = "dead"
    """Not to be served."""


def freshness(page: Page, stamp: Stamp, now: float, soft_age_s: float, hard_age_s: float) -> Freshness:
    """What a page is good for, given the words of the user's epoch now."""
    age_s = now - page.loaded_at
    here = page.stamp.host == stamp.host
    if (here and page.stamp.erased != stamp.erased) or age_s > hard_age_s:
        return Freshness.DEAD
    older = page.stamp.stored != stamp.stored if here else page.loaded_at <= stamp.stored_at + SKEW_S
    if older or not 0.0 <= age_s <= soft_age_s:
        return Freshness.STALE  # a page from the future: the clock was set back
    return Freshness.FRESH


def search_field(query: str, limit: int) -> str:
    """The field under which a search is cached."""
    return (
        "search:"
        + hashlib.blake2b(f"{limit}\0{query}".encode("utf-8", "replace"), digest_size=12).hexdigest()
    )


def history_field(limit: int, before: str | None) -> str:
    """The field under which a part of a history is cached."""
    return f"history:{limit}:{before or ''}"


def page_of(found: Sequence[Found], loaded_at: float, stamp: Stamp) -> Page:
    """What was loaded, for the cache."""
    return Page(tuple((one.conversation, one.score) for one in found), loaded_at, stamp)


def cached(page: Page, now: float) -> list[Found]:
    """What a page holds, its age told."""
    age_s = max(0.0, now - page.loaded_at)
    return [Found(one, score, Source.CACHE, age_s) for one, score in page.found]


def plain(conversations: Iterable[Conversation], source: Source = Source.DATABASE) -> list[Found]:
    """Conversations of which none is better than another."""
    return [Found(one, 0.0, source) for one in conversations]


# --- merging ------------------------------------------------------------------------------------------


def merge_history(found: Sequence[Found], spooled: Spooled, limit: int, before: str | None) -> list[Found]:
    """The newest `limit` conversations before an id, newest first."""
    every = {one.conversation.id: one for one in found if spooled.shows(one.conversation)}
    for one in spooled.conversations:
        if before is None or one.id < before:
            every.setdefault(one.id, Found(one, 0.0, Source.SPOOL))
    return [every[key] for key in sorted(every, reverse=True)[:limit]]


def merge_search(found: Sequence[Found], spooled: Spooled, query: str, limit: int) -> list[Found]:
    """The best `limit` of what was found and of what matches in the spool, ranked together, best first."""
    every = {one.conversation.id: one for one in found if spooled.shows(one.conversation)}
    for one in spooled.conversations:
        every.setdefault(one.id, Found(one, 0.0, Source.SPOOL))
    best = ranked((one.conversation for one in every.values()), query)
    merged = [replace(every[one.conversation.id], score=one.score) for one in best]
    known = {one.conversation.id for one in best}
    merged += [one for key, one in every.items() if key not in known and one.source is not Source.SPOOL]
    return merged[:limit]


def ranked(conversations: Iterable[Conversation], query: str, source: Source = Source.SPOOL) -> list[Found]:
    """Those that match, best first, as a database ranks them."""
    every = {one.id: one for one in conversations}
    texts = (
        Text(key, f"{one.user_message[:TEXT_CHARS_MAX]}\n{one.bot_response[:TEXT_CHARS_MAX]}")
        for key, one in every.items()
    )
    return [Found(every[key], score, source) for key, score in rank(texts, query)]


def search_page(page: Page, query: str, now: float) -> list[Found]:
    """What matches in a page that was loaded for another query: better than nothing in an outage."""
    age_s = max(0.0, now - page.loaded_at)
    found = ranked((one for one, _ in page.found), query, Source.CACHE)
    return [replace(one, age_s=age_s) for one in found]


# --- tools --------------------------------------------------------------------------------------------


def add_tools(statistics: Iterable[ToolStatistics], waiting: Iterable[Conversation]) -> list[ToolStatistics]:
    """What tools did, with what is still in the spool; by name."""
    every = {one.tool: one for one in statistics}
    for conversation in waiting:
        for tool in set(conversation.tools_used):
            one = every.get(tool) or _unused(tool)
            every[tool] = replace(one, used=one.used + 1)
        for call in conversation.tool_calls:
            one = every.get(call.tool) or _unused(call.tool)
            took, longest = call.duration_s, one.duration_max_s
            every[call.tool] = replace(
                one,
                calls=one.calls + 1,
                failures=one.failures + (not call.ok),
                duration_total_s=one.duration_total_s + (took or 0.0),
                duration_max_s=longest if took is None else max(took, longest or 0.0),
                timed=one.timed + (took is not None),
            )
    return [every[tool] for tool in sorted(every)]


def tools_of(conversations: Iterable[Conversation], spooled: Spooled) -> list[ToolStatistics]:
    """What tools did in a user's conversations whose erasure is accepted and not yet complete."""
    shown = {one.id: one for one in (*conversations, *spooled.conversations) if spooled.shows(one)}
    return add_tools((), shown.values())


def _unused(tool: str) -> ToolStatistics:
    return ToolStatistics(tool, 0, 0, 0, 0.0, None, 0)
