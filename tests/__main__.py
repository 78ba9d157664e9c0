"""Run everything that CI runs: `python -m tests`, with pytest's own arguments after it.

ruff, mypy --strict and pytest (the tidy checks are among its tests) run one after the other with their
output passed through; none stops the next. The exit code is 1 if any of them failed. The last line,
`ran N, could not run M: ids`, is printed by the plugin in `conftest`: a test that did not run is named.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent


def run(name: str, *options: str) -> bool:
    """Run one tool of this interpreter's environment in the project's root; True = it is content."""
    print(f"=== {name} {' '.join(options)}".rstrip(), flush=True)
    return subprocess.run([sys.executable, "-m", name, *options], cwd=ROOT, check=False).returncode == 0


def main(arguments: list[str]) -> int:
    """Run every tool and return 1 if one failed."""
    well = True
    for name, option in (("ruff", "check"), ("mypy", "--strict")):
        began = time.monotonic()
        fine = run(name, option)
        # The verdicts stand above pytest's output, so that its last line stays the last line.
        print(f"=== {name} {'ok' if fine else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
        well = well and fine
    return 0 if run("pytest", *arguments) and well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
