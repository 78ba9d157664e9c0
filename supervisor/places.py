"""Where the supervisor keeps its socket, its state and its configuration. Makes nothing, reads no file.

Neighbours: `ipc.control` has the same rule for the asking side; `main` makes the directories;
`settings` reads the configuration file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ipc.control import PATH_MAX, SOCKET_NAME, SOCKET_VARIABLE, SYSTEM_DIRECTORY, runtime_directory
from supervisor.errors import ConfigurationError

CONFIGURATION_FILE: Final = "/etc/breakerd/breakerd.toml"
"""Read when no file is named and this one exists."""


@dataclass(frozen=True, slots=True)
class Places:
    """Absolute paths; none of them need exist yet."""

    runtime: str
    """Directory of socket, lock and checkpoint: may be lost with the host."""
    state: str
    """Directory of the copy that survives a reboot."""
    socket: str
    """The control socket."""
    config: str | None
    """The configuration file; None = there is none."""


def places(
    runtime_dir: str | None = None,
    state_dir: str | None = None,
    config: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Places:
    """The places for what was given on the command line. Raises ConfigurationError if no socket can be there.

    The runtime directory is the given one, else that of BREAKERD_SOCKET, else systemd's RUNTIME_DIRECTORY,
    else /run/breakerd if it exists, else the user's. The state directory is the given one, else systemd's
    STATE_DIRECTORY, else $XDG_STATE_HOME/breakerd, else ~/.local/state/breakerd.
    """
    env = os.environ if environ is None else environ
    socket = _socket(runtime_dir, env)
    length = len(os.fsencode(socket))
    if length > PATH_MAX:
        text = f"{socket}: a socket path has at most {PATH_MAX} bytes, this one has {length}"
        raise ConfigurationError((text,))
    return Places(
        runtime=os.path.dirname(socket),
        state=os.path.abspath(state_dir or _state(env)),
        socket=socket,
        config=os.path.abspath(config) if config else default_configuration(),
    )


def default_configuration() -> str | None:
    """The configuration file that is read when none is named; None = it does not exist."""
    return CONFIGURATION_FILE if os.path.lexists(CONFIGURATION_FILE) else None


def _socket(runtime_dir: str | None, env: Mapping[str, str]) -> str:
    told = env.get(SOCKET_VARIABLE)
    if runtime_dir:
        folder = runtime_dir
    elif told and told != "off":  # `off` is said to workers: never attach
        return os.path.abspath(told)
    elif env.get("RUNTIME_DIRECTORY"):
        folder = env["RUNTIME_DIRECTORY"].split(":")[0]
    elif os.path.isdir(SYSTEM_DIRECTORY):
        folder = SYSTEM_DIRECTORY
    else:
        folder = runtime_directory()
    return os.path.join(os.path.abspath(folder), SOCKET_NAME)


def _state(env: Mapping[str, str]) -> str:
    if env.get("STATE_DIRECTORY"):
        return env["STATE_DIRECTORY"].split(":")[0]
    home = env.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "breakerd")
