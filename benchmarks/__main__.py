"""Every figure in one Markdown table: `python -m benchmarks`, or the names of the wanted ones after it.

Each benchmark runs in a process of its own, one after the other: they share the machine with nobody
but themselves. Progress goes to standard error, the table to standard output.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from typing import Final

from benchmarks.figures import Figure, table
from benchmarks.supervised import ROOT

_ORDER: Final = "calls threads spread intake idle attach startup memory search scale"
ORDER: Final = tuple(_ORDER.split())


def figures_of(name: str) -> list[Figure]:
    """The figures of one benchmark; a failed one is a row that says so."""
    print(f"{name} ...", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        return [Figure(name, f"failed with exit code {done.returncode}", "-", "-", met=False)]
    return [Figure(**values) for values in json.loads(done.stdout.splitlines()[-1])]


def main(names: list[str]) -> int:
    """Measure, print, and return 1 if a target was missed."""
    figures = [figure for name in names or ORDER for figure in figures_of(name)]
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}\n")
    print(table(figures))
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
