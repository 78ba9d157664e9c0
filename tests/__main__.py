"""Run everything that CI runs: `python -m tests`, with pytest's own arguments after it.

ruff, mypy --strict and pytest (the tidy checks are among its tests); none stops the others, and the exit code
is 1 if any of them failed. Most of the time goes by in tests of real processes, which wait: beside them go
mypy and whatever computes, and what these say is shown when they have ended; what computes runs on the other
Pythons that the package claims, too, where they are found. With arguments everything goes one after the
other, on this Python alone. The last line, `ran N, could not run M: ids`, counts every test: one that did
not run is named, and so is a Python that is not here (`conftest` has the line printed for each pytest).
"""

from __future__ import annotations

import os
import re
import shutil
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
PYTHONS: Final = ("3.11", "3.12", "3.13")
"""What `pyproject.toml` claims."""
LAST: Final = re.compile(r"^ran (\d+), could not run (\d+): (.+)$", re.MULTILINE)


def run(show: Callable[[str], object], name: str, *options: str, python: str = sys.executable) -> bool:
    """Run one tool of an interpreter's environment in the project's root; True = it is content."""
    began = time.monotonic()
    show(f"=== {' '.join((name, *options))}\n")
    with subprocess.Popen(
        [python, "-m", name, *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            show(line)
    fine = process.returncode == 0
    show(f"=== {name} {'ok' if fine else 'FAILED'} in {time.monotonic() - began:.0f} s\n")
    return fine


def interpreter(version: str) -> str | None:
    """A Python of this version: on the PATH, or one of pyenv's; None = there is none."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, versions.glob(f"{version}.*/bin/python"))]
    asking = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        said = subprocess.run([candidate, "-c", asking], capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:
            return candidate
    return None


def on_another(show: Callable[[str], object], version: str) -> bool:
    """Run what computes on another Python, in an environment of its own below this one's."""
    found = interpreter(version)
    if found is None:
        show(f"ran 0, could not run 1: python{version}\n")
        return True
    python = str(Path(sys.prefix) / "pythons" / version / "bin" / "python")
    return (
        run(show, "venv", str(Path(python).parent.parent), python=found)
        and run(show, "pip", "install", "-q", "-e", ".[test]", python=python)
        and run(show, "pytest", "-p", "no:cacheprovider", *COMPUTING, python=python)
    )


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
            here = ".".join(map(str, sys.version_info[:2]))
            well.extend([on_another(later.append, version) for version in PYTHONS if version != here])

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
