"""Conversations as bytes, for the cache and for the spool: MessagePack with a version in front, never pickle.

    b"BM" | version (1 byte) | MessagePack of `_Page`

What has another version, or is damaged, or is not what it should be, is CacheValueError: for the cache a
miss, for the spool a record to set aside. Neighbours: `records` (the values), `cache`, `spooled`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from workers.errors import CacheValueError
from workers.memory.epochs import Stamp
from workers.memory.records import Conversation, ToolCall

VERSION: Final = 1
MAGIC: Final = b"BM" + bytes([VERSION])
NO_STAMP: Final = Stamp(0, 0, 0)


class _Call(msgspec.Struct, array_like=True, frozen=True):
    id: str
    tool: str
    ok: bool
    duration_s: float | None
    error: str | None


class _Said(msgspec.Struct, array_like=True, frozen=True):
    id: str
    user_id: str
    user_message: str
    bot_response: str
    tools_used: tuple[str, ...]
    tool_calls: tuple[_Call, ...]
    created_at: datetime
    score: float


class _Page(msgspec.Struct, array_like=True, frozen=True):
    loaded_at: float
    host: int
    stored: int
    erased: int
    said: tuple[_Said, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Conversations as they were loaded together: what a cache holds under one key."""

    found: tuple[tuple[Conversation, float], ...]
    """Each with its score."""
    loaded_at: float = 0.0
    """Wall clock, s since 1970, before the loading began."""
    stamp: Stamp = NO_STAMP
    """The words of the user's epoch before the loading began."""


def encode(page: Page) -> bytes:
    """A page as bytes."""
    said = tuple(
        _Said(
            one.id,
            one.user_id,
            one.user_message,
            one.bot_response,
            one.tools_used,
            tuple(_Call(call.id, call.tool, call.ok, call.duration_s, call.error) for call in one.tool_calls),
            one.created_at,
            score,
        )
        for one, score in page.found
    )
    stamp = page.stamp
    return MAGIC + _encoder.encode(_Page(page.loaded_at, stamp.host, stamp.stored, stamp.erased, said))


def decode(data: bytes) -> Page:
    """A page from its bytes. Raises CacheValueError."""
    if data[: len(MAGIC)] != MAGIC:
        raise CacheValueError(f"not a value of version {VERSION}")
    try:
        page = _decoder.decode(memoryview(data)[len(MAGIC) :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CacheValueError(f"damaged: {type(error).__name__}") from None
    stamp = Stamp(page.host, page.stored, page.erased)
    return Page(tuple([(_conversation(one), one.score) for one in page.said]), page.loaded_at, stamp)


def encode_one(conversation: Conversation) -> bytes:
    """One conversation as bytes."""
    return encode(Page(((conversation, 0.0),)))


def decode_one(data: bytes) -> Conversation:
    """One conversation from its bytes. Raises CacheValueError."""
    found = decode(data).found
    if len(found) != 1:
        raise CacheValueError("not one conversation")
    return found[0][0]


def pages(found: Iterable[Conversation]) -> tuple[tuple[Conversation, float], ...]:
    """Conversations of which none is better than another."""
    return tuple((one, 0.0) for one in found)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Page)
_new: Final = Conversation.__new__
_set: Final = object.__setattr__


def _conversation(said: _Said) -> Conversation:
    """A conversation from what was one: types are checked already, and it was stored, so it can be."""
    one = _new(Conversation)
    _set(one, "id", said.id)
    _set(one, "user_id", said.user_id)
    _set(one, "user_message", said.user_message)
    _set(one, "bot_response", said.bot_response)
    _set(one, "tools_used", said.tools_used)
    calls = said.tool_calls
    _set(one, "tool_calls", tuple(_call(call) for call in calls) if calls else ())
    _set(one, "created_at", said.created_at)
    return one


def _call(call: _Call) -> ToolCall:
    return ToolCall(call.id, call.tool, call.ok, call.duration_s, call.error)
