"""The files behind `tail`: bounded, read while they are written, and followed over being set aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor import log_files
from supervisor.log_files import FILE_MAX, NOWHERE, READ_MAX, LogFile, Tail, path_of, read


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the worker's file will be."""
    return path_of(str(tmp_path), "web:1")


def fill(file: LogFile, first: int, count: int, width: int = 50) -> None:
    """Numbered lines."""
    for number in range(first, first + count):
        file.write(f"{number:0{width}d}\n".encode())


def numbers(tail: Tail) -> list[int]:
    """The numbers of these lines."""
    return [int(line) for line in tail.lines]


def follow(path: str, position: str) -> tuple[list[int], str]:
    """Everything after a position, as often as it takes."""
    found: list[int] = []
    while (tail := read(path, 1000, position)).lines:
        assert not tail.lost
        found += numbers(tail)
        position = tail.position
    return found, tail.position


def test_what_is_not_there_has_no_lines_and_a_position(path: str) -> None:
    """A worker that has said nothing yet is followed from its first word."""
    tail = read(path, 10)
    assert tail == Tail((), NOWHERE)
    file = LogFile(path)
    fill(file, 0, 30)
    assert follow(path, tail.position)[0] == list(range(30))
    file.close()


def test_the_last_lines(path: str) -> None:
    """As many as were asked for, oldest first; file and folder are nobody else's."""
    file = LogFile(path)
    fill(file, 0, 100)
    assert numbers(read(path, 3)) == [97, 98, 99]
    assert numbers(read(path, 1000)) == list(range(100))
    assert read(path, 0).lines == ()
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    file.close()


def test_what_an_earlier_version_let_its_group_read_is_closed_to_it(path: str) -> None:
    """The folder is closed, too: the file that was set aside keeps its mode."""
    folder = Path(path).parent
    folder.mkdir(mode=0o750)
    folder.chmod(0o750)
    Path(path).write_text("card 4111\n")
    Path(path).chmod(0o640)
    file = LogFile(path)
    fill(file, 0, 1)
    assert (folder.stat().st_mode & 0o777, Path(path).stat().st_mode & 0o777) == (0o700, 0o600)
    assert Path(path).read_text().startswith("card 4111")
    file.close()


def test_a_file_is_set_aside_and_one_older_is_kept(path: str) -> None:
    """Never more than twice FILE_MAX, and the last lines reach back into the older one."""
    file = LogFile(path)
    lines = 3 * FILE_MAX // 51
    fill(file, 0, lines)
    assert sorted(os.listdir(os.path.dirname(path))) == ["web:1.log", "web:1.log.1"]
    assert os.path.getsize(path) <= FILE_MAX
    assert os.path.getsize(f"{path}.1") <= FILE_MAX
    file.close()
    os.truncate(path, 102)
    last = read(path, 5)
    assert len(last.lines) == 5
    assert numbers(last) == list(range(numbers(last)[0], numbers(last)[0] + 5))


def test_following_loses_nothing_when_the_file_is_set_aside(path: str) -> None:
    """In pieces no larger than an answer, every line once."""
    file = LogFile(path)
    fill(file, 0, 10)
    position, found = read(path, 1).position, list(range(10))
    written = 10
    while written < 2.5 * FILE_MAX // 51:
        fill(file, written, 700)
        written += 700
        more, position = follow(path, position)
        found += more
    assert found == list(range(written))
    file.close()


def test_a_follower_that_was_too_slow_is_told(path: str) -> None:
    """Its place is gone: the oldest line that is left, and `lost`."""
    file = LogFile(path)
    fill(file, 0, 10)
    position = read(path, 1).position
    fill(file, 10, 3 * FILE_MAX // 51)
    tail = read(path, 10, position)
    assert tail.lost
    oldest = int(Path(f"{path}.1").read_text().partition("\n")[0])
    assert numbers(tail) == list(range(oldest, oldest + 10))
    file.close()


def test_a_line_without_its_end_waits_for_it(path: str) -> None:
    """The writer is another process, in the middle of a line."""
    file = LogFile(path)
    file.write(b"whole\nhal")
    tail = read(path, 10)
    assert tail.lines == ("whole",)
    file.write(b"f\n")
    assert read(path, 10, tail.position).lines == ("half",)
    file.close()


def test_a_line_longer_than_an_answer_comes_in_pieces(path: str) -> None:
    """It never stops the follower."""
    file = LogFile(path)
    file.write(b"a\n")
    position = read(path, 10).position
    file.write(b"x" * (READ_MAX + 10) + b"\nb\n")
    pieces: list[str] = []
    while (tail := read(path, 10, position)).lines:
        pieces += tail.lines
        position = tail.position
    assert "".join(pieces) == "x" * (READ_MAX + 10) + "b"
    file.close()


def test_a_last_line_longer_than_an_answer_is_shown_from_its_middle_on(path: str) -> None:
    """Nothing at all would look like a worker that has said nothing; what follows is not lost either."""
    file = LogFile(path)
    file.write(b"first\n" + b"x" * READ_MAX + b"the end\n")
    tail = read(path, 20)
    assert len(tail.lines) == 1
    assert tail.lines[0].endswith("xxxthe end")
    file.write(b"after\n")
    assert read(path, 20).lines == ("after",)
    assert read(path, 20, tail.position).lines == ("after",)
    file.close()


def test_a_long_line_without_its_end_is_followed_from_its_middle_on(path: str) -> None:
    """A writer that died in the middle of a long line leaves a log that is not empty either."""
    file = LogFile(path)
    file.write(b"first\n" + b"x" * (READ_MAX + 100))
    tail = read(path, 20)
    assert tail.lines == ()
    file.write(b"end\n")
    pieces = read(path, 20, tail.position)
    while more := read(path, 20, pieces.position).lines:
        pieces = Tail((*pieces.lines, *more), read(path, 20, pieces.position).position)
    assert "".join(pieces.lines).endswith("xxxend")
    file.close()


def test_a_disk_that_is_full_is_the_writers_to_hear_of(tmp_path: Path) -> None:
    """And when there is room again it goes on."""
    (tmp_path / "logs").mkdir()
    path = path_of(str(tmp_path), "web")
    file = LogFile(path)
    file.write(b"one\n")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._number)
    os.close(full)
    with pytest.raises(OSError, match="No space"):
        file.write(b"two\n")
    file.write(b"three\n")
    assert read(path, 10).lines == ("one", "three")
    file.close()


@pytest.mark.parametrize("title", ["", "../x", "a/b", "a" * 161, "a b"])
def test_a_title_that_is_no_name_has_no_file(title: str) -> None:
    """It comes from a request."""
    with pytest.raises(ValueError, match="no process"):
        path_of("/run", title)


@pytest.mark.parametrize("after", ["x", "1", "1:2", "1:2:", ":1:2", "1:2:3:4", "-1:2:3"])
def test_a_position_that_is_none_is_refused(path: str, after: str) -> None:
    """So does this."""
    with pytest.raises(ValueError, match="no position"):
        read(path, 1, after)


def test_the_limits_are_what_they_say() -> None:
    """An answer of lines that are all escapes still is one answer."""
    assert log_files.LINES_MAX == 1000
    assert READ_MAX < FILE_MAX
