"""Workers that are attached, or awaited: who has no pid here is lost only after a long time."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from supervisor.attachments import AWAITED_S, Attachments, level_of
from supervisor.engine import Engine
from supervisor.intake import Intake
from supervisor.messages import Happened
from supervisor.steps import passes_by
from tests.supervisor.test_connections import Loop

WORKER = "0123456789abcdef0123456789abcdef"


class Rig:
    """Attachments with a clock that the test moves."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.now = 100.0
        self.lost: list[str] = []
        intake = Intake(Engine())
        died: list[str] = []
        self.attachments = Attachments(Loop(), intake, self.theirs, died.append, lambda: self.now, passes_by)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Nobody is attached."""
    made = Rig()
    yield made
    made.ours.close()
    made.theirs.close()


def test_a_worker_without_a_pid_here_has_its_time_and_is_told_lost_once(rig: Rig) -> None:
    """Its death cannot be seen from another PID namespace."""
    rig.attachments.await_return(WORKER, 0, rig.lost.append)
    rig.now += AWAITED_S
    rig.attachments.remind()
    assert rig.lost == []
    rig.now += 1.0
    rig.attachments.remind()
    rig.attachments.remind()
    assert rig.lost == [WORKER]


def test_a_worker_whose_pid_is_gone_is_lost_at_once(rig: Rig) -> None:
    """It can be seen that it ended."""
    rig.attachments.await_return(WORKER, 2**22 - 1, rig.lost.append)
    assert rig.lost == [WORKER]


@pytest.mark.parametrize(
    ("kind", "fields", "level"),
    [
        ("breaker", {"old": "CLOSED", "new": "OPEN"}, logging.WARNING),
        ("breaker", {"old": "HALF_OPEN", "new": "OPEN"}, logging.WARNING),
        ("breaker", {"old": "OPEN", "new": "HALF_OPEN"}, logging.INFO),
        ("breaker", {"old": "HALF_OPEN", "new": "CLOSED"}, logging.INFO),
        ("breaker", {"old": "CLOSED", "new": "CLOSED"}, logging.WARNING),
        ("supervisor", {"event": "started"}, logging.INFO),
        ("supervisor", {"event": "lost"}, logging.WARNING),
        ("worker", {}, logging.INFO),
    ],
)
def test_good_news_is_no_warning(kind: str, fields: dict[str, str], level: int) -> None:
    """Else a list of the warnings is a list of everything."""
    assert level_of(Happened(1, kind, "text", fields=tuple(fields.items()))) == level
