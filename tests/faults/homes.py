"""A database that goes away and comes back, its spool, and replayers as programs.

Neighbour: `test_replayer_faults`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live.house import ROOT
from tests.servers import Postgres
from workers.memory.config import MemoryConfig
from workers.memory.leases import MANAGED
from workers.memory.locks import ProcessLock
from workers.memory.records import Conversation
from workers.memory.spool import Spool
from workers.memory.spooled import record_of
from workers.memory.store import Store

Popen = subprocess.Popen[bytes]


class Home:
    """A database that can go away and come back, a spool, and replayers as programs."""

    def __init__(self, folder: Path, server: Postgres | None) -> None:
        self.folder, self.server = folder, server
        self.name = server.database() if server else str(folder / "memory.db")
        url = server.url(self.name) if server else f"sqlite:///{self.name}"
        self.settings: dict[str, Any] = {
            "database_url": url,
            "spool_directory": str(folder / "spool"),
            "database_timeout_s": 1.0 if server else 0.3,
            "replay_rate_per_s": 400.0,
        }
        with Store(self.config()) as store:
            store.ping()
        self.environment = {"BREAKERD_SOCKET": "off"}
        """What programs are given besides: no supervisor, unless a test says which."""
        self._holder: sqlite3.Connection | None = None
        self._started: list[Popen] = []

    def config(self, **more: Any) -> MemoryConfig:
        """The settings of the memory layer."""
        return MemoryConfig(**{**self.settings, **more})

    def away(self) -> None:
        """Nothing can be stored."""
        if self.server:
            self.server.kill()
        else:
            self._holder = sqlite3.connect(self.name, isolation_level=None)
            self._holder.execute("BEGIN IMMEDIATE")

    def back(self) -> None:
        """It can be again."""
        if self.server:
            self.server.start()
        elif self._holder is not None:
            self._holder.close()

    def rows(self) -> list[str]:
        """The ids in the database, in their order."""
        statement = "SELECT id FROM memory_conversations ORDER BY id"
        if self.server:
            return [str(row[0]) for row in self.server.execute(statement, self.name)]
        with contextlib.closing(sqlite3.connect(self.name)) as link:
            found = [str(row[0]) for row in link.execute(statement)]
        return [f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}" for one in found]

    def left(self) -> list[str]:
        """The files of the spool."""
        with contextlib.suppress(FileNotFoundError):
            return [name for name in os.listdir(self.settings["spool_directory"]) if ".spool" in name]
        return []

    def toml(self, **more: Any) -> Path:
        """A new file with the settings."""
        file = self.folder / f"{len(list(self.folder.glob('*.toml')))}.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in {**self.settings, **more}.items()]
        file.write_text("\n".join(["[memory]", *lines, ""]))
        return file

    def replayer(self, files_max: int = 0, **more: Any) -> Popen:
        """Start the program, with so many descriptors if it is said. Its log is `log`."""
        with (self.folder / "log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "workers.memory.replayer", str(self.toml(**more))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
            )  # fmt: skip
        if files_max:
            resource.prlimit(started.pid, resource.RLIMIT_NOFILE, (files_max, files_max))
        self._started.append(started)
        return started

    def log(self) -> str:
        """What the programs said."""
        return (self.folder / "log").read_text()

    def managed(self) -> bool:
        """Whether one is at work."""
        return ProcessLock(os.path.join(self.settings["spool_directory"], MANAGED)).elsewhere()

    def fill(self, count: int) -> list[str]:
        """Put so many conversations and die; the ids."""
        said = [Conversation.now("ann", str(number), "x", ["search"]) for number in range(count)]
        pid = os.fork()
        if pid == 0:
            try:
                Spool(self.settings["spool_directory"], 1 << 30).put(*map(record_of, said))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        return [one.id for one in said]

    def close(self) -> None:
        """End what was started."""
        for one in self._started:
            one.kill()
            one.wait()
        if self._holder is not None:
            self._holder.close()
