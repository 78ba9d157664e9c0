"""The command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from supervisor.ctl.main import LOOKS
from supervisor.ctl.parse import MANAGING, VERBS
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Stage

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "argparse",
    "asyncio",
    "rich",
    "tomllib",
    "importlib.metadata",
    "supervisor.settings",
    "difflib",
)


def call(
    *words: str, code: str = "import sys; from supervisor.ctl.main import main; sys.exit(main())"
) -> list[str]:
    """The command line of a supervisorctl."""
    return [sys.executable, "-c", code, *words]


def test_health_loads_nothing_that_it_does_not_need(stage: Stage) -> None:
    """The modules of the fast path: what one verb alone needs is not among them."""
    stage.script["health"] = answers.health()
    code = (
        "import sys, json; from supervisor.ctl.main import main; main(); "
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run(
        call("health", "--socket", stage.path, code=code),
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert ran.stdout.startswith("pass: everything is well\n")
    assert set(HEAVY) & set(json.loads(ran.stderr)) == set()


def test_a_reader_that_has_seen_enough_is_no_error(stage: Stage) -> None:
    """`supervisorctl events | head` ends quietly."""
    stage.script["events"] = answers.events(*range(1, 1000))
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run(
            call("events", "999", "--socket", stage.path),
            cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=20, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_verb_is_carried_out_by_somebody() -> None:
    """The table of verbs and the table of looks agree."""
    assert set(VERBS) - set(LOOKS) == {"doctor", "wait", "help", "reload", "probe", *MANAGING}
    assert set(LOOKS) <= set(VERBS)
