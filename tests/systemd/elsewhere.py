"""Another host: a network namespace beside a box, joined to it by one wire, with servers in it.

Neighbours: `box` (the host of the supervisor), `tests.servers` (what runs over there). The namespace lives
as long as a process that does nothing, and the wire as long as the namespace.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from tests.live.house import wait_for
from tests.servers import Postgres, RedisServer
from tests.systemd.box import Box

HERE: Final = "10.88.0.2"
"""The box's address."""
THERE: Final = "10.88.0.1"
"""The servers'."""
WIRE: Final = "wire0"


class Elsewhere:
    """The other host, and its wire to one box."""

    def __init__(self, box: Box) -> None:
        ours = os.readlink("/proc/self/ns/net")
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
        )
        here, there = f"--net=/proc/{box.init}/ns/net", f"--net=/proc/{self._holder.pid}/ns/net"
        self.enter = ["nsenter", there, "--"]
        wait_for("it has a network", lambda: self._is_apart(ours), 5.0)
        ends = f"name {WIRE} netns {box.init}"
        self._ip(there, "link", "add", WIRE, "type", "veth", "peer", *ends.split())
        for where, address in ((here, HERE), (there, THERE)):
            self._ip(where, "addr", "add", f"{address}/24", "dev", WIRE)
            self._ip(where, "link", "set", WIRE, "up")

    def _is_apart(self, ours: str) -> bool:
        command = Path(f"/proc/{self._holder.pid}/comm").read_text().strip()
        return command == "sleep" and os.readlink(f"/proc/{self._holder.pid}/ns/net") != ours

    @staticmethod
    def _ip(where: str, *words: str) -> None:
        subprocess.run(["nsenter", where, "--", "ip", *words], check=True, capture_output=True)

    def cut(self) -> None:
        """Pull the plug over there: nothing is refused, nothing answers."""
        self._ip(self.enter[1], "link", "set", WIRE, "down")

    def join(self) -> None:
        """Put it back."""
        self._ip(self.enter[1], "link", "set", WIRE, "up")

    def postgres(self, folder: Path) -> Postgres:
        """A PostgreSQL over there, started."""
        server = Postgres(folder).initialise()
        with (folder / "data/pg_hba.conf").open("a") as file:
            file.write(f"host all all {HERE}/32 trust\n")
        server.options = {"listen_addresses": THERE}
        server.before = self.enter
        return server.start()

    def valkey(self, folder: Path) -> RedisServer:
        """A Valkey over there, started."""
        listens = ("--port", "6379", "--bind", THERE, "--protected-mode", "no")
        server = RedisServer.valkey(folder, *listens)
        server.before = self.enter
        return server.start()

    @contextlib.contextmanager
    def pages(self, folder: Path) -> Iterator[None]:
        """A web server over there."""
        line = [*self.enter, sys.executable, "-m", "http.server", "8080", "--bind", THERE]
        with (folder / "pages.log").open("wb") as log:
            server = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)
        try:
            listening = f"{8080:04X} 00000000:0000 0A"
            table = f"/proc/{self._holder.pid}/net/tcp"
            wait_for("it listens", lambda: listening in Path(table).read_text(), 10.0)
            yield
        finally:
            server.kill()
            server.wait(5.0)

    def close(self) -> None:
        """No more namespace, no more wire."""
        self._holder.kill()
        self._holder.wait(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
