"""A supervisor made of one thread and real segments: it answers hellos and permits as a test tells it to.

It judges nothing: the test publishes board words itself and reads the rings of its workers. Neighbours:
the tests of `link`, `client` and `guard`.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from ipc import layout as at
from ipc import wire
from ipc.ring import Reader, slices
from ipc.segment import Segment, boot_id
from ipc.vocabulary import BreakerState, OutcomeKind

Body = dict[str, Any]


@dataclass
class Worker:
    """One attachment: its segment as the supervisor sees it."""

    hello: dict[str, Any]
    segment: Segment
    reader: Reader
    counts: Counter[tuple[int, OutcomeKind]] = field(default_factory=Counter)
    codes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(row, generation code): how many outcomes carried it."""
    permits: list[int] = field(default_factory=list)
    """Permits that came back with an outcome."""
    invalid: int = 0

    def declared(self) -> list[dict[str, Any]]:
        """Everything that was declared, in order."""
        return [json.loads(record) for record in self.segment.declarations(0)[0]]

    def row_of(self, name: str) -> int:
        """The row of a breaker."""
        return next(int(one["row"]) for one in self.declared() if one.get("breaker") == name)

    def publish(
        self, row: int, state: BreakerState, generation: int, until: float = 0.0, left: bool = False
    ) -> None:
        """Store a board word."""
        self.segment.words[at.W_BOARD + row] = at.pack_row(state, generation, until, left)

    def ramp(self, row: int, generation: int, left_s: float, length_s: float) -> None:
        """Store the board word of a row that was closed by trials and climbs for so long still."""
        until = time.monotonic() + left_s
        self.segment.words[at.W_BOARD + row] = at.pack_ramp(generation, until, length_s)

    def beat(self, ago_s: float = 0.0) -> None:
        """Store a heartbeat that is `ago_s` old."""
        self.segment.words[at.W_HEARTBEAT] = time.monotonic_ns() - int(ago_s * 1e9)

    def drain(self) -> int:
        """Read and commit what is there; how many words it was."""
        words = self.segment.words
        words[at.W_BELL] += 1
        taken = 0
        while True:
            parts = self.reader.read(1 << 20)
            if not parts and not self.reader.look_for_holes():
                break
            for part in parts:
                for _, listed in slices(part):
                    taken += len(listed)
                    for word in listed:
                        self._count(word)
            words[at.W_COMMITTED] = self.reader.committed
        return taken

    def _count(self, word: int) -> None:
        code = at.CODES[word >> at.CODE_SHIFT]
        if code is None:
            self.invalid += word >> at.CODE_SHIFT != at.CODE_VOID
            return
        row = word >> at.ROW_SHIFT & at.ROW_MASK
        self.counts[row, code.kind] += 1
        self.codes[row, word >> at.GENERATION_SHIFT & 15] += 1
        if code.permit is not None:
            self.permits.append(code.permit)

    def tally(self, row: int, index: int) -> int:
        """A cumulative word."""
        word: int = self.segment.words[self.segment.layout.tallies + at.TALLIES * row + index]
        return word

    def total(self, row: int, kind: OutcomeKind) -> int:
        """Outcomes of a kind, drained and overflowed."""
        self.drain()
        return self.counts[row, kind] + self.tally(row, kind)


class FakeSupervisor:
    """Listens on `path`. `permit` is what a permit is answered with: a value, "silent" or "close"."""

    def __init__(self, slots: int = 1024) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fake-", dir="/tmp")
        self.path = f"{self._folder.name}/breakerd.sock"
        self.slots = slots
        self.workers: dict[str, Worker] = {}
        self.asks: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.counters: list[dict[str, Any]] = []
        """What `errors` is answered with."""
        self.errors_asked = 0
        self.permit: dict[str, Any] | str = {"permit": None, "retry_after_s": 1.0}
        self.refusal: tuple[str, str] | None = None
        """(code, text) with which the next hellos are refused."""
        self.silent = False
        self.skew_ns = 0
        self.undelivered = 0
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._beating = True
        self._heart = threading.Lock()
        self._stop = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()
        os.close(self.bell)
        for worker in self.workers.values():
            worker.segment.close_fd()
        self._folder.cleanup()

    def stop_beating(self, ago_s: float = 10.0) -> None:
        """Every heartbeat is stale from now on."""
        with self._heart:
            self._beating = False
            for worker in self.workers.values():
                worker.beat(ago_s)

    def beat_again(self) -> None:
        """The heartbeats are fresh."""
        with self._heart:
            self._beating = True
            for worker in self.workers.values():
                worker.beat()

    def worker(self) -> Worker:
        """The newest attachment."""
        return list(self.workers.values())[-1]

    def rung(self) -> bool:
        """True if the bell was rung since the last look."""
        try:
            return os.eventfd_read(self.bell) > 0
        except BlockingIOError:
            return False

    def _serve(self) -> None:
        while not self._stop.is_set():
            with self._heart:
                if self._beating:
                    for worker in list(self.workers.values()):
                        worker.beat()
            ready, _, _ = select.select([self._listener], [], [], 0.01)
            if ready:
                connection, _ = self._listener.accept()
                with contextlib.suppress(OSError, IndexError), connection:  # it may have hung up
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(1.0)
        data, rights, _, _ = connection.recvmsg(65_536, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
        numbers = array.array("i")
        for _, _, payload in rights:
            numbers.frombytes(payload)
        frame = wire.FrameReader().feed(data)[0]
        body = wire.read_object(frame.body)
        try:
            verbs: dict[str, Callable[[socket.socket, int, Body, list[int]], None]] = {
                "hello": self._hello,
                "permit": self._permit,
                "command": self._command,
                "errors": self._errors,
            }
            verbs[body["verb"]](connection, frame.request, body, list(numbers))
        finally:
            for number in numbers:
                os.close(number)

    def _hello(self, connection: socket.socket, request: int, body: Body, numbers: list[int]) -> None:
        assert numbers, "a hello brings a pidfd"
        if self.silent:
            return
        if self.refusal is not None:
            connection.sendall(wire.error(request, *self.refusal))
            return
        known = self.workers.get(body["nonce"])
        value = {"schema": 1, "incarnation": 1, "namespace": body["namespace"] or "tests"}
        value["clock"] = time.monotonic_ns() + self.skew_ns
        if body["have"] and known is None and len(numbers) < 2:
            connection.sendall(wire.answer(request, {**value, "status": "sendfd"}))
            return
        if known is None:
            nonce = bytes.fromhex(body["nonce"])
            if len(numbers) > 1:
                segment = Segment.attach(os.dup(numbers[1]), nonce, boot_id())
            else:
                segment = Segment.create(at.Layout(self.slots), nonce, boot_id())
            known = Worker(body, segment, Reader(segment.words, segment.layout))
            known.beat()
            self.workers[body["nonce"]] = known
        status = "resumed" if body["have"] else "new"
        given = [self.bell] if body["have"] else [known.segment.fd, self.bell]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))]
        connection.sendmsg([wire.answer(request, {**value, "status": status})], rights)

    def _permit(self, connection: socket.socket, request: int, body: Body, _: list[int]) -> None:
        self.asks.append(body)
        if self.permit == "silent":
            # Until the asker has given up: then the send must fail, so that the permit is taken back.
            select.select([connection], [], [], 1.0)
            try:
                connection.sendall(wire.answer(request, {"permit": 9, "generation": 1, "lease_s": 1.0}))
            except OSError:
                self.undelivered += 1
        elif isinstance(self.permit, dict):
            connection.sendall(wire.answer(request, self.permit))

    def _errors(self, connection: socket.socket, request: int, _body: Body, _: list[int]) -> None:
        self.errors_asked += 1
        connection.sendall(wire.answer(request, {"schema": 1, "breakers": [], "counters": self.counters}))

    def _command(self, connection: socket.socket, request: int, body: Body, _: list[int]) -> None:
        self.commands.append(body)
        if self.refusal is not None:
            connection.sendall(wire.error(request, *self.refusal))
        else:
            connection.sendall(wire.answer(request, {"breaker": body["breaker"], "state": "CLOSED"}))
