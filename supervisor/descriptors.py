"""Descriptors that change hands: between nursery and daemon, and from a worker's hello.

Nursery and daemon speak over a SOCK_SEQPACKET pair, made anew for each daemon. A message is atomic and
outlives its sender in the receiver's queue, so a deposit needs no acknowledgement where the nursery is
the last to hold it; under systemd a worker is welcome only when the store has it, so that it outlives both:

    daemon -> nursery   D nonce(16) JSON + [memfd, pidfd]   keep these, whatever becomes of me
                        X nonce(16)                         close them; answered by x nonce(16)
                        B uid(4) + [eventfd]                the doorbell of this user: keep it
                        U uid(4)                            close it: this user has no workers any more
                        R                                   ready: serving
                        S text                              how things are, in one sentence
                        L ticket(8) + [memfd]               a checked configuration: apply and keep it
                        E number(8) text                    a reload is over, also for this H; what was wrong
                        C JSON                              {"ticket", "verb", "name"}: start, stop or
                                                            restart managed workers; answered by c
                        K JSON                              {"title", "pid"}: kill this prober, it overran
    nursery -> daemon   x nonce(16)                         closed
                        d nonce(16)                         under systemd: these are in its store, too
                        l ticket(8) JSON                    {} = applied and kept; {"text": why not}
                        H number(8)                         SIGHUP came, so often by now: reload
                        c JSON                              {"ticket", "accepted": [titles], "of": how
                                                            many} or {"ticket", "code", "text"}
                        M JSON                              one managed process: all after R, then changes
                        N + [socket]                        listen on this one: the old one's file is gone
                        P JSON + [socket]                   {"title", "pid"}: a prober lives; our end of it

Neighbours: `nursery` and `daemon` (the two ends), `hello` (identity of a worker). Knows no engine.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import re
import select
import signal
import socket
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

DEPOSIT: Final = b"D"
DROP: Final = b"X"
DROPPED: Final = b"x"
STORED: Final = b"d"
BELL: Final = b"B"
UNBELL: Final = b"U"
READY: Final = b"R"
STATUS: Final = b"S"
LOAD: Final = b"L"
LOADED: Final = b"l"
SETTLED: Final = b"E"
HANGUP: Final = b"H"
COMMAND: Final = b"C"
COMMANDED: Final = b"c"
KILL: Final = b"K"
MANAGED: Final = b"M"
PROBER: Final = b"P"
LISTENER: Final = b"N"
MESSAGE_MAX: Final = 4096

P_BEAT: Final = 0
P_PHASE: Final = 1
P_NURSERY: Final = 2
"""Words of the pulse page: the daemon's last heartbeat, ns; what a daemon that starts is about, so that the
nursery knows what its death says of the state; and the nursery's last turn, ns.
"""
PHASE_STARTING: Final = 0
PHASE_CHECKPOINT: Final = 1
PHASE_COPY: Final = 2
PHASE_STARTED: Final = 3
"""The first and the last say nothing of the state; the others: it begins with what it read from there."""
PR_SET_PDEATHSIG: Final = 1
NONCE_BYTES: Final = 16
UID_BYTES: Final = 4
_NONCE: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Held:
    """One worker's descriptors and who it said it is, as the nursery keeps them."""

    nonce: str
    memory: int
    pidfd: int
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Talk:
    """The daemon's end of the talk with one life of a prober."""

    title: str
    pid: int
    socket: int


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a daemon gets from its nursery: numbers of inherited descriptors, and plain settings."""

    listener: int
    channel: int
    pulse: int
    lock: int
    nursery: int
    """The nursery's pid."""
    started_at: float
    """When the nursery started, s of CLOCK_MONOTONIC."""
    config: str
    runtime: str
    state: str
    fresh: int
    """What made earlier daemons fail while they began with it, and is set aside: 0 = nothing, 1 = the
    checkpoint, 2 = its copy on disk, 3 = both."""
    held: tuple[Held, ...]
    config_text: str = ""
    """What the configuration file held when the nursery began, or at the last good reload: one that is being
    edited when a daemon dies must not keep the next one from starting."""
    config_problem: str = ""
    """What was wrong with the last reload; empty = nothing."""
    managed: bool = False
    """A service manager reads the sentences of STATUS, and answers deposits by STORED."""
    probers: tuple[Talk, ...] = ()
    """Those that lived when the daemon was started; later ones come by PROBER."""
    state_lock: int = -1
    """The lock on the state directory; -1 = there is none."""
    bells: tuple[tuple[int, int], ...] = ()
    """(uid, doorbell) of every user with workers."""

    def to_json(self) -> bytes:
        """The table as the daemon reads it."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("held", "probers")}
        plain["held"] = [[one.nonce, one.memory, one.pidfd, one.about] for one in self.held]
        plain["probers"] = [[one.title, one.pid, one.socket] for one in self.probers]
        return json.dumps(plain).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Inheritance:
        """The table that `to_json` wrote."""
        plain = json.loads(data)
        plain["held"] = tuple(Held(*one) for one in plain["held"])
        plain["bells"] = tuple((uid, bell) for uid, bell in plain["bells"])
        plain["probers"] = tuple(Talk(*one) for one in plain["probers"])
        return cls(**plain)

    def numbers(self) -> list[int]:
        """Every descriptor that must survive the exec."""
        numbers = [self.listener, self.channel, self.pulse, self.lock]
        if self.state_lock >= 0:
            numbers.append(self.state_lock)
        numbers += (bell for _, bell in self.bells)
        for one in self.held:
            numbers += (one.memory, one.pidfd)
        return [*numbers, *(one.socket for one in self.probers)]


def is_nonce(value: object) -> TypeGuard[str]:
    """Whether this is a nonce as the channel carries it: exactly 32 lower-case hex digits."""
    return isinstance(value, str) and _NONCE.fullmatch(value) is not None


def send(channel: socket.socket, data: bytes, numbers: tuple[int, ...] = ()) -> bool:
    """Send one message; False = the receiver's queue is full or it is gone, nothing was sent."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
    try:
        channel.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def receive(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """One message and its descriptors, close-on-exec; None = nothing there now, b"" = the other end is gone.

    Descriptors of a truncated message are closed: the message then has none.
    """
    try:
        data, rights, flags, _ = channel.recvmsg(MESSAGE_MAX, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b"", []
    numbers = array.array("i")
    for level, kind, payload in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        close_all(numbers.tolist())
        return data, []
    return data, numbers.tolist()


def close_all(numbers: list[int]) -> None:
    """Close each of them."""
    for number in numbers:
        os.close(number)


def deposit(channel: socket.socket, held: Held) -> bool:
    """Give copies of a worker's descriptors to the nursery; once this returns True they are safe."""
    about = json.dumps(held.about).encode()
    return send(channel, DEPOSIT + bytes.fromhex(held.nonce) + about, (held.memory, held.pidfd))


def is_dead(pidfd: int) -> bool:
    """True if the process of this pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def is_pidfd(number: int) -> bool:
    """True if this descriptor stands for a process, alive or not."""
    with contextlib.suppress(OSError):
        return told_pid(number) is not None
    return False


def pid_of(pidfd: int) -> int:
    """The pid behind a pidfd in this PID namespace; 0 = in another one, -1 = dead or no pidfd."""
    with contextlib.suppress(OSError):
        pid = told_pid(pidfd)
        return -1 if pid is None else pid
    return -1


def told_pid(number: int) -> int | None:
    """What the kernel says of this descriptor's process, -1 = it is dead; None = this is no pidfd.

    Asks the kernel, never the file behind the descriptor. Raises OSError if no descriptor is free to ask.
    """
    try:
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "Pid":
                    return int(value)
    except (FileNotFoundError, ValueError):
        return None
    return None


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on. Raises OSError where there is no such process."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def identity(pid: int) -> str:
    """What tells this process from a later one with the same pid; empty = no such process.

    The inode of a pidfd is unique from Linux 6.9 on; before that the start tick stands for it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return ""
    try:
        if is_dead(pidfd):
            return ""
        tick = stat_of(pid)[19]
        return f"{os.fstat(pidfd).st_ino}:{tick}"
    except (OSError, IndexError):
        return ""
    finally:
        os.close(pidfd)


def parent_of(pid: int) -> int:
    """The parent's pid; 0 = not known."""
    try:
        return int(stat_of(pid)[1])
    except (OSError, IndexError, ValueError):
        return 0


def state_of(pid: int) -> str:
    """The letter of its first thread's state, such as R, T for stopped or Z for dead; empty = not known."""
    try:
        return stat_of(pid)[0]
    except (OSError, IndexError):
        return ""


def die_with_parent(parent: int) -> bool:
    """Ask for SIGTERM when the parent dies; False = it is dead already. Call from the main thread."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent
