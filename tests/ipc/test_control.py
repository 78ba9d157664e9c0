"""The asking side of the control socket, against supervisors that answer well, badly or not at all."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipc import control, control_async, wire
from ipc.errors import ControlDenied, ControlRefused, ProtocolError, SupervisorUnavailable
from tests.ipc.supervisors import Reply, answering, ask, sending, silent, socket_place, supervisor


@pytest.fixture
def place() -> Iterator[str]:
    """A socket path in a short directory of its own."""
    with socket_place() as path:
        yield path


# --- answers --------------------------------------------------------------------------------------------


def test_an_answer_is_returned(place: str) -> None:
    """The answer's value comes back."""
    with supervisor(place, answering({"status": "pass"})):
        assert ask(place) == {"status": "pass"}


def test_the_request_says_what_was_asked(place: str) -> None:
    """Verb and fields arrive as they were given, and with them when the asker gives up."""
    began = time.monotonic()

    def echo(connection: socket.socket, frame: wire.Frame) -> None:
        body = wire.read_object(frame.body)
        assert began + 2.0 <= body.pop("until") <= time.monotonic() + 2.0
        connection.sendall(wire.answer(frame.request, body))

    with supervisor(place, echo):
        assert ask(place, level="full", n=[1, None]) == {"verb": "health", "level": "full", "n": [1, None]}


def test_a_large_answer_in_small_pieces(place: str) -> None:
    """An answer of many frames is joined, however it arrives."""
    value = {"breakers": [{"name": f"breaker-{number}" * 10} for number in range(3000)]}

    def trickle(connection: socket.socket, frame: wire.Frame) -> None:
        data = wire.answer(frame.request, value)
        for start in range(0, len(data), 5000):
            connection.sendall(data[start : start + 5000])

    with supervisor(place, trickle):
        assert ask(place) == value


@pytest.mark.parametrize(
    ("code", "kind", "attribute"),
    [
        ("denied", ControlDenied, None),
        ("unknown", ControlRefused, ("code", "unknown")),
        ("ambiguous", ControlRefused, ("code", "ambiguous")),
        ("busy", SupervisorUnavailable, ("reason", "full")),
        ("protocol", ProtocolError, None),
    ],
)
def test_a_refusal_is_the_exception_of_its_code(
    place: str, code: str, kind: type[Exception], attribute: tuple[str, str] | None
) -> None:
    """An error frame raises what its code stands for, with the supervisor's sentence."""

    def refuse(connection: socket.socket, frame: wire.Frame) -> None:
        connection.sendall(wire.error(frame.request, code, "because of that"))

    with supervisor(place, refuse), pytest.raises(kind, match="because of that") as caught:
        ask(place)
    assert attribute is None or getattr(caught.value, attribute[0]) == attribute[1]


def test_an_error_without_a_number_is_for_us_too(place: str) -> None:
    """What the supervisor says before it could read the request's number is believed."""
    busy = sending(wire.error(0, "busy", "too many connections"))
    with supervisor(place, busy), pytest.raises(SupervisorUnavailable, match="too many"):
        ask(place)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a breakerd frame"),
        (wire.answer(0, {}), "not made"),
        (wire.HEADER.pack(wire.MAGIC, 2, 1, 0, 0, 1 << 31), "limit"),
    ],
)
def test_a_supervisor_that_talks_nonsense(place: str, data: bytes, text: str) -> None:
    """Anything else than the answer to this request is a ProtocolError."""
    with supervisor(place, sending(data)), pytest.raises(ProtocolError, match=text):
        ask(place)


def test_an_answer_that_is_no_json(place: str) -> None:
    """A whole answer whose body is not JSON is a ProtocolError."""

    def reply(connection: socket.socket, frame: wire.Frame) -> None:
        connection.sendall(wire.Frame(wire.FrameKind.ANSWER, frame.request, b"{nonsense").pack())

    with supervisor(place, reply), pytest.raises(ProtocolError, match="not JSON"):
        ask(place)


@pytest.mark.parametrize("sent", [0, 1, 20])
def test_a_connection_closed_too_early(place: str, sent: int) -> None:
    """A supervisor that dies inside its answer is unavailable, `closed`."""

    def reply(connection: socket.socket, frame: wire.Frame) -> None:
        connection.sendall(wire.answer(frame.request, {"status": "pass"})[:sent])

    with supervisor(place, reply), pytest.raises(SupervisorUnavailable) as caught:
        ask(place)
    assert caught.value.reason == "closed"


def test_a_refusal_before_the_request_is_heard(place: str) -> None:
    """A supervisor that is full says so and closes at once: also whoever asks after that reads it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(place)
        listener.listen()
        exchange = control.Exchange(place)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(wire.error(0, "busy", "too many connections"))
    exchange.send("health")
    with pytest.raises(SupervisorUnavailable, match="too many connections") as caught:
        exchange.receive()
    exchange.close()
    assert caught.value.reason == "full"


def test_a_hung_supervisor_costs_the_time_limit_and_no_more(place: str) -> None:
    """A supervisor that accepts and never answers is unavailable, `timeout`, when the time is over."""
    calls: tuple[Callable[[], Any], ...] = (
        lambda: control.ask(place, "health", 0.1),
        lambda: asyncio.run(control_async.ask_async(place, "health", 0.1)),
    )
    with supervisor(place, silent):
        for call in calls:
            began = time.monotonic()
            with pytest.raises(SupervisorUnavailable, match=r"no answer within 0\.1 s") as caught:
                call()
            assert caught.value.reason == "timeout"
            assert time.monotonic() - began < 2.0


def test_a_slow_trickle_does_not_move_the_deadline(place: str) -> None:
    """The time limit is for the whole answer, not for each byte of it."""

    def trickle(connection: socket.socket, frame: wire.Frame) -> None:
        data = wire.answer(frame.request, "x" * 1000)
        for number in range(len(data) - 1):
            connection.sendall(data[number : number + 1])
            if control.wait_readable(connection, 0.02):
                return

    with supervisor(place, trickle), pytest.raises(SupervisorUnavailable) as caught:
        control.ask(place, "health", 0.2)
    assert caught.value.reason == "timeout"


# --- descriptors ----------------------------------------------------------------------------------------


def with_descriptors(count: int) -> Reply:
    """Answers with so many copies of /dev/null."""

    def reply(connection: socket.socket, frame: wire.Frame) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * count))]
        connection.sendmsg([wire.answer(frame.request, {})], rights)
        os.close(null)

    return reply


def descriptors_open() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def finish(exchange: control.Exchange) -> None:
    """Wait for the whole answer."""
    while not exchange.receive():
        assert control.wait_readable(exchange.connection, 5.0)


def test_descriptors_come_with_the_answer(place: str) -> None:
    """They are the taker's, closed on exec."""
    with supervisor(place, with_descriptors(2)):
        exchange = control.Exchange(place)
        exchange.send("hello")
        finish(exchange)
        taken = exchange.take_descriptors()
        exchange.close()
    assert [os.get_inheritable(number) for number in taken] == [False, False]
    for number in taken:
        os.close(number)


def test_what_nobody_takes_is_closed(place: str) -> None:
    """An exchange that ends leaves no descriptor open, neither its socket nor those that came."""
    before = descriptors_open()
    with supervisor(place, with_descriptors(3)):
        for _ in range(20):
            exchange = control.Exchange(place)
            exchange.send("hello")
            finish(exchange)
            exchange.close()
    assert descriptors_open() == before


def test_more_descriptors_than_asked_for_are_an_error_and_no_leak(place: str) -> None:
    """Descriptors that did not fit were dropped by the kernel: said so, and the others are closed."""
    with supervisor(place, with_descriptors(9)):
        exchange = control.Exchange(place)
        exchange.send("hello")
        with pytest.raises(SupervisorUnavailable) as caught:
            finish(exchange)
        assert (caught.value.reason, len(exchange.descriptors)) == ("full", control.DESCRIPTORS_MAX)
        exchange.close()
        assert exchange.descriptors == []


def test_descriptors_go_with_the_request(place: str) -> None:
    """The asking side can hand its own over."""
    got: list[int] = []

    def reply(connection: socket.socket, frame: wire.Frame) -> None:
        connection.sendall(wire.answer(frame.request, {}))

    left, right = socket.socketpair()
    with left, right, supervisor(place, reply):
        exchange = control.Exchange(place)
        exchange.connection.close()
        exchange.connection = left
        exchange.send("hello", (0,), nonce="00")
        data, descriptors, _, _ = socket.recv_fds(right, 65_536, 4)
        got += descriptors
        exchange.close()
    assert (json.loads(data[wire.HEADER.size :]), len(got)) == ({"verb": "hello", "nonce": "00"}, 1)
    os.close(got[0])
