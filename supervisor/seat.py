"""The control socket over the nursery's life: if its file disappears, another is made in the same place.

A cleaner of /tmp or an `rm -rf` takes the file away and leaves the listening socket without a name; nobody
could come any more. What is there instead and listens, or is no socket, is somebody's: left alone, told once.
Who dies in between: the nursery, and the next one binds anyway; the daemon, and the next inherits it.
Neighbours: `nursery` (the only caller), `listener` (how a socket is made).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Final

from ipc.control import check_owner
from ipc.errors import SupervisorUnavailable
from supervisor.errors import ConfigurationError
from supervisor.listener import listen

log = logging.getLogger("breakerd.nursery")

LOOK_S: Final = 1.0
"""How often it is looked whether the file is there."""
FOLDER_MODE: Final = 0o750


class Seat:
    """The listening socket and its file. `activated`: the file is systemd's to remove."""

    def __init__(self, path: str, listener: socket.socket, activated: bool) -> None:
        self.path = path
        self.listener = listener
        self.activated = activated
        self.untold = False
        """The daemon that lives does not have the new one yet."""
        self._found = _look_at(path)
        self._looked_at = 0.0
        self._said = ""

    def look(self, now: float) -> None:
        """See whether the file is still ours, now and then; make another one if nothing is in its place."""
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        found = _look_at(self.path)
        if found is not None and self._found is not None and _same(found, self._found):
            self._found, self._said = found, ""  # somebody may have given it to a group
            return
        try:
            os.makedirs(os.path.dirname(self.path), FOLDER_MODE, exist_ok=True)
            check_owner(self.path)
            listener = listen(self.path)
        except (ConfigurationError, SupervisorUnavailable, OSError) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.error("the control socket's file is gone, and no other is made: %s", error)  # noqa: TRY400 (one line)
            return
        with contextlib.suppress(OSError):
            if self._found is not None:
                os.chown(self.path, -1, self._found.st_gid)
                os.chmod(self.path, self._found.st_mode & 0o777)
        advice = "; restart breakerd.socket, too" if self.activated else ""
        log.warning("%s was gone: a new socket is there%s", self.path, advice)
        self.listener.close()
        self.listener, self.activated, self.untold = listener, False, True
        self._found, self._said = _look_at(self.path), ""

    def remove(self) -> None:
        """Leave no socket behind that nobody listens on."""
        if self.activated:
            return
        try:
            os.unlink(self.path)
        except OSError as error:
            log.warning("cannot remove %s: %s", self.path, error.strerror)


def _look_at(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
