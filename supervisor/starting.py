"""A daemon that starts, as its nursery sees it: what it is about, that it goes on, and what it waits for.

What a death says of the state depends on the moment: only whoever ends by an error of its own, while it
begins with what it read, may have been made to by that. Neighbours: `daemon` (whose start this is), `start`
(the reading), `lives` (which reads the pulse page after the end).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from supervisor import descriptors, start
from supervisor.descriptors import P_BEAT, P_PHASE, PHASE_STARTED, PHASE_STARTING, Inheritance
from supervisor.errors import ConfigurationError
from supervisor.settings import SupervisorSettings

log = logging.getLogger("breakerd.daemon")

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Why the checkpoint cannot be made for a while: full, or beyond a limit of this user or process."""
ROOM_LOOK_S: Final = 0.5
"""How often a start for whose checkpoint there is no room looks for it."""
STATUS_BYTES_MAX: Final = 2000

Read = Callable[[Inheritance, int, SupervisorSettings, float, Callable[[int], object]], start.Begun]


class Starting:
    """The pulse page and the channel while nobody is served yet."""

    def __init__(
        self,
        pulse: memoryview,
        channel: socket.socket,
        clock_ns: Callable[[], int],
        wait: Callable[[float], object],
    ) -> None:
        self._pulse = pulse
        self._clock_ns = clock_ns
        self._wait = wait
        self.read: Read = start.begin
        self._channel = channel
        self._said = ""
        self._ready = False

    def beat(self) -> None:
        """A sign of life."""
        self._pulse[P_BEAT] = self._clock_ns()

    def phase(self, phase: int) -> None:
        """From now on the start is about this."""
        self._pulse[P_PHASE] = phase
        self.beat()

    def begin(self, inherited: Inheritance, boot: int, settings: SupervisorSettings) -> start.Begun:
        """Read what earlier lives left; wait where there is no room to make it. Raises ConfigurationError."""
        while True:
            try:
                return self.read(inherited, boot, settings, self._clock_ns() / 1e9, self.phase)
            except MemoryError:
                self.phase(PHASE_STARTING)
                raise
            except OSError as error:
                self.phase(PHASE_STARTING)
                if error.errno not in NO_ROOM:
                    where = error.filename or inherited.runtime
                    raise ConfigurationError((f"{where}: cannot be used: {error.strerror}",)) from error
                self.wait_for_room(error.strerror or str(error))

    def take_over(self, work: Callable[[], object]) -> None:
        """Do the rest of the start; a shortage in it says nothing of the state that it begins with."""
        try:
            work()
        except (OSError, MemoryError):
            self.phase(PHASE_STARTING)
            raise
        self.phase(PHASE_STARTED)

    def ready(self) -> None:
        """Say that somebody is served, until the channel has had room for it."""
        self._ready = self._ready or descriptors.send(self._channel, descriptors.READY)

    def wait_for_room(self, problem: str) -> None:
        """Another life would find no more of it, and must not begin empty for that."""
        if not self._said:
            self._said = f"waits for room for the checkpoint: {problem}"
            log.error("%s", self._said)
            descriptors.send(self._channel, descriptors.STATUS + self._said.encode()[:STATUS_BYTES_MAX])
        self.beat()
        self._wait(ROOM_LOOK_S)


def silent_s(beat_ns: int, now: float) -> float:
    """How long ago the nursery gave this sign; 0 = one of an earlier version, which gives none."""
    return max(0.0, now - beat_ns / 1e9) if beat_ns else 0.0
