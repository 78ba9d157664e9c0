"""What a start tells its nursery, and what it waits for."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import descriptors, start
from supervisor.descriptors import (
    P_BEAT,
    P_PHASE,
    PHASE_CHECKPOINT,
    PHASE_STARTED,
    PHASE_STARTING,
    Inheritance,
)
from supervisor.errors import ConfigurationError
from supervisor.settings import SupervisorSettings
from supervisor.starting import Starting, silent_s
from tests.supervisor.journals import BOOT


class Rig:
    """A start with a pulse page, and the nursery's end of its channel."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.pulse = memoryview(bytearray(64)).cast("Q")
        self.begin_by(print)

    def begin_by(self, wait: Callable[[float], object]) -> Starting:
        """A start that waits by that."""
        self.starting = Starting(self.pulse, self.theirs, lambda: 1, wait)
        return self.starting


@pytest.fixture
def rig() -> Iterator[Rig]:
    """One that begins."""
    made = Rig()
    yield made
    made.ours.close()
    made.theirs.close()


def inherited(folder: Path) -> Inheritance:
    """What a daemon there gets."""
    return Inheritance(-1, -1, -1, -1, 1, 0.0, "", str(folder), str(folder / "state"), 0, ())


@pytest.mark.parametrize("shortage", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_start_without_room_for_its_checkpoint_waits_and_then_begins(
    rig: Rig, tmp_path: Path, shortage: int
) -> None:
    """Also where there is none yet; it beats meanwhile, says why, and its death then blames no state."""
    seen: list[tuple[int, bool]] = []

    def read(
        given: Inheritance,
        boot: int,
        settings: SupervisorSettings,
        now: float,
        phase: Callable[[int], object] = print,
    ) -> start.Begun:
        phase(PHASE_CHECKPOINT)
        if len(seen) < 3:
            raise OSError(shortage, os.strerror(shortage))
        return start.begin(given, boot, settings, now, phase)

    def wait(_seconds: float) -> None:
        seen.append((rig.pulse[P_PHASE], bool(rig.pulse[P_BEAT])))
        rig.pulse[P_BEAT] = 0

    rig.begin_by(wait).read = read
    begun = rig.starting.begin(inherited(tmp_path), BOOT, SupervisorSettings())
    begun.journal.close()
    assert seen == [(PHASE_STARTING, True)] * 3
    said = descriptors.receive(rig.ours)
    assert said is not None
    assert said[0] == b"Swaits for room for the checkpoint: " + os.strerror(shortage).encode()
    assert descriptors.receive(rig.ours) is None, "once"


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EROFS, errno.ELOOP, errno.EPERM])
def test_a_directory_of_no_use_is_one_sentence(rig: Rig, tmp_path: Path, refusal: int) -> None:
    """It names the file and the cause; waiting would not mend it, and the state is not blamed for it."""

    def refuse(*_: object) -> start.Begun:
        raise OSError(refusal, os.strerror(refusal), "/run/here/checkpoint")

    rig.starting.read = refuse
    with pytest.raises(ConfigurationError) as caught:
        rig.starting.begin(inherited(tmp_path), BOOT, SupervisorSettings())
    assert str(caught.value) == f"/run/here/checkpoint: cannot be used: {os.strerror(refusal)}"
    assert rig.pulse[P_PHASE] == PHASE_STARTING


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (OSError(errno.EMFILE, "none left"), PHASE_STARTING),
        (MemoryError(), PHASE_STARTING),
        (TypeError("what it read"), PHASE_CHECKPOINT),
    ],
)
def test_a_shortage_says_nothing_of_the_state(rig: Rig, error: Exception, phase: int) -> None:
    """What has no cause but the state that was read is the state's."""

    def fail() -> None:
        raise error

    rig.starting.phase(PHASE_CHECKPOINT)
    with pytest.raises(type(error)):
        rig.starting.take_over(fail)
    assert rig.pulse[P_PHASE] == phase
    rig.starting.take_over(lambda: None)
    assert rig.pulse[P_PHASE] == PHASE_STARTED


def test_ready_is_said_until_there_was_room_for_it_and_then_no_more(rig: Rig) -> None:
    """A full channel loses no readiness: nobody would be served by a daemon that serves."""
    rig.theirs.setblocking(False)
    filled = 0
    while descriptors.send(rig.theirs, b"S"):
        filled += 1
    rig.starting.ready()
    for _ in range(filled):
        assert descriptors.receive(rig.ours) == (b"S", [])
    assert descriptors.receive(rig.ours) is None
    rig.starting.ready()
    rig.starting.ready()
    assert descriptors.receive(rig.ours) == (b"R", [])
    assert descriptors.receive(rig.ours) is None


def test_a_nursery_that_gives_no_signs_at_all_is_none_that_hangs() -> None:
    """One of an earlier version, before its restart."""
    assert silent_s(0, 500.0) == 0.0
    assert silent_s(490_000_000_000, 500.0) == 10.0
    assert silent_s(501_000_000_000, 500.0) == 0.0
