"""What strangers sent is closed by threads: nobody waits for it, and one user holds up no other."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable

import pytest

from supervisor.descriptor_closer import (
    THREADS_MAX,
    THREADS_PER_UID_MAX,
    DescriptorCloser,
    close_now,
    is_memory_file,
)


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, at most 5 s."""
    end = time.monotonic() + 5.0
    while not holds():
        assert time.monotonic() < end, "it did not come about in 5 s"
        time.sleep(0)


class Slow:
    """Closing that takes until the test lets go, for some numbers."""

    def __init__(self, *held: int) -> None:
        self.held = set(held)
        self.go_on = threading.Event()
        self.closed: list[int] = []

    def __call__(self, number: int) -> None:
        """Close."""
        if number in self.held:
            assert self.go_on.wait(10.0)
        self.closed.append(number)


def test_a_descriptor_that_takes_for_ever_holds_up_no_other_user() -> None:
    """One user fills its own threads; another one's descriptors are closed all the same."""
    slow = Slow(*range(100, 110))
    closer = DescriptorCloser(slow)
    for number in range(100, 110):
        closer.discard(1001, [number])
    closer.discard(1002, [7, 8])
    until(lambda: slow.closed == [7, 8])
    assert closer.backlog(1001) == 10
    assert sum(one.name == "closer" for one in threading.enumerate()) <= THREADS_PER_UID_MAX + 1
    slow.go_on.set()
    until(lambda: len(slow.closed) == 12)
    until(lambda: closer.backlog(1001) == 0)


def test_not_more_threads_than_may_and_what_waited_is_closed_later() -> None:
    """With all threads held by many users, the next user's turn comes with a retry."""
    users = range(2000, 2000 + THREADS_MAX)
    slow = Slow(*users)
    closer = DescriptorCloser(slow)
    for uid in users:
        closer.discard(uid, [uid])
    closer.discard(1, [1])
    assert closer.backlog(1) == 1
    closer.retry()
    assert slow.closed == []
    slow.go_on.set()
    until(lambda: len(slow.closed) == THREADS_MAX)
    until(lambda: all(closer.backlog(uid) == 0 for uid in users))
    closer.retry()
    until(lambda: 1 in slow.closed)


def test_a_lingering_socket_does_not_linger_here() -> None:
    """Unsent data and a linger time of a minute: closing our copy, the last one, takes no time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                client.send(b"x" * 65_536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
        began = time.monotonic()
        close_now(0, [client.detach()])
        assert time.monotonic() - began < 5.0
        far.close()


def test_only_memory_is_a_memory_file() -> None:
    """Told by the kernel's seals, which a file cannot pretend to have."""
    memory = os.memfd_create("m")
    reading, writing = os.pipe()
    with tempfile.TemporaryFile(dir="/") as file, socket.socket() as end:
        strangers = (reading, writing, file.fileno(), end.fileno(), os.pidfd_open(os.getpid()))
        assert is_memory_file(memory)
        assert not any(is_memory_file(number) for number in strangers)
        assert not is_memory_file(1 << 20)
    close_now(0, [memory, reading, writing, strangers[-1]])
