"""The form of the log: with priorities for journald, plain for everybody else."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys

import pytest

from supervisor import priority

PROGRAM = (
    "import os, logging; from supervisor import priority; priority.begin('INFO', os.environ);"
    "log = logging.getLogger('x'); log.info('fine'); log.error('two\\nlines')"
)


@pytest.mark.parametrize(
    ("level", "number"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("CRITICAL", 2)]
)
def test_levels_are_syslogs(level: str, number: int) -> None:
    """Each of the five."""
    assert priority.priority(getattr(logging, level)) == number


def test_every_line_carries_the_priority() -> None:
    """A traceback is one error, not one error and ten notices."""
    assert priority.marked("a\nb", logging.ERROR) == "<3>a\n<3>b"


@pytest.mark.parametrize("told", [True, False])
def test_only_the_stream_that_journald_reads_is_marked(told: bool) -> None:
    """JOURNAL_STREAM names standard error by device and inode; inherited by something else it is ignored."""
    reading, writing = os.pipe()
    found = os.fstat(writing)
    stream = f"{found.st_dev}:{found.st_ino}" if told else "1:1"
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "JOURNAL_STREAM": stream},
        stderr=writing,
        check=True,
    )
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        lines = file.read().splitlines()
    plain = ["INFO x: fine", "ERROR x: two", "lines"]
    marks = ["<6>", "<3>", "<3>"] if told else ["", "", ""]
    assert lines == [mark + line for mark, line in zip(marks, plain, strict=True)]


def test_what_is_no_file_is_no_journal() -> None:
    """Asking must not fail where standard error is a buffer, or closed."""
    closed = io.StringIO()
    closed.close()
    for stream in (io.StringIO(), closed):
        assert priority.to_journal({"JOURNAL_STREAM": "1:1"}, stream) is False


@pytest.mark.parametrize("later", [False, True])
def test_json_is_one_object_a_line_with_its_priority(later: bool) -> None:
    """From the start, or from when the configuration was read."""
    program = (
        "import os, logging; from supervisor import priority;"
        f"priority.begin('INFO', os.environ, {'text' if later else 'json'!r});"
        f"{later} and priority.change('info', os.environ, 'json');"
        "logging.getLogger('x').error('two\\nlines')"
    )
    reading, writing = os.pipe()
    found = os.fstat(writing)
    told = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    subprocess.run([sys.executable, "-c", program], env=told, stderr=writing, check=True)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        (line,) = file.read().splitlines()
    said = json.loads(line.removeprefix("<3>"))
    assert (said["level"], said["logger"], said["text"]) == ("ERROR", "x", "two\nlines")
    assert set(said) == {"at", "level", "logger", "pid", "text"}


def test_a_closed_standard_error_is_no_end() -> None:
    """F3: `2>&-`; what is logged is lost, and nothing else."""
    program = f"import sys; sys.stderr = None; {PROGRAM}; priority.complain('x', os.environ); print('on')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("on\n", "")


def test_a_record_that_cannot_be_shown_is_told_and_no_end() -> None:
    """A wrong argument in a log call is a line, not an exception where it is logged."""
    program = f"{PROGRAM}; log.warning('%d apples', 'two'); print('on')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "on\n"
    told = ran.stderr.splitlines()[-1]
    assert told.startswith("WARNING x: '%d apples' cannot be shown: TypeError(")


def test_a_pipe_that_nobody_reads_never_stops_a_logger() -> None:
    """F3: journald is stopped; the loop that logs goes on."""
    program = f"{PROGRAM}; [log.info('x' * 1000) for _ in range(1000)]; print('on')"
    reading, writing = os.pipe()
    ran = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writing, timeout=20.0, check=True
    )
    assert ran.stdout == b"on\n"
    os.close(reading)
    os.close(writing)
