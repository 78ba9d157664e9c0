"""Connections: limits and deadlines hold, garbage hurts nobody else, nothing is ever leaked."""

from __future__ import annotations

import array
import os
import resource
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc import wire
from supervisor.connections import Connections, Limits, Request


class Loop:
    """The four methods of an event loop that are needed, and `spin`, which runs it until it is quiet."""

    def __init__(self) -> None:
        self.readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self.writers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Watch for something to read."""
        self.readers[fd] = (callback, args)

    def remove_reader(self, fd: int) -> None:
        """Watch no more."""
        self.readers.pop(fd, None)

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Watch for room to write."""
        self.writers[fd] = (callback, args)

    def remove_writer(self, fd: int) -> None:
        """Watch no more."""
        self.writers.pop(fd, None)

    def spin(self) -> None:
        """Call back until nothing is ready any more."""
        for _ in range(10_000):
            readable, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
            if not readable and not writable:
                return
            for number in readable:
                if number in self.readers:
                    callback, args = self.readers[number]
                    callback(*args)
            for number in writable:
                if number in self.writers:
                    callback, args = self.writers[number]
                    callback(*args)


class Place:
    """Connections on a real socket, with a clock to move and the requests that came."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.path = str(folder / "s.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.loop = Loop()
        self.now = 100.0
        self.requests: list[Request] = []
        self.room = True
        self.connections = Connections(self.listener, self.loop, lambda: self.now, self.post, limits)
        self.connections.start()
        self.clients: list[socket.socket] = []

    def post(self, request: Request) -> bool:
        """The mailbox."""
        if self.room:
            self.requests.append(request)
        return self.room

    def client(self) -> socket.socket:
        """A new client, accepted."""
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.connect(self.path)
        client.settimeout(2.0)
        self.loop.spin()
        return client

    def say(self, client: socket.socket, data: bytes) -> None:
        """Let a client say something."""
        client.sendall(data)
        self.loop.spin()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes a place with the given limits, and closes everything afterwards."""
    places: list[Place] = []

    def place(**limits: int) -> Place:
        places.append(Place(tmp_path, Limits(**limits)))
        return places[-1]

    yield place
    for one in places:
        one.connections.stop()
        one.connections.close()
        one.connections.release()
        one.listener.close()
        for client in one.clients:
            client.close()


def error_of(client: socket.socket) -> dict[str, Any]:
    """The error frame that a client got."""
    (frame,) = wire.FrameReader().feed(client.recv(65_536))
    assert frame.kind is wire.FrameKind.ERROR
    return wire.read_object(frame.body)


def test_a_request_arrives_whole_however_it_was_cut_and_is_answered(make: Callable[..., Place]) -> None:
    """One byte at a time is a request like any other; the connection takes the next one too."""
    place = make()
    client = place.client()
    for byte in wire.request(7, "stats", breaker="x"):
        place.say(client, bytes([byte]))
    (request,) = place.requests
    assert (request.number, request.body, request.peer.uid) == (
        7,
        {"verb": "stats", "breaker": "x"},
        os.getuid(),
    )
    assert place.connections.answer(request.connection, 7, {"a": 1})
    assert wire.FrameReader().feed(client.recv(1000)) == [wire.Frame(wire.FrameKind.ANSWER, 7, b'{"a":1}')]
    place.say(client, wire.request(8, "health"))
    assert place.requests[-1].number == 8


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        wire.HEADER.pack(wire.MAGIC, 1, 1, 0, 1, 2**31),
        wire.HEADER.pack(wire.MAGIC, 9, 1, 0, 1, 0),
        wire.Frame(wire.FrameKind.REQUEST, 1, b"[1]").pack(),
        wire.Frame(wire.FrameKind.REQUEST, 1, b"{").pack(),
        wire.Frame(wire.FrameKind.ANSWER, 1, b"{}").pack(),
    ],
)
def test_garbage_gets_one_clear_error_and_the_end(make: Callable[..., Place], garbage: bytes) -> None:
    """The connection beside it does not notice."""
    place = make()
    other, client = place.client(), place.client()
    place.say(client, garbage)
    assert error_of(client)["code"] == "protocol"
    assert client.recv(10) == b""
    place.say(other, wire.request(1, "health"))
    assert [request.number for request in place.requests] == [1]


def test_who_says_nothing_is_dropped_after_two_seconds(make: Callable[..., Place]) -> None:
    """Half a request is nothing."""
    place = make()
    slow, quick = place.client(), place.client()
    place.say(slow, wire.request(1, "health")[:20])
    place.say(quick, wire.request(1, "health"))
    place.now += 2.1
    place.connections.sweep()
    assert (slow.recv(10), len(place.connections)) == (b"", 1)


def test_the_oldest_silent_connection_makes_room_for_a_new_one(make: Callable[..., Place]) -> None:
    """Silent ones cannot keep a real client out."""
    place = make(unsaid_max=3)
    silent = [place.client() for _ in range(3)]
    newest = place.client()
    assert silent[0].recv(10) == b""
    place.say(newest, wire.request(1, "health"))
    assert len(place.requests) == 1


@pytest.mark.parametrize("limit", ["connections_max", "per_uid_max"])
def test_beyond_a_limit_a_client_is_told_that_it_is_busy(make: Callable[..., Place], limit: str) -> None:
    """And it is counted; when one has left there is room again."""
    place = make(**{limit: 2})
    first, _ = place.client(), place.client()
    assert error_of(place.client())["code"] == "busy"
    assert place.connections.refused_full == 1
    first.close()
    place.loop.spin()
    place.say(place.client(), wire.request(3, "health"))
    assert len(place.requests) == 1


def test_other_limits_hold_from_the_next_client_on(make: Callable[..., Place]) -> None:
    """A reload puts them there; who is connected already stays."""
    place = make(per_uid_max=1)
    first = place.client()
    assert error_of(place.client())["code"] == "busy"
    place.connections.limits = Limits(per_uid_max=2)
    place.say(place.client(), wire.request(1, "health"))
    place.connections.limits = Limits(per_uid_max=1)
    assert error_of(place.client())["code"] == "busy"
    place.say(first, wire.request(2, "health"))
    assert len(place.requests) == 2


def test_who_does_not_read_its_answer_is_dropped_after_half_a_second(make: Callable[..., Place]) -> None:
    """D10: it is given up, whatever is left of the answer."""
    place = make()
    client = place.client()
    place.say(client, wire.request(1, "stats"))
    assert place.connections.answer(place.requests[0].connection, 1, "x" * 4_000_000)
    place.loop.spin()
    place.now += 0.6
    place.connections.sweep()
    assert len(place.connections) == 0


def test_a_large_answer_arrives_whole_at_one_who_reads(make: Callable[..., Place]) -> None:
    """In as many frames as it takes."""
    place = make()
    client = place.client()
    place.say(client, wire.request(1, "stats"))
    place.connections.answer(place.requests[0].connection, 1, "x" * 1_000_000)
    reader, bodies = wire.FrameReader(), b""
    while True:
        place.loop.spin()
        frames = reader.feed(client.recv(65_536))
        bodies += b"".join(frame.body for frame in frames)
        if frames and frames[-1].last:
            break
    assert bodies == b'"' + b"x" * 1_000_000 + b'"'


def test_descriptors_that_nobody_asked_for_end_the_connection(make: Callable[..., Place]) -> None:
    """They are closed, not kept."""
    place = make()
    client = place.client()
    before = len(os.listdir("/proc/self/fd"))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    client.sendmsg([wire.request(1, "stats")], rights)
    place.loop.spin()
    assert error_of(client)["code"] == "protocol"
    assert len(os.listdir("/proc/self/fd")) == before - 1  # the connection's own


def test_an_answer_to_somebody_who_left_says_so(make: Callable[..., Place]) -> None:
    """D11: then a permit is taken back."""
    place = make()
    client = place.client()
    place.say(client, wire.request(1, "permit"))
    client.shutdown(socket.SHUT_RD)
    assert not place.connections.answer(place.requests[0].connection, 1, {"permit": 1})


def test_a_full_mailbox_is_told_as_busy(make: Callable[..., Place]) -> None:
    """The connection stays; the client asks again."""
    place = make()
    place.room = False
    client = place.client()
    place.say(client, wire.request(1, "stats"))
    assert error_of(client)["code"] == "busy"
    place.room = True
    place.say(client, wire.request(2, "stats"))
    assert [request.number for request in place.requests] == [2]


def test_without_a_free_descriptor_the_next_client_is_told_at_once(make: Callable[..., Place]) -> None:
    """D13: the reserve answers `busy`, existing connections go on, and nothing spins."""
    place = make()
    old = place.client()
    newcomer = socket.socket(socket.AF_UNIX)
    place.clients.append(newcomer)
    newcomer.connect(place.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        while True:
            try:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        place.connections.accept()
        place.say(old, wire.request(5, "health"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in fillers:
            os.close(number)
    assert error_of(newcomer)["code"] == "busy"
    assert (place.connections.refused_emfile, place.requests[0].number) == (1, 5)
    place.say(place.client(), wire.request(6, "health"))
    assert place.requests[-1].number == 6


def test_who_sends_many_requests_at_once_has_one_in_work(make: Callable[..., Place]) -> None:
    """The next is taken when the last one is answered and its answer was read: others are not behind them."""
    place = make()
    client = place.client()
    place.say(client, b"".join(wire.request(number, "events") for number in range(1, 300)))
    assert [request.number for request in place.requests] == [1]
    assert place.connections.answer(place.requests[0].connection, 1, "x" * 4_000_000)
    place.loop.spin()
    assert len(place.requests) == 1, "it has not read its answer"
    place.now += 0.6
    place.connections.sweep()
    assert len(place.connections) == 0


def test_requests_in_a_row_are_answered_in_their_order(make: Callable[..., Place]) -> None:
    """One who reads gets all of them."""
    place = make()
    client = place.client()
    place.say(client, b"".join(wire.request(number, "stats") for number in range(1, 6)))
    for number in range(1, 6):
        assert place.requests[-1].number == number
        assert place.connections.answer(place.requests[-1].connection, number, number)
        place.loop.spin()
    frames = wire.FrameReader().feed(client.recv(65_536))
    assert [frame.request for frame in frames] == [1, 2, 3, 4, 5]


def test_the_last_places_are_never_one_users(make: Callable[..., Place]) -> None:
    """Full: a privileged user takes the place of the connection that was quiet for longest."""
    place = make(connections_max=3)
    quiet = place.client()
    place.say(quiet, wire.request(1, "health"))
    place.connections.answer(place.requests[0].connection, 1, {})
    place.now += 1.0
    busy, third = place.client(), place.client()
    place.say(busy, wire.request(2, "health"))
    assert error_of(place.client())["code"] == "busy"
    place.connections.is_privileged = lambda _uid: True
    place.say(place.client(), wire.request(3, "health"))
    assert place.requests[-1].number == 3
    assert len(place.connections) == 3
    assert third.recv(10) == b"", "it had never asked for anything"
    assert place.connections.answer(place.requests[1].connection, 2, {})


def test_a_user_whose_descriptors_wait_to_be_closed_is_not_let_in(make: Callable[..., Place]) -> None:
    """Each of them may hold a thread: more of them do not come."""
    place = make()
    place.connections.backlog = lambda uid: 1000 if uid == os.getuid() else 0
    assert error_of(place.client())["code"] == "busy"


def test_nothing_of_a_stranger_is_closed_by_the_loop(make: Callable[..., Place]) -> None:
    """Descriptors with a request, beyond its end, too many, unread ones: all are handed over unread."""
    place = make()
    handed: list[int] = []
    place.connections.discard = lambda _uid, numbers: handed.extend(numbers)
    reading, writing = os.pipe()

    def sent(data: bytes, count: int) -> int:
        client = place.client()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading] * count))]
        before = len(handed)
        client.sendmsg([data], rights)
        place.loop.spin()
        client.close()
        place.loop.spin()
        return len(handed) - before

    # Each time the connection itself is one of them.
    assert sent(wire.request(1, "stats"), 1) == 2
    assert sent(b"garbage that is no frame at all, longer than a header", 2) == 3
    assert sent(wire.request(1, "hello"), 200) == 201
    assert sent(wire.request(1, "hello")[:9], 1) == 2
    for number in (*handed, reading, writing):
        os.close(number)
