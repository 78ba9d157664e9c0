"""The configuration that the nursery keeps."""

from __future__ import annotations

import os

import pytest

from supervisor.errors import ConfigurationError
from supervisor.kept import Hangups, Kept

OLD = "[breakers.database]\n"
NEW = "[breakers.database]\nfailure_threshold = 4\n[supervisor]\nlog_level = 'error'\n"


def memory(data: bytes) -> int:
    """A memory file with that content."""
    number = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(number, data)
    return number


def is_open(number: int) -> bool:
    """True if the descriptor is one."""
    return os.path.exists(f"/proc/self/fd/{number}")


def test_a_text_that_came_whole_is_kept_and_its_descriptor_closed() -> None:
    """The next daemon begins with it."""
    kept = Kept("/etc/breakerd.toml", OLD)
    kept.problem = "wrong before"
    number = memory(NEW.encode())
    settings = kept.take([number])
    assert kept.problem == ""
    assert (settings.log_level, settings.file) == ("error", "/etc/breakerd.toml")
    assert (kept.text, is_open(number)) == (NEW, False)
    assert kept.take([memory(NEW.encode())]) == settings


@pytest.mark.parametrize(
    "data", [b"[breakers", b"[breakers.x]\nfailure_threshold = 0", b"# \xff", b"#" * (2 << 20)]
)
def test_a_text_that_cannot_be_used_leaves_the_old_one(data: bytes) -> None:
    """Whoever wrote it; the descriptor is closed as well."""
    kept = Kept("/etc/breakerd.toml", OLD)
    number = memory(data)
    with pytest.raises(ConfigurationError):
        kept.take([number])
    assert (kept.text, is_open(number)) == (OLD, False)


def test_a_text_that_did_not_come_is_told() -> None:
    """Out of descriptors, the message comes without its own."""
    with pytest.raises(ConfigurationError, match="no free descriptor"):
        Kept("", OLD).take([])
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(ConfigurationError, match="Illegal seek"):
        Kept("", OLD).take([read])
    assert not is_open(read)


def test_a_hangup_is_told_to_each_daemon_until_one_has_done_it() -> None:
    """Once each, again where the queue was full, and not at all when it is done."""
    hangups = Hangups()
    heard: list[bytes] = []

    def hear(data: bytes) -> bool:
        heard.append(data)
        return True

    assert not hangups.tell(10, hear)
    hangups.came()
    assert not hangups.tell(10, lambda _: False)
    assert hangups.tell(10, hear)
    assert not hangups.tell(10, hear)
    hangups.done(0)
    assert hangups.tell(11, hear)
    hangups.came()
    assert hangups.tell(11, hear)
    hangups.done(1)
    assert hangups.tell(12, hear)
    hangups.done(2)
    hangups.done(1)
    assert not hangups.tell(13, hear)
    assert heard == [b"H" + number.to_bytes(8, "big") for number in (1, 1, 2, 2)]


def test_a_first_file_is_kept_by_its_path() -> None:
    """None was there at the start; the next daemon and the next reload know it."""
    kept = Kept("", "")
    kept.appeared = lambda: "/etc/first.toml"
    assert kept.take([memory(NEW.encode())]).file == "/etc/first.toml"
    assert (kept.file, kept.text) == ("/etc/first.toml", NEW)
