"""What the nursery keeps of workers: the segment and the pidfd of each, the doorbell of each user.

Deposited by a daemon, given to the next one, dropped when a daemon has counted a dead worker to its end.
Written and read by the nursery alone. A daemon dies between its deposit and its commit: the next one finds
the deposit and adopts it; between the drop and its answer: the next one drops it again.
Neighbours: `nursery` (the only caller), `store` (systemd's copy of it). Knows no breaker.
"""

from __future__ import annotations

import os
from typing import Any, Final

from ipc.errors import ProtocolError
from ipc.wire import read_object
from supervisor import descriptors
from supervisor.descriptors import Held
from supervisor.store import Store

HELD_MAX: Final = 8192
"""Workers whose descriptors are kept."""


class Deposits:
    """The descriptors of all workers, by nonce."""

    def __init__(self, store: Store, stored: tuple[tuple[str, int], ...]) -> None:
        """`stored`: what systemd kept for an earlier nursery."""
        self._store = store
        self._held, self._bells = store.recover(stored)

    def held(self) -> tuple[Held, ...]:
        """All of them."""
        return tuple(self._held.values())

    def bells(self) -> tuple[tuple[int, int], ...]:
        """(uid, doorbell) of every user who has one."""
        return tuple(self._bells.items())

    def keep_bell(self, uid: int, bell: int) -> None:
        """Keep a user's doorbell in place of an earlier one."""
        self.drop_bell(uid)
        self._bells[uid] = bell
        self._store.keep_bell(uid, bell)

    def drop_bell(self, uid: int) -> None:
        """Close it: this user has no workers any more."""
        if uid in self._bells:
            os.close(self._bells.pop(uid))
            self._store.drop_bell(uid)

    def deposit(self, nonce: str, about: bytes, numbers: list[int]) -> bool:
        """Keep a worker's two descriptors; True = systemd has them, too.

        A truncated deposit is not kept: the worker holds its own descriptors still.
        """
        if len(numbers) == 2 and nonce not in self._held and len(self._held) < HELD_MAX:
            self._held[nonce] = Held(nonce, numbers[0], numbers[1], _object(about))
            self._store.keep(self._held[nonce])
        else:
            descriptors.close_all(numbers)
        return self._store.has(nonce)

    def drop(self, nonce: str) -> None:
        """Close them: the worker was counted to its end."""
        held = self._held.pop(nonce, None)
        if held:
            descriptors.close_all([held.memory, held.pidfd])
            self._store.drop(nonce)


def _object(data: bytes) -> dict[str, Any]:
    """What the daemon wrote about a worker; empty if it was cut off."""
    try:
        return read_object(data)
    except ProtocolError:
        return {}
