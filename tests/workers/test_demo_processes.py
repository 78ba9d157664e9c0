"""The demo's processes: none is left, whatever it thinks of signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT
from workers.demo.processes import Troupe, environment

SAY = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
DEAF = f"{SAY} time.sleep(60)"


def test_every_process_is_ended(tmp_path: Path) -> None:
    """Leaving the block ends a process that obeys SIGTERM, one that ignores it, and one that is gone."""
    with Troupe(str(tmp_path)) as troupe:
        ended = troupe.start("ended", ["-c", "print('said')"], {})
        ended.ends = True
        obeys = troupe.start("obeys", ["-c", "import time; time.sleep(60)"], {})
        deaf = troupe.start("deaf", ["-c", DEAF], {})
        ended.process.wait(20)
        while not deaf.last_words():
            assert deaf.code is None
        assert troupe.fallen() is None
    assert (ended.code, obeys.code, deaf.code) == (0, -signal.SIGTERM, -signal.SIGKILL)
    assert ended.last_words() == "said"


def test_a_process_that_falls_is_noticed(tmp_path: Path) -> None:
    """A process that ends while nobody expects it is the fallen one; an expected end is none."""
    with Troupe(str(tmp_path)) as troupe:
        one = troupe.start("one", ["-c", "raise SystemExit('why')"], {})
        one.process.wait(20)
        assert troupe.fallen() is one
        assert one.last_words() == "why"
        one.ends = True
        assert troupe.fallen() is None


def test_nothing_of_breakerd_leaks_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steers breakerd outside does not steer the demo; our packages are found from anywhere."""
    monkeypatch.setenv("BREAKERD_NAMESPACE", "shop")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    made = environment({"BREAKERD_SOCKET": "off"})
    assert "BREAKERD_NAMESPACE" not in made
    assert made["BREAKERD_SOCKET"] == "off"
    assert made["PYTHONPATH"] == f"{ROOT}:elsewhere"


def test_a_leash_ends_what_it_holds() -> None:
    """A program started through the leash of a process that is not its parent ends at once, unstarted."""
    command = [sys.executable, "-m", "workers.demo.leash", "1", "this.module.does.not.exist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
