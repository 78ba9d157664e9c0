"""The control socket: bound under a temporary name and renamed, so that the path is never half made.

Neighbours: `nursery`, which keeps the listening socket over every daemon's death. Takes over a path only
where nobody listens any more; what is no socket, or another program's, is left alone.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from typing import Final

from ipc.control import PATH_MAX
from supervisor.errors import ConfigurationError

log = logging.getLogger("breakerd.listener")

BACKLOG: Final = 4096
"""Clients that may wait on the socket while a daemon restarts (the kernel's own limit may be lower)."""
MODE: Final = 0o660


def listen(path: str) -> socket.socket:
    """A listening, non-blocking socket at `path`. Raises ConfigurationError; call with the lock held."""
    temporary = f"{path}.{os.getpid()}"
    if len(os.fsencode(temporary)) > PATH_MAX:
        room = PATH_MAX - len(os.fsencode(temporary)) + len(os.fsencode(path))
        raise ConfigurationError((f"{path}: the path of the control socket may have at most {room} bytes",))
    _check_free(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        if os.path.lexists(temporary):
            os.unlink(temporary)
        listener.bind(temporary)
        os.chmod(temporary, MODE)
        listener.listen(BACKLOG)
        os.rename(temporary, path)
    except OSError as error:
        listener.close()
        raise ConfigurationError((f"{path}: cannot make the control socket: {error.strerror}",)) from error
    return listener


def adopt(number: int, path: str) -> socket.socket | None:
    """The listening socket that systemd made; None = its path is gone. Raises ConfigurationError."""
    listener = socket.socket(fileno=number)
    listener.setblocking(False)
    bound = listener.getsockname()
    if bound == path and os.path.lexists(path):
        return listener
    listener.close()
    if bound == path:
        log.warning("%s: the socket unit's file is gone, a new one is made; restart breakerd.socket", path)
        return None
    text = f"{path}: the socket unit listens on {bound}; let ListenStream= and --runtime-dir name one place"
    raise ConfigurationError((text,))


def _check_free(path: str) -> None:
    """Refuse a path that something else occupies."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError((f"{path}: {error.strerror}",)) from error
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError((f"{path}: is {_what(mode)}, not a socket; move it away",))
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(path)
    except ConnectionRefusedError:
        return
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError((f"{path}: somebody's socket is there: {error.strerror}",)) from error
    finally:
        probe.close()
    raise ConfigurationError((f"{path}: another program listens on this socket; nothing was changed",))


def _what(mode: int) -> str:
    """A word for the type of a file."""
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a regular file" if stat.S_ISREG(mode) else "a device"
