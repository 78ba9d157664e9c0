"""Descriptors over the channel: whole or not at all, close-on-exec, alive beyond their sender."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from dataclasses import replace

from supervisor import descriptors
from supervisor.descriptors import Held, Inheritance, Talk

NONCE = "00112233445566778899aabbccddeeff"


def pair() -> tuple[socket.socket, socket.socket]:
    """A channel's two ends, neither of which waits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def test_a_deposit_outlives_its_sender() -> None:
    """R5: once `deposit` returned, the receiver has both descriptors whatever becomes of the sender."""
    ours, theirs = pair()
    reading, writing = os.pipe()
    assert descriptors.deposit(theirs, Held(NONCE, reading, writing, {"name": "web-1"}))
    theirs.close()
    os.close(reading)
    os.close(writing)
    got = descriptors.receive(ours)
    assert got is not None
    data, numbers = got
    assert (data[:1], data[1:17].hex(), data[17:]) == (b"D", NONCE, b'{"name": "web-1"}')
    os.write(numbers[1], b"alive")
    assert os.read(numbers[0], 5) == b"alive"
    assert not any(os.get_inheritable(number) for number in numbers)
    assert descriptors.receive(ours) == (b"", [])
    descriptors.close_all(numbers)
    ours.close()


def test_descriptors_that_do_not_fit_are_closed_not_leaked() -> None:
    """R14: at the limit a message arrives with fewer descriptors; then it has none."""
    ours, theirs = pair()
    reading, writing = os.pipe()
    assert descriptors.deposit(theirs, Held(NONCE, reading, writing, {}))
    os.close(reading)
    os.close(writing)
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        while True:
            try:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        os.close(fillers.pop())  # room for one of the two
        got = descriptors.receive(ours)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        descriptors.close_all(fillers)
    assert got is not None
    assert got[1] == []
    assert set(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()


def test_the_inheritance_is_read_back_as_it_was_written() -> None:
    """Plain JSON in between."""
    held = (Held(NONCE, 10, 11, {"name": "web-1", "pid": 7}),)
    told = Inheritance(3, 5, 6, 7, 1, 2.5, "/c", "/r", "/s", False, held, "# \n", bells=((0, 4), (1001, 12)))
    assert Inheritance.from_json(told.to_json()) == told
    assert told.numbers() == [3, 5, 6, 7, 4, 12, 10, 11]
    assert told.managed is False
    talking = replace(told, probers=(Talk("prober:1", 77, 12),))
    assert Inheritance.from_json(talking.to_json()) == talking
    assert talking.numbers() == [3, 5, 6, 7, 4, 12, 10, 11, 12]


def test_identity_and_life_of_a_process() -> None:
    """A living process has an identity, a dead one has none, and its pidfd says so."""
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child = sleeper.pid
    pidfd = os.pidfd_open(child)
    assert descriptors.identity(child)
    assert descriptors.parent_of(child) == os.getpid()
    assert (descriptors.pid_of(pidfd), descriptors.is_dead(pidfd)) == (child, False)
    sleeper.kill()
    sleeper.communicate()
    assert (descriptors.identity(child), descriptors.is_dead(pidfd)) == ("", True)
    assert descriptors.pid_of(pidfd) == -1
    assert [descriptors.is_pidfd(number) for number in (pidfd, 0, -1)] == [True, False, False]
    os.close(pidfd)


def test_a_receiver_that_is_gone_ends_nobody() -> None:
    """Also where SIGPIPE ends a process, sending to a closed channel says False."""
    program = """
import signal, socket
from supervisor import descriptors
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.close()
    assert descriptors.send(ours, b"anybody?") is False
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
