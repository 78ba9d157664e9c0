"""A page on a terminal, through rich. Loaded only when the output is a terminal: it takes 60 ms.

Neighbours: `page` has the plain form of the same; what is told apart by colour is told by a word too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from supervisor.ctl.page import Page, Table, clean, columns

LAST_MIN: Final = 24
"""Characters that the last column of a table needs, if it has as many."""
_STYLES: Final = {
    **dict.fromkeys(("pass", "CLOSED", "RUNNING", "attached"), "green"),
    **dict.fromkeys(("warn", "HALF_OPEN", "METRICS_ONLY", "STARTING", "BACKOFF", "STOPPING"), "yellow"),
    **dict.fromkeys(("fail", "OPEN", "FORCED_OPEN", "FATAL", "EXITED", "UNKNOWN", "quarantined"), "bold red"),
    **dict.fromkeys(("DISABLED", "STOPPED"), "magenta"),
}


def show(page: Page, stream: TextIO, clear: bool = False) -> None:
    """Write the page; `clear` empties the screen first, for --watch."""
    console = Console(file=stream, highlight=False)
    if clear:
        console.clear()
    for part in page.parts:
        if isinstance(part, Table) and _fits(part, console.width):
            console.print(_table(part))
        else:
            # A terminal that is too narrow wraps whole lines: figures are never cut in two.
            for line in [part] if isinstance(part, str) else columns(part):
                console.print(_line(line), soft_wrap=True)


def _fits(table: Table, width: int) -> bool:
    """Whether all columns but the last stand side by side, and leave it room for a sentence to be folded."""
    narrow = replace(table, rows=tuple((*row[:-1], row[-1][:LAST_MIN]) for row in table.rows))
    return max(map(len, columns(narrow)), default=0) <= width


def _line(line: str) -> Text:
    """A line whose state words are coloured."""
    text = Text(clean(line))
    for word in {word.strip(":,;()") for word in line.split()} & _STYLES.keys():
        text.highlight_regex(rf"\b{word}\b", _STYLES[word])
    return text


def _table(table: Table) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=table.header)
    least = table.widths + (0,) * (len(table.columns) - len(table.widths))
    for place, name in enumerate(table.columns):
        shown.add_column(
            name,
            justify="right" if place in table.right else "left",
            header_style="bold",
            min_width=max(0, least[place] - 2) or None,
            no_wrap=place < len(table.columns) - 1,
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*(Text(clean(cell) or "-", style=_STYLES.get(cell, "")) for cell in row))
    return shown
