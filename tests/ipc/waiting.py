"""What the tests of a client do: wait for a condition, and take the supervisor away."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

from ipc.client import Client
from tests.ipc.fake_supervisor import FakeSupervisor

SECONDS_MAX = 5.0


def eventually(condition: Callable[[], bool]) -> None:
    """Call on until it is so, for at most SECONDS_MAX."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline


def descriptors() -> int:
    """How many this process has open, garbage collected."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def away(client: Client, supervisor: FakeSupervisor) -> None:
    """The supervisor is gone for longer than a heartbeat may be old."""
    supervisor.stop_beating()
    client.link._attached_at = 0.0  # a supervisor that has just attached us is given its second
    client.link.look(time.monotonic())
    assert client.link.local
