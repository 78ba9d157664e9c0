"""Where spools of one database are, which belong to none, and what keeps a user from emptying one.

A spool is known by its directory: that of the configuration, and the folders named after the database's mark,
beside the default file and inside the configured directory. What cannot be used is told of in a sentence that
names it and says what to do; nothing here is opened, changed or removed. Neighbours: `places` (the names),
`replayer` (who asks). Knows no record.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Collection, Iterator
from typing import Final

from workers.memory.config import MemoryConfig
from workers.memory.leases import LEASES, MANAGED
from workers.memory.locks import ProcessLock
from workers.memory.places import home, spool_place
from workers.memory.spool_views import DAMAGED, FILE, LOCK

BY_MARK: Final = re.compile(r"spool-[0-9a-f]{16}")
HOW: Final = "python -m workers.memory.replayer FILE"


def places_of(config: MemoryConfig) -> list[str]:
    """The directories that hold, or held, what this database did not take, the configured one first."""
    own = config.mark
    named = [os.path.join(config.spool_directory, f"spool-{own}")]
    with contextlib.suppress(RuntimeError):  # no home
        named.append(spool_place(own))
    found = [os.path.realpath(config.spool_directory)]
    for path in map(os.path.realpath, named):
        if path not in found and os.path.isdir(path):
            found.append(path)
    return found


def strangers(configs: Collection[MemoryConfig]) -> Iterator[tuple[str, str]]:
    """Spools, by the mark of a database, that belong to none of these and that nobody looks after; and a
    sentence on each.
    """
    known = {path for config in configs for path in places_of(config)}
    for folder in sorted({one for config in configs for one in _folders(config)}):
        for name in _names(folder):
            path = os.path.realpath(os.path.join(folder, name))
            if not BY_MARK.fullmatch(name) or path in known or not os.path.isdir(path):
                continue
            files = [one for one in _names(path) if one.endswith(FILE)]
            if files and not _attended(path, files):
                yield (
                    path,
                    (
                        f"{path} holds {len(files)} files of another database, and nobody looks after it: "
                        f"if that is this one's former URL, move its *{FILE}* files into its directory; "
                        f"else start a replayer with that URL ({HOW})"
                    ),
                )


def _folders(config: MemoryConfig) -> set[str]:
    """Where spools of several databases may lie beside each other."""
    folder, name = os.path.split(config.spool_directory)
    folders = {config.spool_directory, *([folder] if BY_MARK.fullmatch(name) else [])}
    with contextlib.suppress(RuntimeError):  # no home
        folders.add(str(home()))
    return folders


def _attended(directory: str, files: Collection[str]) -> bool:
    locks = [*LEASES, MANAGED, *(name + LOCK for name in files)]
    return any(ProcessLock(os.path.join(directory, name)).elsewhere() for name in locks)


def trouble_of(directory: str) -> str:
    """Why this process must not or cannot empty this spool; "" = it can."""
    try:
        found = os.stat(directory)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is no directory"
    if found.st_uid != os.geteuid():
        return (
            f"{directory} belongs to {_user(found.st_uid)}, and this replayer is {_user(os.geteuid())}: "
            f"start one as {_user(found.st_uid)} ({HOW}); nothing was touched"
        )
    mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_mode & 0o022:
        return f"{directory} may be written to by others ({mode}): see what is in it, and chmod 0700 it"
    if found.st_mode & 0o700 != 0o700:
        return f"{directory} cannot be used by its own user ({mode}): chmod 0700 it"
    if not _usable(directory, os.R_OK | os.W_OK | os.X_OK):
        return f"{directory} is on a file system that cannot be written to: mount it anew, or move the spool"
    return ""


def files_in_the_way(directory: str) -> Iterator[tuple[str, str]]:
    """Files of a spool that this process cannot use although the directory is its own; a sentence on each."""
    for name in _names(directory):
        path = os.path.join(directory, name)
        with contextlib.suppress(OSError):  # done, and removed, meanwhile
            found = os.stat(path)
            if FILE not in name or name.endswith(DAMAGED) or _usable(path, os.R_OK | os.W_OK):
                continue
            me, mode = _user(os.geteuid()), stat.S_IMODE(found.st_mode)
            todo = f"chown it to {me}" if found.st_uid != os.geteuid() else "chmod 0600 it"
            yield (
                path,
                (
                    f"{path} belongs to {_user(found.st_uid)} (mode {mode:04o}), and {me} cannot read and "
                    f"write it: {todo}; what is in it waits"
                ),
            )


def _usable(path: str, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
