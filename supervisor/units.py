"""`breakerd install-units`: systemd's files for the environment it runs from, written below a prefix.

    PREFIX/lib/systemd/system/breakerd.service, breakerd.service.d/socket.conf, breakerd.socket
    PREFIX/lib/sysusers.d/breakerd.conf      the user and the group
    PREFIX/lib/tmpfiles.d/breakerd.conf      the directory of the socket
    PREFIX/share/breakerd/worker.conf        an example for the services that use it

The files are those of the folder `systemd`; the commands and ProtectHome= depend on the environment.
What somebody else put there is neither overwritten nor removed. Neighbours: `main` calls it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from dataclasses import dataclass
from typing import Final

from supervisor.errors import ConfigurationError

MARK: Final = "# Written by `breakerd install-units`; `breakerd install-units --remove` takes it away.\n"
PLACES: Final = {
    "breakerd.service": "lib/systemd/system/breakerd.service",
    "breakerd.socket": "lib/systemd/system/breakerd.socket",
    "socket.conf": "lib/systemd/system/breakerd.service.d/socket.conf",
    "breakerd.sysusers.conf": "lib/sysusers.d/breakerd.conf",
    "breakerd.tmpfiles.conf": "lib/tmpfiles.d/breakerd.conf",
    "worker.conf": "share/breakerd/worker.conf",
}
"""File in the folder `systemd` -> where it goes."""
PREFIX: Final = "/usr/local"
COMMAND: Final = "/usr/bin/breakerd run"
"""What stands in the shipped service for the command of this environment."""
CONTROL: Final = "/usr/bin/supervisorctl"
"""The same for its control command."""
HOMES: Final = ("/home", "/root", "/run/user")
"""What ProtectHome=yes hides."""
TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 (what PrivateTmp=yes hides)
NEXT: Final = (
    "systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload",
    "systemctl enable --now breakerd            # or, started by the first worker: breakerd.socket",
)


@dataclass(frozen=True, slots=True)
class Home:
    """The environment that the service is to run from."""

    command: str
    """The command line of `breakerd run`."""
    control: str
    """The command line of `supervisorctl`, without its words."""
    paths: tuple[str, ...]
    """What the service's user must be able to read."""


def home() -> Home:
    """This environment."""
    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command, script = _command("breakerd", "supervisor.main")
    control, _ = _command("supervisorctl", "supervisor.ctl.main")
    return Home(f"{command} run", control, (script, os.path.realpath(sys.executable), source))


def _command(name: str, module: str) -> tuple[str, str]:
    """A command line of this environment, and the file that it runs: its script, else the interpreter."""
    script = os.path.join(sysconfig.get_path("scripts"), name)
    if os.path.exists(script):
        return _quoted(script), script
    return f"{_quoted(sys.executable)} -P -m {module}", sys.executable


def install(prefix: str, where: Home) -> list[str]:
    """Write the files; the lines to print. Raises ConfigurationError before anything is written."""
    texts = {path: MARK + _text(name, where) for name, path in _targets(prefix).items()}
    foreign = [path for path in texts if _state(path) == "foreign"]
    if foreign:
        text = "is there and was not written by install-units; move it away, or take another --prefix"
        raise ConfigurationError(tuple(f"{path}: {text}" for path in foreign))
    for path, text in texts.items():
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(f"{path}.new", 0o644)
            os.replace(f"{path}.new", path)
        except OSError as error:
            raise ConfigurationError((f"{path}: cannot be written: {error.strerror}",)) from error
    return [*(f"wrote {path}" for path in texts), *warnings(where), "then:", *(f"  {line}" for line in NEXT)]


def remove(prefix: str) -> list[str]:
    """Take away what `install` wrote, and the directories that are empty then; the lines to print."""
    lines: list[str] = []
    for path in _targets(prefix).values():
        state = _state(path)
        if state == "foreign":
            lines.append(f"left {path}: it was not written by install-units")
        elif state == "ours":
            try:
                os.unlink(path)
            except OSError as error:
                raise ConfigurationError((f"{path}: cannot be removed: {error.strerror}",)) from error
            lines.append(f"removed {path}")
            _prune(os.path.dirname(path), prefix)
    return lines or [f"nothing of breakerd is below {prefix}"]


def warnings(where: Home) -> list[str]:
    """What would keep the service's user from this environment."""
    found = [
        f"warning: {path} is in a temporary directory, which the service does not see (PrivateTmp=)"
        for path in where.paths
        if path.startswith(tuple(f"{folder}/" for folder in TEMPORARY))
    ]
    for path in where.paths:
        closed = next((folder for folder in _ancestors(path) if not _passable(folder)), None)
        if closed is not None:
            found.append(f"warning: the user breakerd cannot reach {path}: {closed} is closed to others")
    return list(dict.fromkeys(found))


def _targets(prefix: str) -> dict[str, str]:
    return {name: os.path.join(os.path.abspath(prefix), place) for name, place in PLACES.items()}


def folder() -> str:
    """Where the shipped files are: in the wheel beside this file, in a checkout at its top."""
    here = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(here, "systemd")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(here), "systemd")


def _text(name: str, where: Home) -> str:
    """A shipped file, made true for this environment. Raises ConfigurationError."""
    path = os.path.join(folder(), name)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigurationError((f"{path}: cannot be read: {error.strerror}; install again",)) from error
    text = text.replace(COMMAND, where.command).replace(CONTROL, where.control)
    if any(path.startswith(tuple(f"{home}/" for home in HOMES)) for path in where.paths):
        text = text.replace("ProtectHome=yes", "ProtectHome=read-only")
    return text


def _state(path: str) -> str:
    """none, ours or foreign."""
    if not os.path.lexists(path):
        return "none"
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        if file.readline() == MARK:
            return "ours"
    return "foreign"


def _prune(directory: str, prefix: str) -> None:
    """Remove empty directories from here up to the prefix, the prefix itself not."""
    top = os.path.abspath(prefix)
    while directory.startswith(f"{top}/"):
        try:
            os.rmdir(directory)
        except OSError:
            return
        directory = os.path.dirname(directory)


def _ancestors(path: str) -> list[str]:
    parts = os.path.dirname(path).split("/")
    return ["/".join(parts[: count + 1]) or "/" for count in range(len(parts))]


def _passable(directory: str) -> bool:
    """True if everybody may pass through."""
    try:
        return bool(os.stat(directory).st_mode & 0o001)
    except OSError:
        return False


def _quoted(path: str) -> str:
    """A path as systemd's command lines want it."""
    escaped = path.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if " " in escaped or "\\" in escaped else escaped
