"""A program that was started as root becomes the user whose spool it empties, before it opens anything there.

Files that root makes in a user's directory would be in that user's way, and what a user plants there would be
opened by root. Kept are the groups that the user has and the one that may open the supervisor's socket; the
signal at the parent's death, which the kernel forgets here, is set again. Neighbour: `replayer`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import stat
from typing import Final

SET_PDEATHSIG: Final = 1
GET_PDEATHSIG: Final = 2


def become(uid: int, gid: int, socket: str) -> None:
    """Be that user for good; `gid` is taken if the system does not know the user. Raises OSError."""
    groups = [gid]
    with contextlib.suppress(KeyError):
        found = pwd.getpwuid(uid)
        gid, groups = found.pw_gid, os.getgrouplist(found.pw_name, found.pw_gid)
        # Libraries of databases look for their files there, and must not look in root's home.
        os.environ.update(HOME=found.pw_dir, USER=found.pw_name, LOGNAME=found.pw_name)
    groups = sorted({*groups, *_group_of(socket)})
    parent, libc, at_death = os.getppid(), ctypes.CDLL(None, use_errno=True), ctypes.c_int(0)
    libc.prctl(GET_PDEATHSIG, ctypes.byref(at_death), 0, 0, 0)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if at_death.value:
        libc.prctl(SET_PDEATHSIG, at_death.value, 0, 0, 0)
        if os.getppid() != parent:  # it died in between, and nobody told us
            signal.raise_signal(at_death.value)


def _group_of(socket: str) -> list[int]:
    """The group that may use the supervisor's socket, if there is one."""
    try:
        found = os.stat(socket)
    except OSError:
        return []
    return [found.st_gid] if found.st_mode & stat.S_IWGRP else []
