"""The workers' own files: what they hold, and that they hold it whatever happens to their writer."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipc import BreakerState
from tests.sources import ROOT
from workers.demo.ledger import WORD_BYTES, WORDS, Counts, Cue, Cues, Ledger, Phase


def read(path: Path) -> Counts:
    """What another process would read."""
    ledger = Ledger(str(path))
    counts = ledger.read()
    ledger.close()
    return counts


def test_a_new_ledger_holds_nothing(tmp_path: Path) -> None:
    """A ledger begins with a starting worker that has issued nothing and seen no breaker."""
    Ledger(str(tmp_path / "one"), create=True).close()
    assert read(tmp_path / "one") == Counts(Phase.STARTING, None, *[0] * 11)
    assert (tmp_path / "one").stat().st_size == WORDS * WORD_BYTES


def test_a_ledger_is_made_once(tmp_path: Path) -> None:
    """A second maker of the same ledger is refused: two writers would hide each other's counts."""
    Ledger(str(tmp_path / "one"), create=True).close()
    with pytest.raises(FileExistsError):
        Ledger(str(tmp_path / "one"), create=True)


def test_a_call_is_in_flight_between_its_two_marks(tmp_path: Path) -> None:
    """An outcome is issued before it is put and done after; between the two it is in flight."""
    ledger = Ledger(str(tmp_path / "one"), create=True)
    ledger.issue_success()
    assert ledger.read().in_flight == (1, 0)
    ledger.succeeded(5)
    ledger.issue_failure()
    assert ledger.read().in_flight == (0, 1)
    ledger.failed(6, 1, locked=False)
    counts = ledger.read()
    assert (counts.in_flight, counts.issued, counts.hits) == ((0, 0), 2, 0)
    ledger.close()


def test_times_of_an_outage(tmp_path: Path) -> None:
    """The first failure and the first refusal stay; the way back is the first success after it."""
    ledger = Ledger(str(tmp_path / "one"), create=True)
    ledger.issue_success()
    ledger.succeeded(100)
    for now, took in ((200, 7), (210, 8)):
        ledger.issue_failure()
        ledger.failed(now, took, locked=True)
    for now in (220, 230):
        ledger.refused(now)
    for now in (240, 250):
        ledger.issue_success()
        ledger.succeeded(now)
    ledger.refused(260)
    ledger.issue_success()
    ledger.succeeded(270)
    ledger.saw(BreakerState.CLOSED)
    ledger.enter(Phase.STOPPED)
    ledger.close()
    assert read(tmp_path / "one") == Counts(
        phase=Phase.STOPPED,
        sees=BreakerState.CLOSED,
        issued_success=4,
        issued_failure=2,
        done_success=4,
        done_failure=2,
        refused=3,
        hits=2,
        waited_ns=15,
        first_failure=200,
        first_refusal=220,
        last_refusal=260,
        back=270,
    )


def test_a_ledger_outlives_kill_9(tmp_path: Path) -> None:
    """What a worker noted before kill -9 is there for whoever reads its file afterwards."""
    path = tmp_path / "one"
    Ledger(str(path), create=True).close()
    program = (
        "import os, signal, sys; from workers.demo.ledger import Ledger; ledger = Ledger(sys.argv[1]);"
        "ledger.issue_success(); ledger.succeeded(1); ledger.issue_failure();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=30, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert read(path).in_flight == (0, 1)
    assert read(path).issued == 2


def test_cues_are_seen_by_others(tmp_path: Path) -> None:
    """A cue that one process gives is what the others read."""
    given, seen = Cues(str(tmp_path / "cues"), create=True), Cues(str(tmp_path / "cues"))
    assert (seen.stop, seen.locked_ns, seen.released_ns) == (False, 0, 0)
    given.words[Cue.LOCKED_NS] = 11
    given.words[Cue.RELEASED_NS] = 12
    given.say_stop()
    assert (seen.stop, seen.locked_ns, seen.released_ns) == (True, 11, 12)
    given.close()
    seen.close()
