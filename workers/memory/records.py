"""The values that cross the memory layer's borders: what was said, what tools did, what became of a store.

A `Conversation` that could be made can be stored: its constructor refuses what no database takes (NUL
characters, half surrogates, absurd sizes), by the name of the field and without its contents. Neighbours:
`ids` below; everything else of `memory` above. Knows no database and no cache.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from workers.errors import RecordError
from workers.memory.ids import VALID, new_id, utc_now

USER_ID_CHARS_MAX: Final = 255
NAME_CHARS_MAX: Final = 255
"""A tool's name, and the id that an agent gives to a tool call."""
TEXT_CHARS_MAX: Final = 1_000_000
"""A message, an answer, a tool's error."""
TOOLS_MAX: Final = 1_000
"""Tools used, and tool calls, of one conversation."""


def _text(key: str, value: object, chars_max: int, chars_min: int = 0) -> None:
    """Refuse a text that some database refuses."""
    if not isinstance(value, str):
        raise RecordError(f"{key}: must be a text, got {type(value).__name__}")
    if not chars_min <= len(value) <= chars_max:
        raise RecordError(f"{key}: must have {chars_min} to {chars_max} characters, has {len(value)}")
    if "\0" in value:
        raise RecordError(f"{key}: must not contain NUL characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordError(f"{key}: must not contain half surrogate pairs") from None


def check_user(user_id: object) -> None:
    """Refuse what can be no user's id, in every verb alike. Raises RecordError."""
    _text("user_id", user_id, USER_ID_CHARS_MAX, 1)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool."""

    id: str
    """The agent's id of the call; unique within its conversation at best."""
    tool: str
    ok: bool
    duration_s: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be stored."""
        _text("tool_calls.id", self.id, NAME_CHARS_MAX)
        _text("tool_calls.tool", self.tool, NAME_CHARS_MAX, 1)
        if self.error is not None:
            _text("tool_calls.error", self.error, TEXT_CHARS_MAX)
        if self.duration_s is not None and not (math.isfinite(self.duration_s) and self.duration_s >= 0):
            raise RecordError("tool_calls.duration_s: must be a finite number >= 0")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One exchange between a user and an agent."""

    id: str
    """A time-ordered UUID as text: the order of ids is the order of making."""
    user_id: str
    user_message: str
    bot_response: str
    tools_used: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    created_at: datetime
    """In UTC, to the microsecond."""

    def __post_init__(self) -> None:
        """Refuse what cannot be stored."""
        if not VALID.fullmatch(self.id):
            raise RecordError("id: must be a UUID in lower case with hyphens")
        check_user(self.user_id)
        _text("user_message", self.user_message, TEXT_CHARS_MAX)
        _text("bot_response", self.bot_response, TEXT_CHARS_MAX)
        if len(self.tools_used) > TOOLS_MAX or len(self.tool_calls) > TOOLS_MAX:
            raise RecordError(f"tools_used, tool_calls: must be at most {TOOLS_MAX} each")
        for tool in self.tools_used:
            _text("tools_used", tool, NAME_CHARS_MAX, 1)
        if self.created_at.utcoffset() is None:
            raise RecordError("created_at: must have a time zone")

    @classmethod
    def now(
        cls,
        user_id: str,
        user_message: str,
        bot_response: str,
        tools_used: Iterable[str] = (),
        tool_calls: Iterable[ToolCall] = (),
    ) -> Conversation:
        """One that takes place now, with a new id. RecordError if it could be stored nowhere."""
        if isinstance(tools_used, str):
            raise RecordError("tools_used: must be a list of names, got one text")
        tools, calls = tuple(tools_used), tuple(tool_calls)
        return cls(new_id(), user_id, user_message, bot_response, tools, calls, utc_now())


class StoreOutcome(enum.StrEnum):
    """What became of a conversation that was to be stored."""

    STORED = "stored"
    """It is committed to the database."""
    SPOOLED = "spooled"
    """It is on this host's disk and goes to the database when that is back."""
    REJECTED = "rejected"
    """It is nowhere; the reason says why."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The outcome of a store, and the id of what was stored."""

    outcome: StoreOutcome
    id: str
    reason: str = ""


class Deletion(enum.StrEnum):
    """What became of the wish to erase a user."""

    DELETED = "deleted"
    """Nothing of the user is left."""
    ACCEPTED = "accepted"
    """The wish is on this host's disk; readers obey it at once, and it is completed as soon as possible."""
    REJECTED = "rejected"
    """Neither the database nor the disk took it: nothing is erased, ask again."""


class Source(enum.StrEnum):
    """Where something that was found came from."""

    DATABASE = "database"
    CACHE = "cache"
    SPOOL = "spool"


@dataclass(frozen=True, slots=True)
class Found:
    """One conversation that a search found."""

    conversation: Conversation
    score: float
    """The higher, the better; comparable within one search only."""
    source: Source = Source.DATABASE
    age_s: float | None = None
    """How old the answer is where it came from a cache, else None."""


@dataclass(frozen=True, slots=True)
class ToolStatistics:
    """What one tool did, over every conversation asked about."""

    tool: str
    used: int
    """Conversations that name it among the tools used."""
    calls: int
    failures: int
    duration_total_s: float
    """Over the calls whose duration is known."""
    duration_max_s: float | None
    timed: int
    """Calls whose duration is known."""

    @property
    def failure_rate(self) -> float:
        """Failures per call; 0.0 without calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def duration_mean_s(self) -> float | None:
        """The mean duration, None if none is known."""
        return self.duration_total_s / self.timed if self.timed else None


def user_mark(user_id: str) -> str:
    """What a tombstone remembers of a user: a SHA-256, since the name itself is to be forgotten."""
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def to_plain(conversation: Conversation) -> dict[str, object]:
    """The conversation in the types of JSON; the opposite of `from_plain`."""
    return {
        "id": conversation.id,
        "user_id": conversation.user_id,
        "user_message": conversation.user_message,
        "bot_response": conversation.bot_response,
        "tools_used": list(conversation.tools_used),
        "tool_calls": [
            {"id": one.id, "tool": one.tool, "ok": one.ok, "duration_s": one.duration_s, "error": one.error}
            for one in conversation.tool_calls
        ],
        "created_at": conversation.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
    }


def from_plain(plain: Mapping[str, object]) -> Conversation:
    """A conversation from the types of JSON; RecordError for anything that `to_plain` does not make."""
    try:
        return _conversation(plain)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"not a conversation: {type(error).__name__}") from None


def _conversation(plain: Mapping[str, object]) -> Conversation:
    made_at, tools, calls = plain["created_at"], plain["tools_used"], plain["tool_calls"]
    if not (isinstance(made_at, str) and isinstance(tools, list) and isinstance(calls, list)):
        raise RecordError("not a conversation: created_at, tools_used or tool_calls has another type")
    return Conversation(
        id=str(plain["id"]),
        user_id=str(plain["user_id"]),
        user_message=str(plain["user_message"]),
        bot_response=str(plain["bot_response"]),
        tools_used=tuple(tools),
        tool_calls=tuple(
            ToolCall(one["id"], one["tool"], bool(one["ok"]), one["duration_s"], one["error"])
            for one in calls
        ),
        created_at=datetime.fromisoformat(made_at).astimezone(UTC),
    )
