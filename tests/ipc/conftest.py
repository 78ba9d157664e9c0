"""What the tests of `ipc` share: breakers on their own with a clock to move, and a pretend supervisor."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ipc.client import Client
from ipc.process import set_default
from ipc.testing import unattached
from tests.ipc.fake_supervisor import FakeSupervisor

__all__ = ["client", "supervisor", "unattached"]


@pytest.fixture
def supervisor() -> Iterator[FakeSupervisor]:
    """A pretend supervisor that listens."""
    with FakeSupervisor() as fake:
        yield fake


@pytest.fixture
def client(supervisor: FakeSupervisor) -> Iterator[Client]:
    """The default client of this process, bound to the pretend supervisor and not attached yet."""
    mine = Client(supervisor.path, name="test")
    before = set_default(mine)
    yield mine
    set_default(before)
    mine.close()
    gc.collect()
