"""The account of `breakerd demo --memory`: what was promised against what is there, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.demo.talk import judge, read_notes, report
from workers.demo.talker import mark
from workers.memory.records import Conversation, Found, Source, StoreOutcome

NOTES = """> 1
= 1 stored
> 2
= 2 spooled
> 3
= 3 rejected
? 2
> 4
"""


def rows(*lines: int) -> list[str]:
    """What the database has."""
    return [f"line {line}: tell me of spools" for line in lines]


def noted(directory: Path, text: str = NOTES) -> Path:
    """A file of notes."""
    path = directory / "notes-1"
    path.write_text(text)
    return path


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Said, stored, spooled, rejected, asked; an agent that wrote nothing yet said nothing."""
    notes = read_notes(str(noted(tmp_path)), 1)
    assert notes.said == {1, 2, 3, 4}
    assert [set(one) for one in (notes.stored, notes.spooled, notes.rejected)] == [{1}, {2}, {3}]
    assert (notes.remembered, notes.forgotten) == (1, 0)
    assert read_notes(str(tmp_path / "none"), 2).said == frozenset()


def test_only_what_was_promised_must_be_there_and_once(tmp_path: Path) -> None:
    """The sentence that a kill cut off may be there or not; nothing else may differ."""
    notes = read_notes(str(noted(tmp_path)), 1)
    assert judge(notes, rows(1, 2)).exact
    assert judge(notes, rows(1, 2, 4)).exact
    assert (judge(notes, rows(1)).lost, judge(notes, rows(1)).exact) == (1, False)
    assert (judge(notes, rows(1, 2, 2)).doubled, judge(notes, rows(1, 2, 2)).exact) == (1, False)
    assert not judge(notes, rows(1, 2, 3, 4)).exact
    forgetful = read_notes(str(noted(tmp_path, NOTES + "! 2\n")), 1)
    assert not judge(forgetful, rows(1, 2)).exact


def test_what_a_dead_database_has_is_out_of_reach_once(tmp_path: Path) -> None:
    """The last sentence before the kill; from the next one on it is the spool that remembers."""
    once = read_notes(str(noted(tmp_path, NOTES + "~ 1\n")), 1)
    assert (once.remembered, once.forgotten, once.unreached) == (1, 0, 1)
    assert judge(once, rows(1, 2)).exact
    twice = read_notes(str(noted(tmp_path, NOTES + "~ 1\n~ 1\n")), 1)
    assert not judge(twice, rows(1, 2)).exact


@pytest.mark.parametrize(
    ("sources", "line", "outcome", "sign"),
    [
        (["database"], 1, "stored", "?"),
        (["cache", "spool"], 2, "spooled", "?"),
        (["cache"], 3, "stored", "~"),
        (["cache"], 3, "spooled", "!"),
        (["database", "spool"], 3, "stored", "!"),
        ([], 1, "stored", "!"),
    ],
)
def test_an_answer_is_forgetful_only_where_it_could_have_known(
    sources: list[str], line: int, outcome: str, sign: str
) -> None:
    """Lines 1, 2, ... from these sources; what is stored and not among them, a dead database has."""
    answer = [
        Found(Conversation.now("ada", f"line {number}: tell me", "..."), 0.0, Source(source))
        for number, source in enumerate(sources, 1)
    ]
    assert mark(answer, line, StoreOutcome(outcome)) == sign


def test_the_report_says_what_came_of_it(tmp_path: Path) -> None:
    """One sentence when it is exact, another one when it is not."""
    notes = read_notes(str(noted(tmp_path)), 1)
    good, bad = report([judge(notes, rows(1, 2))], 12.0), report([judge(notes, rows(1))], 12.0)
    assert "2 sentences were acknowledged; all of them are in the database, each once." in good
    assert "NOT EXACT: of 2 acknowledged sentences 1 are lost, 0 doubled." in bad
