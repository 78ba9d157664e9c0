"""The account of `breakerd demo --memory`: what was promised against what is there, line by line."""

from __future__ import annotations

from pathlib import Path

from workers.demo.talk import judge, read_notes, report

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


def test_the_report_says_what_came_of_it(tmp_path: Path) -> None:
    """One sentence when it is exact, another one when it is not."""
    notes = read_notes(str(noted(tmp_path)), 1)
    good, bad = report([judge(notes, rows(1, 2))], 12.0), report([judge(notes, rows(1))], 12.0)
    assert "2 sentences were acknowledged; all of them are in the database, each once." in good
    assert "NOT EXACT: of 2 acknowledged sentences 1 are lost, 0 doubled." in bad
