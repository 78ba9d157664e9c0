"""One line of the table, and how a benchmark hands its lines over. Knows no breaker.

Every benchmark is a module with `measure() -> list[Figure]` and `sys.exit(main(measure))` at its end:
run alone it prints its own table, run by `python -m benchmarks` (with --json) it prints one JSON line.
A benchmark runs in a process of its own, so that none inherits another's warm caches or threads.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

HEAD: Final = (
    "| figure | measured | ratio | target | met |",
    "|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, against what, and whether the target is met (None = no target)."""

    figure: str
    measured: str
    """The plain number with its unit, for scale: it depends on the machine."""
    ratio: str
    """Against what was measured in the same run: this is the result."""
    target: str
    met: bool | None = None

    def row(self) -> str:
        """The Markdown row."""
        verdict = {True: "yes", False: "**no**", None: "-"}[self.met]
        return f"| {self.figure} | {self.measured} | {self.ratio} | {self.target} | {verdict} |"


def table(figures: Iterable[Figure]) -> str:
    """The whole Markdown table."""
    return "\n".join([*HEAD, *(figure.row() for figure in figures)])


def main(measure: Callable[[], list[Figure]]) -> int:
    """Measure, and print a table, or JSON when asked for it."""
    figures = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        print(table(figures))
    return 0


def share(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def middle(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)
