"""What the spool holds, as conversations and erasures: records <-> values, and a user's part at a glance.

Neighbours: `spool` (the records), `codec` (the bytes), `recall` (merges this into what is read), `replay`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from workers.errors import CacheValueError
from workers.memory.codec import decode_one, encode_one
from workers.memory.ids import new_id
from workers.memory.records import Conversation
from workers.memory.spool import Spool
from workers.memory.spool_file import Kind, SpoolRecord

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
WAITING_MAX: Final = 10_000
MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Spooled:
    """What the spool knows of one user."""

    conversations: tuple[Conversation, ...] = ()
    """Said, kept, and not yet in the database, oldest first; what is erased is not among them."""
    erased_at: datetime | None = None
    """Nothing that is not younger may be shown: its erasure is accepted, and not yet complete."""

    def shows(self, conversation: Conversation) -> bool:
        """Whether a reader may see it."""
        return self.erased_at is None or conversation.created_at > self.erased_at


NOTHING: Final = Spooled()


def micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - EPOCH) // MICROSECOND


def moment(at: int) -> datetime:
    """The time of so many microseconds since 1970."""
    return EPOCH + at * MICROSECOND


def record_of(conversation: Conversation) -> SpoolRecord:
    """A conversation that is to be stored."""
    at = micros(conversation.created_at)
    return SpoolRecord(conversation.id, conversation.user_id, Kind.CONVERSATION, at, encode_one(conversation))


def erasure_of(user_id: str, at: datetime) -> SpoolRecord:
    """A user who is to be erased."""
    return SpoolRecord(new_id(), user_id, Kind.ERASURE, micros(at))


def conversation_of(record: SpoolRecord) -> Conversation:
    """The conversation of a record. Raises CacheValueError: the record is damaged."""
    if not record.intact:
        raise CacheValueError("damaged: the check sum differs")
    found = decode_one(record.body)
    if (found.id, found.user_id) != (record.id, record.user_id):
        raise CacheValueError("damaged: another conversation")
    return found


def look(spool: Spool, user_id: str) -> Spooled:
    """What the spool knows of one user, in every file of every process."""
    if spool.is_empty:
        return NOTHING
    records = spool.views.of_user(user_id)
    if not records:
        return NOTHING
    erased = max((one.at for one in records if one.kind is Kind.ERASURE and one.intact), default=None)
    said = []
    for one in records:
        if one.kind is Kind.CONVERSATION and (erased is None or one.at > erased):
            try:
                said.append(conversation_of(one))
            except CacheValueError:
                continue  # replay sets it aside; its words are kept, and cannot be shown
    return Spooled(tuple(said), None if erased is None else moment(erased))


def waiting(spool: Spool) -> Spooled:
    """What is not in the database yet, of all users (of at most WAITING_MAX records)."""
    if spool.is_empty:
        return NOTHING
    records = spool.next_batch(WAITING_MAX)
    erased: dict[str, int] = {}
    for one in records:
        if one.kind is Kind.ERASURE:
            erased[one.user_id] = max(one.at, erased.get(one.user_id, one.at))
    said: dict[str, Conversation] = {}
    for one in records:
        if one.kind is Kind.CONVERSATION and one.at > erased.get(one.user_id, -1):
            with contextlib.suppress(CacheValueError):
                said[one.id] = conversation_of(one)
    return Spooled(tuple(said.values()))
