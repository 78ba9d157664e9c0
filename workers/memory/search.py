"""Finds conversations by their words: `ranking` decides, and the database delivers what it decides upon.

A user's latest conversations are looked at, so that misspelt words, other endings and scripts without
spaces are found. Older ones, and the ends of long texts, are found by the index: FTS5 on SQLite, tsvector on
PostgreSQL, LIKE where neither is there. Any text is a question: it is taken apart at its white space, each
part is quoted for the index at hand, and matches the word itself or, from three letters on, one that begins
so. No other user's rows are read, but by FTS5 for a user with more than OWN_MAX. All of it works on a
connection in a transaction. Neighbours: `models`, `queries` (fetches what is found here), the stores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Float,
    Select,
    String,
    Uuid,
    bindparam,
    case,
    column,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from workers.errors import ErasureIncomplete
from workers.memory.models import ConversationRow
from workers.memory.ranking import STOP_WORDS, TEXT_CHARS_MAX, Text, asked, folded, has_no_spaces, rank

TERMS_MAX: Final = 32
"""How many parts of a question are asked for; the rest is ignored."""
TERM_CHARS_MAX: Final = 200
PREFIX_CHARS_MIN: Final = 3
"""From how many letters on a part is also the beginning of a word: "error" finds "errors"."""
OWN_MAX: Final = 1_000
"""How many of a user's latest conversations are looked at without an index."""
CANDIDATES_MAX: Final = 200
"""How many of the best matches of the index are looked at besides."""
UNSEEN: Final = 0.1
"""What a match of the index is worth, against the last of the others, where the word is far down a text."""

INDEX: Final = "memory_search"

_table: Final = ConversationRow.__table__
_columns: Final = (column("id", Uuid(as_uuid=False)), column("rank", Float))

_FTS5: Final = text(
    f"SELECT c.id AS id, -bm25({INDEX}) AS rank FROM {INDEX} "  # noqa: S608 (a constant)
    f"JOIN memory_conversations AS c ON c.number = {INDEX}.rowid "
    f"WHERE {INDEX} MATCH :question AND c.user_id = :user_id ORDER BY bm25({INDEX}), c.id DESC LIMIT :most"
).columns(*_columns)

_TSVECTOR: Final = (
    text(
        "WITH question AS (SELECT string_agg(all_of, ' | ')::tsquery AS any_of FROM ("  # noqa: S608 (a constant)
        "SELECT '(' || string_agg('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''' || "
        f"CASE WHEN length(lexeme) < {PREFIX_CHARS_MIN} THEN '' ELSE ':*' END, ' & ') || ')' AS all_of "
        "FROM unnest(:terms) WITH ORDINALITY AS one(term, place), unnest(to_tsvector('simple', term)) "
        "GROUP BY place) AS terms) "
        "SELECT id, ts_rank(words, any_of) AS rank FROM memory_conversations, question "
        "WHERE words @@ any_of AND user_id = :user_id ORDER BY rank DESC, id DESC LIMIT :most"
    )
    .bindparams(bindparam("terms", type_=ARRAY(String)))
    .columns(*_columns)
)


def terms(question: str) -> list[str]:
    """The parts of a question that have a letter or a digit, without doubles, in what databases take."""
    clean = question.replace("\0", " ").encode("utf-8", "ignore").decode()
    parts = (part[:TERM_CHARS_MAX] for part in clean.split())
    return list(dict.fromkeys(part for part in parts if re.search(r"[^\W_]", part)))[:TERMS_MAX]


def find(
    connection: Connection, user_id: str, question: str, limit: int, *, indexed: bool
) -> list[tuple[str, float]]:
    """(id, score) of the user's best matches, best first; nothing matches a question without words."""
    if limit < 1 or not asked(question):
        return []
    own = connection.execute(_OWN, {"user_id": user_id}).all()
    texts = {str(row[0]): _words(row) for row in own}
    hits: list[str] = []
    if len(own) == OWN_MAX or any(TEXT_CHARS_MAX in (len(row[1]), len(row[2])) for row in own):
        hits = _by_index(connection, user_id, question, indexed=indexed)
        missing = [one for one in hits if one not in texts]
        if missing:
            rows = connection.execute(_THESE, {"user_id": user_id, "ids": missing})
            texts |= {str(row[0]): _words(row) for row in rows}
    found = rank((Text(one, words) for one, words in texts.items()), question)
    return [*found, *_unseen(found, hits)][:limit]


def _unseen(found: Sequence[tuple[str, float]], hits: Sequence[str]) -> list[tuple[str, float]]:
    """What only the index knows to match, behind all others."""
    known = {one for one, _ in found}
    worth = UNSEEN * (found[-1][1] if found else 1.0)
    rest = [one for one in hits if one not in known]
    return [(one, worth / place) for place, one in enumerate(rest, 1)]


def _words(row: Any) -> str:
    return f"{row[1]}\n{row[2]}"


_BOTH: Final = (
    _table.c.id,
    func.substr(_table.c.user_message, 1, TEXT_CHARS_MAX),
    func.substr(_table.c.bot_response, 1, TEXT_CHARS_MAX),
)
_OWN: Final = (
    select(*_BOTH)
    .where(_table.c.user_id == bindparam("user_id"))
    .order_by(_table.c.id.desc())
    .limit(literal_column(str(OWN_MAX)))
)
_THESE: Final = select(*_BOTH).where(
    _table.c.user_id == bindparam("user_id"), _table.c.id.in_(bindparam("ids", expanding=True))
)


def _by_index(connection: Connection, user_id: str, question: str, *, indexed: bool) -> list[str]:
    """Ids of the best matches by the index's own rank."""
    parts = _parts(question)
    given: dict[str, object] = {"user_id": user_id, "most": CANDIDATES_MAX}
    spaceless = [one for one in asked(question) if has_no_spaces(one)]
    found: list[Any] = []
    if spaceless or not indexed:  # the index has words, and such a script has none
        found += connection.execute(_like(spaceless or parts), given).all()
    if indexed and connection.dialect.name == "postgresql":
        found += connection.execute(_TSVECTOR, {**given, "terms": parts}).all()
    elif indexed:
        found += connection.execute(_FTS5, {**given, "question": quoted(parts)}).all()
    return list(dict.fromkeys(str(row[0]) for row in found))


def _parts(question: str) -> list[str]:
    """What the index is asked for: words that mean something, and how they begin in other forms."""
    every = terms(question)
    parts = [part for part in every if folded(part).strip(",;.:!?") not in STOP_WORDS] or every
    stems = [one for one in asked(question) if one.isalpha() and len(one) >= PREFIX_CHARS_MIN]
    return list(dict.fromkeys([*parts, *stems])) or asked(question)


def quoted(parts: Sequence[str]) -> str:
    """An FTS5 question: each part a phrase, whatever signs are in it, any of them will do."""
    return " OR ".join(map(_phrase, parts))


def _phrase(part: str) -> str:
    last = re.findall(r"[^\W_]+", part)[-1]
    star = "*" if len(last) >= PREFIX_CHARS_MIN else ""
    return '"' + part.replace('"', '""') + f'"{star}'


def _like(parts: Sequence[str]) -> Select[tuple[str, float]]:
    """Ranked by how many of the parts are in the text."""
    words = [re.sub(r"^[\W_]+|[\W_]+$", "", part) for part in parts]
    hits = [
        or_(
            _table.c.user_message.icontains(word, autoescape=True),
            _table.c.bot_response.icontains(word, autoescape=True),
        )
        for word in words
    ]
    rank = sum((case((hit, 1), else_=0) for hit in hits[1:]), start=case((hits[0], 1), else_=0))
    return (
        select(_table.c.id, rank.label("rank"))
        .where(_table.c.user_id == bindparam("user_id"), or_(*hits))
        .order_by(rank.desc(), _table.c.id.desc())
        .limit(bindparam("most"))
    )


# ── the index of SQLite ──────────────────────────────────────────────────────────────────────────


def prepare(connection: Connection) -> bool:
    """Make SQLite's index where this library has FTS5, and index what was written without it.

    False = there is none here. The connection is in a transaction that may write.
    """
    if connection.dialect.name != "sqlite":
        return True
    if not connection.scalar(text("SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'")):
        return False
    if not _exists(connection):
        connection.exec_driver_sql(
            f"CREATE VIRTUAL TABLE {INDEX} USING fts5(user_message, bot_response, "
            "content='memory_conversations', content_rowid='number', "
            "tokenize='unicode61 remove_diacritics 2')"
        )
    connection.exec_driver_sql(
        f"INSERT INTO {INDEX}(rowid, user_message, bot_response) "  # noqa: S608 (a constant)
        "SELECT number, user_message, bot_response FROM memory_conversations "
        f"WHERE number > (SELECT coalesce(max(id), 0) FROM {INDEX}_docsize)"
    )
    return True


def _exists(connection: Connection) -> bool:
    found = connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = :name"), {"name": INDEX})
    return bool(found)


def add(connection: Connection, ids: Sequence[str]) -> None:
    """Index conversations that were just inserted, if they were and are not indexed yet."""
    connection.execute(_ADD, [{"id": one} for one in ids])


_ADD: Final = text(
    f"INSERT INTO {INDEX}(rowid, user_message, bot_response) "  # noqa: S608 (a constant)
    "SELECT number, user_message, bot_response FROM memory_conversations "
    f"WHERE id = :id AND NOT EXISTS (SELECT 1 FROM {INDEX}_docsize WHERE {INDEX}_docsize.id = number)"
).bindparams(bindparam("id", type_=Uuid(as_uuid=False)))


def forget(connection: Connection, ids: Sequence[str], *, indexed: bool) -> None:
    """Take conversations out of SQLite's index; they must still be in their table.

    ErasureIncomplete where there is an index that this library cannot change: nothing is done then.
    """
    if connection.dialect.name != "sqlite":
        return
    if indexed:
        connection.execute(_FORGET, [{"id": one} for one in ids])
    elif _exists(connection):
        raise ErasureIncomplete(
            "this SQLite library has no FTS5 and cannot erase from the file's search index"
        )


_FORGET: Final = text(
    f"INSERT INTO {INDEX}({INDEX}, rowid, user_message, bot_response) "  # noqa: S608 (a constant)
    "SELECT 'delete', number, user_message, bot_response FROM memory_conversations WHERE id = :id"
).bindparams(bindparam("id", type_=Uuid(as_uuid=False)))


def compact(connection: Connection) -> None:
    """Merge SQLite's index into one segment: words that were taken out stay in the old ones until then."""
    connection.exec_driver_sql(f"INSERT INTO {INDEX}({INDEX}) VALUES('optimize')")
