"""An application closes descriptors and uses their numbers again: none of its own is touched."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from ipc import CircuitBreaker, OutcomeKind
from ipc.client import Client
from ipc.control import Exchange
from ipc.errors import SupervisorUnavailable
from ipc.ownership import NO_FILE, eventfd_of, file_of
from tests.ipc.calls import call
from tests.ipc.fake_supervisor import FakeSupervisor
from tests.ipc.waiting import eventually

PROGRAM = """
import gc, os, select, socket, sys
import ipc

def work():
    return 1

guarded = ipc.CircuitBreaker("database")(work)
assert ipc.connect(socket=sys.argv[1]), "attached"
guarded()
if sys.argv[2] == "forked" and (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.closerange(3, 256)
kept = [select.epoll()]
for _ in range(6):
    kept.append(os.eventfd(0, os.EFD_NONBLOCK))
    kept.extend(socket.socketpair())
numbers = [one if isinstance(one, int) else one.fileno() for one in kept]
before = [os.fstat(number) for number in numbers]
for _ in range(50):
    guarded()
try:
    ipc.CircuitBreaker("later")(lambda: 1 / 0)()
except ZeroDivisionError:
    pass
ipc.process.default_client().close()
gc.collect()
guarded()
for number, was in zip(numbers, before):
    assert os.path.samestat(os.fstat(number), was), number
for number in numbers:
    if "eventfd" in os.readlink(f"/proc/self/fd/{number}"):
        try:
            os.eventfd_read(number)
        except BlockingIOError:
            continue
        raise AssertionError(f"{number} was rung")
"""


@pytest.mark.parametrize("life", ["same", "forked"])
def test_descriptors_with_numbers_that_were_ours_live_on(supervisor: FakeSupervisor, life: str) -> None:
    """After closerange our numbers are another's: guarded calls, closing and the collector leave them."""
    command = [sys.executable, "-c", PROGRAM, supervisor.path, life]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_lost_its_segment_gets_a_new_one(client: Client, supervisor: FakeSupervisor) -> None:
    """A supervisor asks for a segment whose descriptor is a stranger's: none is sent, a new one comes."""
    breaker = CircuitBreaker("database")
    call(breaker)
    segment = client.link.segment
    stranger = os.open(os.devnull, os.O_RDONLY)
    os.dup2(stranger, segment.fd)
    assert not segment.is_ours()
    number = segment.fd
    supervisor.workers.pop(client.nonce.hex()).beat(10.0)
    client.link._attached_at = 0.0

    def known_again() -> bool:
        call(breaker)
        client.link.look(time.monotonic())
        return client.link.segment is not segment and client.supervised

    eventually(known_again)
    call(breaker)
    worker = supervisor.worker()
    assert [one["breaker"] for one in worker.declared()] == ["database"]
    assert worker.total(0, OutcomeKind.SUCCESS) >= 1
    assert file_of(number) == file_of(stranger)
    os.close(number)
    os.close(stranger)


@pytest.mark.parametrize(
    "other",
    [select.epoll, lambda: os.eventfd(0), lambda: os.pidfd_open(os.getpid()), lambda: os.memfd_create("x")],
    ids=["epoll", "eventfd", "pidfd", "memfd"],
)
def test_what_is_no_eventfd_of_ours_is_told_apart(other: Callable[[], object]) -> None:
    """All of them share an inode, or nearly; a duplicate is the same, and a closed number is none."""
    ours, stranger = os.eventfd(0), other()
    number = stranger if isinstance(stranger, int) else stranger.fileno()  # type: ignore[attr-defined]
    second = os.dup(ours)
    assert eventfd_of(second) == eventfd_of(ours) != eventfd_of(number)
    for one in (ours, second, number):
        os.close(one)
    assert file_of(ours) == NO_FILE
    assert eventfd_of(second) == NO_FILE


def test_a_question_under_way_reads_and_closes_no_strangers_connection(supervisor: FakeSupervisor) -> None:
    """The number of the control connection is the application's: its bytes stay unread, its socket open."""
    exchange = Exchange(supervisor.path)
    left, right = socket.socketpair()
    left.sendall(b"mine")
    number = exchange.connection.fileno()
    os.dup2(right.fileno(), number)
    with pytest.raises(SupervisorUnavailable, match="application closed"):
        exchange.receive()
    exchange.close()
    with socket.socket(fileno=number) as kept:
        assert kept.recv(16) == b"mine"
    left.close()
    right.close()
