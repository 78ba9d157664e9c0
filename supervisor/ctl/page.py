"""What a verb has to say, before it is known where it will be shown; and how it is shown in plain columns.

Plain text is for pipes: one row a line, columns two spaces apart, "-" for nothing, blanks only in the last
column, so that grep and awk work. Neighbours: the verbs make pages, `colour` shows them on a terminal.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400


class Verdict(enum.Enum):
    """How it went; `exits` says which number that is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    """What was asked about is not so."""
    UNAVAILABLE = "unavailable"
    """Nobody answered, or this user may not ask or command."""
    REFUSED = "refused"
    """The supervisor understood and said no."""
    USAGE = "usage"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; an empty cell is shown as "-"."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    """Places of the columns that are aligned to the right: numbers."""
    header: bool = True
    widths: tuple[int, ...] = ()
    """Least widths of the first columns, the gap included."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer, ready to be shown."""

    answer: Any
    """What --json prints."""
    parts: tuple[str | Table, ...]
    """Lines and tables, in order."""
    verdict: Verdict = field(default=Verdict.OK)


def plain(page: Page) -> str:
    """The page as plain text, each line ended."""
    lines: list[str] = []
    for part in page.parts:
        lines.extend([clean(part)] if isinstance(part, str) else columns(part))
    return "".join(f"{line}\n" for line in lines)


def columns(table: Table) -> list[str]:
    """The table's lines."""
    rows = [tuple(clean(cell) or "-" for cell in row) for row in table.rows]
    if table.header:
        rows.insert(0, table.columns)
    least = table.widths + (0,) * (len(table.columns) - len(table.widths))
    widths = [
        max([len(row[place]) for row in rows] + [least[place] - 2]) for place in range(len(table.columns))
    ]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if place in table.right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def clean(text: str) -> str:
    """The text without what would move a terminal's cursor: names and reasons come from anybody."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " for sign in text)


def span(seconds: float | None) -> str:
    """A duration as people write it: 0.25s, 12s, 1m30s, 2h05m, 3d04h; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.2f}".rstrip("0").rstrip(".") + "s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole}s"
    if whole < HOUR_S:
        minutes, rest = divmod(whole, MINUTE_S)
        return f"{minutes}m{rest:02}s" if rest else f"{minutes}m"
    if whole < DAY_S:
        hours, rest = divmod(whole, HOUR_S)
        minutes = rest // MINUTE_S
        return f"{hours}h{minutes:02}m" if minutes else f"{hours}h"
    days, rest = divmod(whole, DAY_S)
    hours = rest // HOUR_S
    return f"{days}d{hours:02}h" if hours else f"{days}d"


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """A list of "what  value" lines."""
    return Table(("WHAT", "VALUE"), tuple(pairs), header=False)
