"""Standard error that is full, stopped or closed: nobody waits, and what is lost is counted and said."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.stderr import COMPLAIN_S, Stderr

LINE = b"x" * 99 + b"\n"


class Time:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def pipe() -> tuple[int, int]:
    """Both ends of a pipe."""
    return os.pipe()


def sockets() -> tuple[int, int]:
    """The same as journald gives it: a stream socket."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def everything(number: int) -> bytes:
    """What is there to be read."""
    os.set_blocking(number, False)
    data = b""
    try:
        while piece := os.read(number, 65_536):
            data += piece
    except BlockingIOError:
        pass
    return data


@pytest.mark.parametrize("make", [pipe, sockets])
def test_a_reader_that_stopped_costs_lines_and_no_time(make: Callable[[], tuple[int, int]]) -> None:
    """F3: what does not fit is dropped whole; with room again it is said, and no line was torn."""
    reading, writing = make()
    clock = Time()
    stderr = Stderr(writing, clock, "<4>")
    written = 0
    while stderr.write(LINE):
        written += 1
        assert written < 100_000
    for _ in range(10):
        assert not stderr.write(LINE)
    assert (stderr.dropped, stderr.problem) == (11, "nobody reads it")
    assert os.get_blocking(writing)  # whoever else has it sees no change
    got = everything(reading)
    assert stderr.write(b"again\n")
    got += everything(reading)
    lines = got.splitlines(keepends=True)
    assert lines[:written] == [LINE] * written
    assert lines[written:] == [b"again\n", b"<4>breakerd: 11 lines could not be written here\n"]
    assert stderr.problem == ""
    stderr.close()
    assert not stderr.write(LINE)
    os.close(reading)
    os.close(writing)


def test_a_reader_that_went_is_survived() -> None:
    """EPIPE is a lost line, not an end; it is told at most once in COMPLAIN_S."""
    reading, writing = os.pipe()
    stderr = Stderr(writing, Time())
    os.close(reading)
    assert [stderr.write(LINE) for _ in range(3)] == [False] * 3
    assert (stderr.dropped, stderr.problem) == (3, "Broken pipe")
    stderr.close()
    os.close(writing)


def test_complaints_have_a_pause(tmp_path: Path) -> None:
    """A disk that is full again and again: one sentence in ten seconds, with the sum of what was lost."""
    clock = Time()
    full = os.open("/dev/full", os.O_WRONLY)
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    target = os.dup(file)
    stderr = Stderr(target, clock)
    for _ in range(3):
        os.dup2(full, target)
        assert not stderr.write(LINE)
        assert stderr.problem == "No space left on device"
        os.dup2(file, target)
        assert stderr.write(b"fine\n")
    clock.now += COMPLAIN_S
    assert stderr.write(b"fine\n")
    assert (tmp_path / "log").read_text().splitlines() == [
        "fine",
        "breakerd: 1 lines could not be written here",
        "fine",
        "fine",
        "fine",
        "breakerd: 2 lines could not be written here",
    ]
    stderr.close()
    for number in (full, file, target):
        os.close(number)


@pytest.mark.parametrize("number", [-1, 999])
def test_where_there_is_none_nothing_is_written(number: int) -> None:
    """`2>&-`: counted, and nothing else."""
    stderr = Stderr(number, Time())
    assert not stderr.write(LINE * 3)
    assert (stderr.dropped, stderr.problem) == (3, "Bad file descriptor")
