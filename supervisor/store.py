"""The nursery's descriptors in systemd's store: what is kept there, under which names, and how it comes back.

Of each worker three descriptors under one short name: segment, pidfd, and a memory file that says who it is
(`about`). One datagram stores them together, one removes them. Names are short numbers and not nonces,
because systemd hands all names over in one variable, which execve limits to 128 KiB. The doorbells are
stored too, so that the workers of a killed nursery go on ringing the right ones.
Written and read by the nursery alone. It dies between a deposit and its store: the worker still has its
own segment; between a drop and its removal: the daemon finds the tomb held, and drops it again.
Neighbours: `nursery` (the only caller), `notify` (the datagrams).
"""

from __future__ import annotations

import json
import logging
import os
from typing import Final

from ipc.errors import ProtocolError
from ipc.wire import read_object
from supervisor.descriptors import Held, close_all, is_nonce, is_pidfd
from supervisor.notify import Notifier

log = logging.getLogger("breakerd.store")

BELL: Final = "bell"
ABOUT: Final = "breakerd-about"
ABOUT_MAX: Final = 4096
DESCRIPTORS: Final = 3
"""Stored for each worker."""


class Store:
    """What systemd keeps for the next nursery; without systemd it keeps nothing."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._names: dict[str, str] = {}
        """Nonce -> name."""
        self._number = 0

    def keep(self, held: Held) -> None:
        """Store a worker's descriptors."""
        if not self._notifier.active:
            return
        name = self._name()
        self._names[held.nonce] = name
        about = os.memfd_create(ABOUT, os.MFD_CLOEXEC)
        try:
            os.write(about, json.dumps({**held.about, "nonce": held.nonce}).encode())
            self._notifier.store(name, (held.memory, held.pidfd, about))
        finally:
            os.close(about)

    def has(self, nonce: str) -> bool:
        """True if systemd has them: whatever dies now, they are safe."""
        return nonce in self._names and not self._notifier.waiting

    def drop(self, nonce: str) -> None:
        """Remove them: the worker was counted to its end."""
        name = self._names.pop(nonce, None)
        if name is not None:
            self._notifier.unstore(name)

    def recover(self, stored: tuple[tuple[str, int], ...]) -> tuple[dict[str, Held], dict[int, int]]:
        """(nonce -> held, uid -> doorbell) as an earlier life left them; a part of a worker is removed."""
        groups: dict[str, list[int]] = {}
        for name, number in stored:
            groups.setdefault(name, []).append(number)
        bells = self._recover_bells(groups)
        found: dict[str, Held] = {}
        for name, numbers in groups.items():
            held = _worker(numbers)
            if held is None or held.nonce in found:
                log.warning("what systemd kept under the name %s is no worker's: closed", name)
                close_all([held.memory, held.pidfd] if held else numbers)
                self._notifier.unstore(name)
                continue
            self._names[held.nonce] = name
            found[held.nonce] = held
        return found, bells

    def _recover_bells(self, groups: dict[str, list[int]]) -> dict[int, int]:
        """Take the doorbells out of `groups`. One that all users shared (before 0.2) is closed: it is rung
        in vain until its workers say hello again, and the daemon's tick reads them meanwhile.
        """
        bells = {}
        for name in [one for one in groups if one.partition("-")[0] == BELL]:
            numbers, uid = groups.pop(name), name.partition("-")[2]
            if len(numbers) == 1 and uid.isdecimal():
                bells[int(uid)] = numbers[0]
            else:
                close_all(numbers)
                self._notifier.unstore(name)
        return bells

    def keep_bell(self, uid: int, bell: int) -> None:
        """Store a user's doorbell."""
        self._notifier.store(f"{BELL}-{uid}", (bell,))

    def drop_bell(self, uid: int) -> None:
        """Remove it."""
        self._notifier.unstore(f"{BELL}-{uid}")

    def _name(self) -> str:
        """A short name that nothing in the store has."""
        taken = set(self._names.values())
        while (name := f"{self._number:x}") in taken:
            self._number += 1
        self._number += 1
        return name


def _worker(numbers: list[int]) -> Held | None:
    """One worker from its three descriptors, in whatever order they came; closes `about` if it is one."""
    if len(numbers) != DESCRIPTORS:
        return None
    abouts = [number for number in numbers if _target(number).startswith(f"/memfd:{ABOUT}")]
    pidfds = [number for number in numbers if is_pidfd(number)]
    memories = [number for number in numbers if number not in (*abouts, *pidfds)]
    if not len(abouts) == len(pidfds) == len(memories) == 1:
        return None
    about = _read(abouts[0])
    nonce = about.pop("nonce", "") if about else ""
    if about is None or not is_nonce(nonce):
        return None
    os.close(abouts[0])
    return Held(nonce, memories[0], pidfds[0], about)


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def _read(number: int) -> dict[str, object] | None:
    """The JSON object in a memory file; None = there is none."""
    try:
        return read_object(os.pread(number, ABOUT_MAX, 0))
    except (OSError, ProtocolError):
        return None
