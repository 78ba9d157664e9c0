"""The command `breakerd`: run the supervisor in the foreground, write systemd's files, or run the demo.

Neighbours: `nursery` (which it becomes), `settings` (checked before anything starts), `workers.demo`,
which it executes as a program of its own, since supervisor and workers never import each other.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from importlib import metadata
from typing import Final

from ipc.control import check_owner, temporary_directory
from ipc.errors import SupervisorUnavailable
from supervisor import config_file, priority, settings, units
from supervisor.errors import AlreadyRunning, ConfigurationError
from supervisor.nursery import EXIT_CONFIGURATION, Nursery
from supervisor.places import Places, places

EXIT_ALREADY_RUNNING: Final = 100
RUNTIME_MODE: Final = 0o750
PRIVATE_MODE: Final = 0o700
CLASH: Final = (
    "the distribution `supervisor` (PyPI's process manager) is installed in this environment: it has an "
    "import package `supervisor` and a command `supervisorctl` too. Install breakerd into a virtual "
    "environment of its own; its control command is also there as `breakerctl`, which never collides."
)


def main(arguments: list[str] | None = None) -> int:
    """Run `breakerd`; exit codes: 0 asked to stop, 71 failed, 78 configuration, 100 already running."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        refuse_clash()
        if given and given[0] == "demo":
            os.execv(sys.executable, [sys.executable, "-P", "-m", "workers.demo", *given[1:]])  # noqa: S606 (ours)
        if given and given[0] == "install-units":
            return _install(given[1:])
        options = _parser().parse_args(given[1:] if given and given[0] == "run" else given)
        where = places(options.runtime_dir, options.state_dir, options.config)
        text = config_file.read(where.config) if where.config else ""
        told = settings.parse(text, where.config) if where.config else settings.SupervisorSettings()
        priority.begin(told.log_level.upper(), os.environ, told.log_format)
        _make_directories(where)
        return Nursery(where, text).run()
    except ConfigurationError as error:
        for line in error.errors:
            priority.complain(f"breakerd: {line}", os.environ)
        return EXIT_CONFIGURATION
    except AlreadyRunning as error:
        priority.complain(f"breakerd: {error}{_missing(where, error)}", os.environ)
        return EXIT_ALREADY_RUNNING


def _missing(where: Places, error: AlreadyRunning) -> str:
    """What more is to be said about a supervisor that holds the lock."""
    if error.directory == where.state != where.runtime:
        return "; give each supervisor a --state-dir of its own"
    if not os.path.lexists(where.socket):
        return f"; its socket {where.socket} is missing, and it makes a new one within seconds"
    return ""


def _install(arguments: list[str]) -> int:
    """`breakerd install-units`: write systemd's files, or remove them. Raises ConfigurationError."""
    parser = argparse.ArgumentParser(
        prog="breakerd install-units", description="Write systemd's files for the environment this runs from."
    )
    parser.add_argument("--prefix", metavar="DIR", default=units.PREFIX, help="default: %(default)s")
    parser.add_argument("--remove", action="store_true", help="take them away again")
    options = parser.parse_args(arguments)
    lines = units.remove(options.prefix) if options.remove else units.install(options.prefix, units.home())
    print("\n".join(lines))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="breakerd",
        usage="breakerd [run] [--config FILE] [--runtime-dir DIR] [--state-dir DIR] | breakerd demo |\n"
        "       breakerd install-units [--prefix DIR] [--remove]",
        description="One supervisor per host: circuit breakers and metrics of all Python worker processes.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML; default /etc/breakerd/breakerd.toml, if any")
    parser.add_argument("--runtime-dir", metavar="DIR", help="where breakerd.sock and the checkpoint are")
    parser.add_argument("--state-dir", metavar="DIR", help="where the copy is that survives a reboot")
    parser.add_argument("--version", action="version", version=f"breakerd {_version()}")
    return parser


def _version() -> str:
    try:
        return metadata.version("breakerd")
    except metadata.PackageNotFoundError:
        return "0+source"


def refuse_clash() -> None:
    """Raises ConfigurationError where PyPI's `supervisor` shares the environment."""
    try:
        metadata.distribution("supervisor")
    except metadata.PackageNotFoundError:
        return
    raise ConfigurationError((CLASH,))


def _make_directories(where: Places) -> None:
    """Runtime and state directory, if they are missing. Raises ConfigurationError."""
    for path in (where.runtime, where.state):
        private = path in (where.state, temporary_directory())
        try:
            os.makedirs(path, PRIVATE_MODE if private else RUNTIME_MODE, exist_ok=True)
            # Anybody can make a directory below /tmp before us: workers do not trust it, nor do we.
            check_owner(where.socket)
        except SupervisorUnavailable as error:
            raise ConfigurationError((f"{error}; remove it, or use another --runtime-dir",)) from error
        except OSError as error:
            raise ConfigurationError((f"{path}: cannot be made: {error.strerror}",)) from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigurationError((f"{path}: this user may not write there",))
        if os.stat(path).st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            text = f"breakerd: {path}: everybody may replace what is there; chmod o-w it"
            priority.complain(text, os.environ)


if __name__ == "__main__":
    sys.exit(main())
