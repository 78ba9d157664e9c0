"""The daemon's ends of the talks with probers, and how a prober and its program are killed.

An end comes from the nursery, by inheritance or by message; the nursery keeps a copy, which the next daemon
gets. Whatever is read goes to the actor as a message; what does not fit into a prober's queue is not sent.
The nursery dies: nobody kills a prober by name any more, and it ends with its parent.
Neighbours: `probes` (whose wire this is), `descriptors` (how the nursery is told). Knows no probe.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

from supervisor import descriptors
from supervisor.connections import Watcher
from supervisor.errand import Run
from supervisor.probes import Key, ProberCame, ProberEnded, ProberSaid
from supervisor.strays import kill_strays

log = logging.getLogger("breakerd.probes")

MESSAGE_MAX: Final = 8192
READS_MAX: Final = 16
"""Messages of one prober that are read in one turn of the loop."""


class Talks:
    """Owns the sockets. `post` takes what happened, `send` reaches the nursery."""

    def __init__(
        self,
        loop: Watcher,
        post: Callable[[Any], object],
        send: Callable[[bytes, tuple[int, ...]], object],
        run: Run,
    ) -> None:
        self._loop = loop
        self._post = post
        self._send = send
        self._run = run
        self._sweeping = False
        self._ends: dict[Key, socket.socket] = {}

    def add(self, title: str, pid: int, number: int) -> None:
        """A prober lives; `number` is the descriptor of our end, which is ours from now on."""
        key = (title, pid)
        self.hang_up(key)
        end = socket.socket(fileno=number)
        end.setblocking(False)
        self._ends[key] = end
        self._loop.add_reader(end.fileno(), self._readable, key)
        self._post(ProberCame(key))

    def _readable(self, key: Key) -> None:
        for _ in range(READS_MAX):
            end = self._ends.get(key)
            if end is None:
                return  # hung up over what it said
            try:
                data = end.recv(MESSAGE_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.hang_up(key)
                self._post(ProberEnded(key))
                return
            self._post(ProberSaid(key, data))

    def say(self, key: Key, data: bytes) -> bool:
        """Send one message; False = it cannot be sent."""
        end = self._ends.get(key)
        if end is None:
            return False
        try:
            end.send(data)
        except OSError:
            return False
        return True

    def hang_up(self, key: Key) -> None:
        """Close our end."""
        end = self._ends.pop(key, None)
        if end is not None:
            self._loop.remove_reader(end.fileno())
            end.close()

    def kill(self, key: Key) -> None:
        """Have the nursery kill this life of a prober: it alone knows whether the pid is still its own."""
        title, pid = key
        self._send(descriptors.KILL + json.dumps({"title": title, "pid": pid}).encode(), ())

    def kill_group(self, group: int) -> None:
        """Kill a program that a probe has started, with all that it started. Never this process's own."""
        if group != os.getpgrp():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def sweep(self) -> None:
        """Kill programs whose prober is dead and that nobody knows; in a thread, for /proc may be long."""
        if self._sweeping:
            return
        try:
            self._run(_sweep, self._swept)
            self._sweeping = True
        except RuntimeError:
            log.warning("no thread can be had: programs of dead probers are looked for later")

    def _swept(self) -> None:
        self._sweeping = False


def _sweep() -> None:
    if killed := kill_strays():
        log.warning("killed %d processes that probes had started: their probers are dead", killed)
