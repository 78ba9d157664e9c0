"""The doorbells: one eventfd for each user, rung by its workers when the daemon should read a ring at once.

All who hold a copy of an open file description share its flags and its counter, so no two users share one.
The daemon believes nothing of it: it waits for rings edge by edge in an epoll of its own, and reads with
RWF_NOWAIT, whatever a worker did to O_NONBLOCK. A user who rings without pause is not listened to until the
pause is over; the daemon's tick reads its rings all the same.
The nursery keeps a copy, so that workers ring the same bell in the next life. A daemon that dies before the
nursery has the copy leaves workers whose bell nobody hears: the tick is the guarantee.
Neighbours: `hello` (gives bells away), `daemon` (listens). Knows no ring.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from supervisor import descriptors
from supervisor.event_loop import Watcher

RINGS_MAX: Final = 8
"""Rings of one user that are heard between two calls of `listen_again`."""
PAUSE_S: Final = 0.02
"""How often `listen_again` is to be called."""
EDGE: Final = select.EPOLLIN | select.EPOLLET
_COUNTER_BYTES: Final = 8

Send = Callable[[bytes, tuple[int, ...]], bool]
"""Sends to the nursery; False = it cannot take it now."""


class Doorbells:
    """Owns the bells by uid. `rung` is called in the loop when at least one was rung."""

    def __init__(
        self, kept: Mapping[int, int], loop: Watcher, send: Send, rung: Callable[[], object]
    ) -> None:
        """`kept`: what the nursery has of an earlier life."""
        self._loop = loop
        self._send = send
        self._rung = rung
        self._bells = dict(kept)
        self._uids = {bell: uid for uid, bell in kept.items()}
        self._unsaved = set[int]()
        """Users whose bell the nursery could not take yet."""
        self._heard: Counter[int] = Counter()
        """Rings by bell since it was last listened to again."""
        self._muted: set[int] = set()
        self._epoll = select.epoll()
        for bell in self._uids:
            self._epoll.register(bell, EDGE)

    def start(self) -> None:
        """Begin to listen."""
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def of(self, uid: int) -> int:
        """This user's bell, made when it is first asked for. Raises OSError if there is no descriptor."""
        bell = self._bells.get(uid)
        if bell is None:
            bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                self._epoll.register(bell, EDGE)
            except OSError:
                os.close(bell)
                raise
            self._bells[uid], self._uids[bell] = bell, uid
            self._unsaved.add(uid)
            self._save(uid)
        return bell

    def keep(self, uids: Iterable[int]) -> None:
        """Now and then: forget the bells of all other users, and save what could not be saved."""
        wanted = set(uids)
        for uid in [one for one in self._bells if one not in wanted]:
            if self._send(descriptors.UNBELL + _number(uid), ()):
                self._forget(uid)
        for uid in list(self._unsaved):
            self._save(uid)

    def _save(self, uid: int) -> None:
        if self._send(descriptors.BELL + _number(uid), (self._bells[uid],)):
            self._unsaved.discard(uid)

    def _forget(self, uid: int) -> None:
        bell = self._bells.pop(uid)
        del self._uids[bell], self._heard[bell]
        self._muted.discard(bell)
        self._unsaved.discard(uid)
        # Copies may live in other processes: closing ours would leave it in the epoll.
        self._epoll.unregister(bell)
        os.close(bell)

    def _ready(self) -> None:
        """Some were rung: reset them first, tell it afterwards, so that a later ring is never swallowed."""
        heard = False
        for bell, _ in self._epoll.poll(0):
            heard = True
            self._heard[bell] += 1
            if self._heard[bell] >= RINGS_MAX:
                self._muted.add(bell)
                self._epoll.modify(bell, select.EPOLLET)
            # A full counter would make its owner's other workers wait. An older kernel refuses: no harm.
            with contextlib.suppress(OSError):
                os.preadv(bell, [bytearray(_COUNTER_BYTES)], -1, os.RWF_NOWAIT)
        if heard:
            self._rung()

    def listen_again(self) -> None:
        """Every PAUSE_S: the pause of those who rang too often is over."""
        self._heard.clear()
        for bell in self._muted:
            with contextlib.suppress(OSError):
                os.preadv(bell, [bytearray(_COUNTER_BYTES)], -1, os.RWF_NOWAIT)
            self._epoll.modify(bell, EDGE)
        self._muted.clear()


def _number(uid: int) -> bytes:
    return uid.to_bytes(descriptors.UID_BYTES, "big")
