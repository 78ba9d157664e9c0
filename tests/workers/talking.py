"""A real prober for one test: a process of its own, and the end of the talk that a daemon would hold.

Everything that it said, and printed, is kept, so that a test can look for what must never be there.
Waiting is always for a message or an end, with a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = (
    "import socket, sys; from workers.prober import main; main(socket.socket(fileno=int(sys.argv[1])))"
)
CANARY: Final = "c4n4ry-9f1e"
SHORT_S: Final = 0.4
"""The time of a probe that is to run out."""
HELD_S: Final = 5.0
"""How much later a prober on a busy machine may notice; what hangs here hangs for a minute, or for ever."""
SPARE_S: Final = 20.0
"""How long a message may take beyond what the test is about."""


class TalkingProber:
    """The prober and our end of its socket."""

    def __init__(self, **environment: str) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "ignore", "-c", PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=ROOT,
        )
        theirs.close()
        self.link.settimeout(SPARE_S)
        self._number = 0
        self.said: list[dict[str, Any]] = []
        """Every message that came."""

    def put(self, table: dict[str, Any] | None, details: bool = False) -> int:
        """Send a question, or a greeting; its number."""
        self._number += 1
        told: dict[str, Any] = {"number": self._number}
        if table is not None:
            told |= {"probe": table, "details": details}
        self.link.send(json.dumps(told).encode())
        return self._number

    def hear(self, key: str) -> dict[str, Any]:
        """The next message that has this key."""
        while True:
            data = self.link.recv(8192)
            assert data, f"the prober ended:\n{self.printed()}"
            told: dict[str, Any] = json.loads(data)
            self.said.append(told)
            if key in told:
                return told

    def ask(self, kind: str, timeout_s: float = 5.0, details: bool = False, **keys: Any) -> dict[str, Any]:
        """Ask and wait for the verdict."""
        number = self.put({"kind": kind, "timeout_s": timeout_s, **keys}, details)
        told = self.hear("verdict")
        assert told["number"] == number
        return told

    def verdict(self, kind: str, timeout_s: float = 5.0, **keys: Any) -> tuple[str, str]:
        """Ask, and only what is said of the dependency."""
        told = self.ask(kind, timeout_s, **keys)
        return told["verdict"], told["text"]

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(SPARE_S)

    def printed(self) -> str:
        """What it wrote to its own output."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End it, whatever it does."""
        self.link.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(SPARE_S)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_late(prober: TalkingProber, kind: str, **keys: Any) -> None:
    """The time runs out, which is a failure, and the next question is answered."""
    told = prober.ask(kind, SHORT_S, **keys)
    assert told["verdict"] == "failed"
    assert "timeout" in told["text"].lower() or told["text"] == f"no answer within {SHORT_S:g} s", told
    assert told["took_s"] < SHORT_S + HELD_S
    prober.put(None)
    assert prober.hear("verdict")["verdict"] == "passed"


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
