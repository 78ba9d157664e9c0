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


def test_what_a_locale_cannot_show_is_no_error(stage: Stage) -> None:
    """Names come from anybody; JSON stays JSON, and moves no terminal's cursor."""
    said = "caf\u00e9 \u20ac \x9b31m"
    answer = {"schema": 1, "name": "web", "lines": [said], "position": "1:1:1", "lost": False}
    stage.script["tail"] = answer
    for flags in ((), ("--json",)):
        ran = subprocess.run(
            call("tail", "web", "--socket", stage.path, *flags),
            cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert b"\x9b" not in ran.stdout
    assert json.loads(ran.stdout)["lines"] == [said]


def test_a_full_disk_is_said(stage: Stage) -> None:
    """In a sentence, as everything that goes wrong."""
    stage.script["tail"] = {"schema": 1, "name": "web", "lines": ["x"], "position": "1:1:1", "lost": False}
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            call("tail", "web", "--socket", stage.path),
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr == "supervisorctl: the answer cannot be written: No space left on device\n"


def test_every_verb_is_carried_out_by_somebody() -> None:
    """The table of verbs and the table of looks agree."""
    assert set(VERBS) - set(LOOKS) == {"doctor", "wait", "help", "reload", "probe", *MANAGING}
    assert set(LOOKS) <= set(VERBS)
