"""Plain columns, and durations in words."""

from __future__ import annotations

import pytest

from supervisor.ctl.page import Page, Table, clean, columns, plain, span


def test_columns_are_two_apart_and_never_empty() -> None:
    """Every row has the same number of words, so that awk finds its column."""
    table = Table(
        ("NAME", "N", "NOTE"), (("a", "1", ""), ("bcdef", "200", "two words")), right=frozenset({1})
    )
    assert columns(table) == [
        "NAME     N  NOTE",
        "a        1  -",
        "bcdef  200  two words",
    ]


def test_a_table_without_rows_shows_its_header() -> None:
    """Nothing found is still a table."""
    assert columns(Table(("A", "B"), ())) == ["A  B"]


def test_text_from_others_cannot_move_the_cursor() -> None:
    """Control characters in a reason or a name become blanks."""
    assert clean("a\x1b[2Jb\nc") == "a [2Jb c"
    assert plain(Page({}, ("x\x07y", Table(("C",), (("\x1b]0;t",),), header=False)))) == "x y\n ]0;t\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0s"),
        (0.25, "0.25s"),
        (9.999, "10s"),
        (12.4, "12s"),
        (59.9, "1m"),
        (90.0, "1m30s"),
        (3600.0, "1h"),
        (7500.0, "2h05m"),
        (273_600.0, "3d04h"),
        (86_400.0, "1d"),
        (-1.0, "0s"),
    ],
)
def test_a_duration_is_written_as_people_say_it(seconds: float | None, text: str) -> None:
    """Two units at most."""
    assert span(seconds) == text
