"""Who is at the other end of a Unix socket, as the kernel remembers it from the time of connecting."""

from __future__ import annotations

import array
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final

SO_PEERGROUPS: Final = 59
"""Linux 4.13; not in Python's `socket`."""
GROUPS_MAX: Final = 256
"""Groups of a peer that are read: all that one getsockopt of Python can take."""
_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Its supplementary groups; empty where the kernel does not tell them."""


def peer_of(accepted: socket.socket) -> Peer:
    """Read the credentials and the groups of whoever connected."""
    pid, uid, gid = _CREDENTIALS.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = array.array("I")
    with contextlib.suppress(OSError):  # more than GROUPS_MAX of them: the user database decides alone
        groups.frombytes(accepted.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, groups.itemsize * GROUPS_MAX))
    return Peer(pid, uid, gid, tuple(groups))
