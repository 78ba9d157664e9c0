"""Reading the configuration of a supervisor that serves: whole, at once, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from supervisor import config_file
from supervisor.config_file import check, read
from supervisor.errors import ConfigurationError
from supervisor.settings import FILE_MAX, parse

TEXT = "[breakers.database]\nfailure_threshold = 4\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good file."""
    made = tmp_path / "breakerd.toml"
    made.write_text(TEXT)
    return made


def refused(path: Path) -> str:
    """The one sentence about a file that cannot be read."""
    with pytest.raises(ConfigurationError) as caught:
        read(str(path))
    (error,) = caught.value.errors
    assert error.startswith(f"{path}: ")
    return error.removeprefix(f"{path}: ")


def test_a_good_file_comes_with_its_text_and_settings(file: Path) -> None:
    """The text is what the next daemon begins with."""
    found = check(str(file))
    assert (found.errors, found.text, found.settings) == ((), TEXT, parse(TEXT, str(file)))
    assert found.settings.file == str(file)


def test_every_mistake_is_found(file: Path) -> None:
    """As `settings.load` finds them."""
    file.write_text("[breakers.database]\nfailure_threshold = 0\n[nonsense]\n[control]\ncommanders = 1\n")
    assert len(check(str(file)).errors) == 3
    file.write_text(TEXT + "[breakers.ca")
    (error,) = check(str(file)).errors
    assert error.startswith(f"{file}: line 3, column ")


def test_what_is_no_regular_file_is_refused_at_once(file: Path) -> None:
    """Absent, a directory, a FIFO that nobody writes to, a device that never ends."""
    assert refused(file.with_name("absent")) == "cannot be read: No such file or directory"
    assert refused(file.parent) == "cannot be read: not a regular file"
    fifo = file.with_name("fifo")
    os.mkfifo(fifo)
    reading = threading.Thread(target=refused, args=(fifo,), daemon=True)
    reading.start()
    reading.join(5.0)
    assert not reading.is_alive()
    assert refused(Path("/dev/zero")) == "cannot be read: not a regular file"


def test_limits_and_encoding(file: Path) -> None:
    """A byte too many, and bytes that are no text; FILE_MAX itself is good."""
    file.write_bytes(b"#" * FILE_MAX)
    assert len(read(str(file))) == FILE_MAX
    file.write_bytes(b"#" * (FILE_MAX + 1))
    assert refused(file) == f"larger than {FILE_MAX} bytes"
    file.write_bytes(b"# \xff")
    assert refused(file) == "line 1: not UTF-8"


@pytest.mark.parametrize("size", [0, 20, 3 * config_file.PIECE])
def test_a_file_that_is_written_to_while_it_is_read_is_refused(file: Path, size: int) -> None:
    """Cut off or grown between two reads, as far as the kernel tells."""
    file.write_bytes(b"#" * 2 * config_file.PIECE)

    def meddle(number: int, count: int) -> bytes:
        piece = os.read(number, count)
        os.truncate(file, size)
        return piece

    with pytest.raises(ConfigurationError, match="was written to while it was read; try again"):
        read(str(file), meddle)
