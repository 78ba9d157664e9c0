"""Asking the supervisor without waiting for it: a socket, no supervisor and no clock."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc import wire
from workers.demo.scene import BreakerView
from workers.demo.tap import PATIENCE_S, Tap

BREAKER = {
    "name": "shop/database",
    "state": "HALF_OPEN",
    "generation": 4,
    "failure_count": 5,
    "retry_after_s": None,
    "trials": {"in_flight": 1, "permitted": 3, "passed": 2},
}


def heard(tap: Tap) -> bool:
    """Whether the supervisor answers, as the tap knows it now."""
    return tap.answers


class Listener:
    """The other end of the tap."""

    def __init__(self, path: Path) -> None:
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(path))
        self.listening.listen(8)
        self.listening.settimeout(5.0)

    def answer(self, value: Any) -> dict[str, Any]:
        """Answer the question that waits; what it was."""
        connection, _ = self.listening.accept()
        with connection:
            (frame,) = wire.FrameReader().feed(connection.recv(65_536))
            connection.sendall(wire.answer(frame.request, value))
        asked: dict[str, Any] = json.loads(frame.body)
        return asked


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """A socket that is listened on."""
    made = Listener(tmp_path / "s")
    yield made
    made.listening.close()


def test_answers_arrive_a_frame_later(listener: Listener, tmp_path: Path) -> None:
    """Each poll takes the answer to the last question and asks the next: breakers, events, processes."""
    tap = Tap(str(tmp_path / "s"))
    tap.poll(0.0)
    assert not heard(tap)
    assert listener.answer({"breakers": [BREAKER]})["verb"] == "breakers"
    tap.poll(0.1)
    assert heard(tap)
    assert tap.breaker == BreakerView("shop/database", "HALF_OPEN", 4, 5, 0.0, "1 of 3 in flight, 2 passed")
    listener.answer({"events": [{"text": "it opened"}], "next": 7})
    tap.poll(0.2)
    assert tap.take_news() == ["it opened"]
    assert tap.take_news() == []
    listener.answer({"processes": [{"name": "nursery", "pid": 1}, {"name": "daemon", "pid": 2}]})
    tap.poll(0.3)
    assert tap.daemon_pid == 2
    assert listener.answer({"breakers": []})["verb"] == "breakers"
    tap.poll(0.4)
    assert [tap.breaker] == [None]
    assert listener.answer({"events": [], "next": 7})["after"] == 7
    tap.close()


def test_an_unanswered_question_is_dropped_and_asked_again(listener: Listener, tmp_path: Path) -> None:
    """A supervisor that says nothing costs no waiting: the tap gives up after its patience and asks anew."""
    tap = Tap(str(tmp_path / "s"))
    tap.answers = True
    tap.poll(0.0)
    tap.poll(PATIENCE_S)
    assert heard(tap)
    tap.poll(PATIENCE_S + 0.1)
    assert not heard(tap)
    listener.listening.accept()[0].close()
    tap.poll(PATIENCE_S + 0.2)
    listener.answer({"events": [], "next": 0})
    tap.poll(PATIENCE_S + 0.3)
    assert heard(tap)
    tap.close()


def test_a_missing_supervisor_raises_nothing(tmp_path: Path) -> None:
    """Where nobody listens the tap only says that nobody answers."""
    tap = Tap(str(tmp_path / "nobody"))
    tap.poll(0.0)
    tap.poll(0.1)
    assert not heard(tap)
    tap.close()
