"""The replayer as a program: `[workers.replayer] target = "workers.memory.replayer:run"`, or by hand
`python -m workers.memory.replayer FILE...`.

It empties the spools of the memory layers that its arguments name (TOML files; none: the MEMORY_* variables),
those of dead processes included, until SIGTERM. A thread per directory turns a `Post`; the main thread waits
for signals, looks for directories, and beats as long as every thread comes back within what its deadlines
allow: a hung database costs no heartbeat, a driver that ignores its deadlines does. Neighbour: `replay_post`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from ipc import beat, control
from workers.errors import MemoryConfigError
from workers.handler import MemoryErrorHandler
from workers.memory.config import MemoryConfig
from workers.memory.manager import cache_of
from workers.memory.replay_post import Findings, Layer, Post
from workers.memory.spool_owner import become
from workers.memory.spool_places import places_of, strangers
from workers.memory.store import Store

ENDS: Final = (signal.SIGTERM, signal.SIGINT)
BEAT_S: Final = 0.5
SURVEY_S: Final = 5.0
"""How often it looks for directories that came."""
SLACK_S: Final = 5.0
"""What a thread may take beside the deadlines of its calls."""
POOL_MAX: Final = 2
"""Connections to the database of a memory layer that this process opens at most."""

log: Final = logging.getLogger("breakerd.memory.replayer")


def run(*files: str) -> None:
    """Replay until SIGTERM or SIGINT, and then to the end of the step under way. Raises MemoryConfigError."""
    configs = configurations(files)
    # They are waited for, not handled: nothing is interrupted in the middle of anything.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        if _settled(configs):
            Crew([_layer(config) for config in configs], time.monotonic).work()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def configurations(files: Sequence[str]) -> list[MemoryConfig]:
    """The memory layers that are named, each directory once. Raises MemoryConfigError."""
    given = [MemoryConfig.from_toml(file) for file in files] or [MemoryConfig.from_environment()]
    by_place: dict[str, MemoryConfig] = {}
    for config in given:
        place = os.path.realpath(config.spool_directory)
        other = by_place.setdefault(place, config)
        if other.mark != config.mark:
            raise MemoryConfigError(f"memory.spool_directory: {place} is given for two databases")
    return list(by_place.values())


def _layer(config: MemoryConfig) -> Layer:
    config = dataclasses.replace(config, pool_size=min(POOL_MAX, config.pool_size))
    guard = MemoryErrorHandler().get_circuit_breaker(config.database_breaker)
    return Layer(config, Store(config), cache_of(config), guard)


def _settled(configs: Sequence[MemoryConfig]) -> bool:
    """As root, wait for the first directory and become its owner; False = it was to end meanwhile."""
    while os.geteuid() == 0:
        for config in configs:
            try:
                found = os.stat(config.spool_directory)
            except OSError:
                continue
            if found.st_uid != 0:
                become(found.st_uid, found.st_gid, control.socket_path() or "")
                log.info("%s belongs to user %d: that is who I am now", config.spool_directory, found.st_uid)
            return True
        beat()
        if signal.sigtimedwait(ENDS, BEAT_S) is not None:
            return False
    return True


class Turner:
    """One post in a thread of its own."""

    def __init__(self, layer: Layer, directory: str, clock: Callable[[], float]) -> None:
        config = layer.config
        self.directory = directory
        self.error: BaseException | None = None
        """What ended the thread; written by it, read by the main thread."""
        self._came_back = clock()
        self.limit_s = SLACK_S + config.database_connect_timeout_s + 2 * config.database_timeout_s
        self.limit_s += config.migrate_timeout_s if config.migrate else 0.0
        self._clock, self._stop = clock, threading.Event()
        self._post = Post(layer, directory, self._moved, clock)
        self._thread = threading.Thread(target=self._run, name=f"replay {directory}", daemon=True)
        self._thread.start()

    def _moved(self, _step: str) -> None:
        self._came_back = self._clock()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                wait_s = self._post.turn()
                self._moved("turn")
                self._stop.wait(wait_s)
            self._post.close()
        except BaseException as error:  # noqa: BLE001 (the main thread raises it again, and ends by it)
            self.error = error

    def late(self) -> bool:
        """Whether it has been away for longer than any of its calls may take."""
        return self._clock() - self._came_back > self.limit_s

    def stop(self) -> None:
        """End after the step under way."""
        self._stop.set()

    def join(self, until: float) -> None:
        """Wait for that, but not for ever: the kernel gives the leases of a process back."""
        self._thread.join(max(0.0, until - self._clock()))


class Crew:
    """A turner for every directory of every layer."""

    def __init__(self, layers: Sequence[Layer], clock: Callable[[], float]) -> None:
        self._layers, self._clock = layers, clock
        self._turners: dict[str, Turner] = {}
        self._findings = Findings()

    def work(self) -> None:
        """Until a signal says that it is to end, or a thread failed: then so does this."""
        surveyed = float("-inf")
        try:
            while True:
                if self._clock() - surveyed >= SURVEY_S:
                    self._survey()
                    surveyed = self._clock()
                for one in self._turners.values():
                    if one.error is not None:
                        raise one.error
                if not any(one.late() for one in self._turners.values()):
                    beat()
                if signal.sigtimedwait(ENDS, BEAT_S) is not None:
                    return
        finally:
            self._end()

    def _survey(self) -> None:
        """See to new directories, and tell of those that nobody sees to."""
        for layer in self._layers:
            for directory in places_of(layer.config):
                if directory not in self._turners:
                    self._turners[directory] = Turner(layer, directory, self._clock)
        found = dict(strangers([layer.config for layer in self._layers]))
        for path, text in found.items():
            self._findings.say(path, text, path)
        self._findings.keep(found)

    def _end(self) -> None:
        turners = list(self._turners.values())
        for one in turners:
            one.stop()
        until = self._clock() + max((one.limit_s for one in turners), default=0.0)
        for one in turners:
            one.join(until)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        run(*sys.argv[1:])
    except MemoryConfigError as wrong:
        sys.exit(str(wrong))
