"""Run everything that CI runs: `python -m tests`, with pytest's own arguments after it.

ruff, mypy --strict and pytest (the tidy checks are among its tests); none stops the others, and the exit code
is 1 if any of them failed. Most of the time goes by in tests of real processes, which wait: beside them go
mypy and whatever computes, and what these say is shown when they have ended. With arguments everything goes
one after the other. The last line, `ran N, could not run M: ids`, counts every test: one that did not run is
named (the plugin in `conftest` prints such a line for each pytest).
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final

ROOT: Final = Path(__file__).parent.parent
WAITING: Final = ("tests/faults", "tests/live", "tests/systemd")
"""Where processes, servers and clocks are waited for."""
COMPUTING: Final = tuple(f"--ignore={folder}" for folder in WAITING)
LAST: Final = re.compile(r"^ran (\d+), could not run (\d+): (.+)$", re.MULTILINE)


def run(show: Callable[[str], object], name: str, *options: str) -> bool:
    """Run one tool of this interpreter's environment in the project's root; True = it is content."""
    began = time.monotonic()
    show(f"=== {' '.join((name, *options))}\n")
    with subprocess.Popen(
        [sys.executable, "-m", name, *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            show(line)
    fine = process.returncode == 0
    show(f"=== {name} {'ok' if fine else 'FAILED'} in {time.monotonic() - began:.0f} s\n")
    return fine


def counted(text: str) -> str:
    """The last lines of every pytest as one."""
    found = LAST.findall(text)
    ran, missing = (sum(int(one[place]) for one in found) for place in (0, 1))
    names = " ".join(one[2] for one in found if one[1] != "0")
    return f"ran {ran}, could not run {missing}: {names or 'none'}"


def main(arguments: list[str]) -> int:
    """Run every tool and return 1 if one failed."""
    said: list[str] = []
    later: list[str] = []
    well: list[bool] = []

    def show(line: str) -> None:
        print(line, end="", flush=True)
        said.append(line)

    def compute() -> None:
        well.append(run(later.append, "mypy", "--strict"))
        if not arguments:
            well.append(run(later.append, "pytest", *COMPUTING))

    well.append(run(show, "ruff", "check"))
    beside = Thread(target=compute)
    beside.start()
    if arguments:
        beside.join()
    waited = run(show, "pytest", *(arguments or WAITING))
    beside.join()
    show("".join(later))
    print(counted("".join(said)))
    return 0 if all(well) and waited else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
