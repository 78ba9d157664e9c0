"""One spool directory, emptied by a program that is there for nothing else.

Its `managed.lease` (see `leases`) tells the applications' threads to stand aside; while the database refuses
everything for long, it is given up for a while, in case that they get through where this process does not. A
directory that is away, not ours or read-only is waited for, and told of once. Neighbours: `replay` (a step),
`spool_places` (what is wrong), `replayer` (turns this).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from ipc import CircuitBreaker
from workers.memory.cache import Cache
from workers.memory.config import MemoryConfig
from workers.memory.epochs import EPOCHS, Epochs
from workers.memory.leases import MANAGED, MovingLock
from workers.memory.replay import Progress, Replayer
from workers.memory.replay import Store as Database
from workers.memory.replay_thread import TEND_S
from workers.memory.spool import Spool
from workers.memory.spool_places import files_in_the_way, trouble_of

LOOK_S: Final = 0.5
"""How often it looks for something new; an idle look costs two calls of stat."""
TURN_MAX_S: Final = 1.0
"""The longest wait between two turns: the end of the program waits for no more."""
PATIENCE_S: Final = 10.0
"""After so long in which the database took nothing, the applications' threads have their turn..."""
BACK_S: Final = 10.0
"""... for so long,"""
YIELD_S: Final = 3.0
"""in the beginning of which the lease is theirs alone: long enough to notice it."""
IDLE_TEND_S: Final = 5.0
"""How often it looks after the files of the dead while it brings nothing in; reading them needs none."""
FILES_S: Final = 30.0
"""How often it looks for files that it cannot use."""

log: Final = logging.getLogger("breakerd.memory.replayer")


@dataclass(frozen=True, slots=True)
class Layer:
    """One memory layer: what all of its places are emptied into."""

    config: MemoryConfig
    store: Database
    cache: Cache
    guard: CircuitBreaker


class Findings:
    """What is wrong, each said once, until it is over."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def say(self, subject: str, text: str, kind: str = "") -> None:
        """Something is wrong; said again only if its kind (else its text) is another one."""
        if self._said.get(subject) != (kind or text):
            self._said[subject] = kind or text
            log.warning("%s", text)

    def over(self, subject: str) -> None:
        """It is no longer wrong."""
        self._said.pop(subject, None)

    def keep(self, subjects: Collection[str]) -> None:
        """Only these are still wrong."""
        self._said = {one: text for one, text in self._said.items() if one in subjects}


class _Told:
    """Tells several sets of processes what was stored and erased."""

    def __init__(self, *words: Epochs) -> None:
        self._words = words

    def stored(self, user_id: str) -> None:
        """Something of this user was committed."""
        for one in self._words:
            one.stored(user_id)

    def erased(self, user_id: str) -> None:
        """This user was erased."""
        for one in self._words:
            one.erased(user_id)

    def close(self) -> None:
        """Let go of the files."""
        for one in self._words:
            one.close()


class Post:
    """One directory. For one thread; `replayer.at` is told of each step under way."""

    def __init__(
        self, layer: Layer, directory: str, at: Callable[[str], object], clock: Callable[[], float]
    ) -> None:
        self.layer, self.directory = layer, directory
        self._at, self._clock = at, clock
        self._findings, self._files = Findings(), Findings()
        self._managed = MovingLock(os.path.join(directory, MANAGED))
        self._replayer: Replayer | None = None
        self._words: _Told | None = None
        self._places = dict.fromkeys((directory, os.path.realpath(layer.config.spool_directory)))
        """Where processes that have pages of what is here look for what was stored."""
        self._identity: list[tuple[int, int] | None] = []
        self._brought = 0
        self._blocked_since: float | None = None
        self._back_until = self._yields_until = self._tends_at = self._files_at = float("-inf")

    def turn(self) -> float:
        """Do what is to be done now; after how many seconds there may be more."""
        now = self._clock()
        replayer = self._open()
        if replayer is None:
            return TURN_MAX_S
        if not self._claim(now):
            replayer.give_lease()
            return TURN_MAX_S
        self._managed.move()
        if now < self._yields_until:
            return min(TURN_MAX_S, self._yields_until - now)
        progress = replayer.step()
        self._tell(replayer, progress, now)
        if now >= self._tends_at and not replayer.spool.is_empty:
            replayer.spool.tend()
            self._tends_at = now + (TEND_S if progress.applied else IDLE_TEND_S)
        if now >= self._files_at:
            self._look_at_files(now)
        if progress.blocked or progress.wait_s > 0.0:
            return min(TURN_MAX_S, progress.wait_s or LOOK_S)
        return 0.0 if progress.applied else LOOK_S

    def close(self) -> None:
        """Let go of the directory: lease, files and all."""
        replayer, self._replayer = self._replayer, None
        if replayer is not None:
            replayer.give_lease()
            replayer.spool.close()
        if self._words is not None:
            self._words.close()
        self._managed.release()
        self._words, self._identity, self._blocked_since = None, [], None

    # --- whether it can be used -----------------------------------------------------------------------

    def _open(self) -> Replayer | None:
        """What empties the directory as it is now; None = there is none, or it must not be used."""
        identity = [_identity(path) for path in self._places]
        if identity[0] is None:
            if self._replayer is not None:
                log.info("%s is gone", self.directory)
                self.close()
            return None  # it is made by whoever has something to put there
        if self._replayer is not None and identity == self._identity:
            return self._replayer
        self.close()
        trouble = trouble_of(self.directory)
        if not trouble:
            trouble = self._equip()
        if trouble:
            self._findings.say("place", trouble)
            return None
        self._findings.over("place")
        self._identity = identity
        log.info("%s is looked after", self.directory)
        return self._replayer

    def _equip(self) -> str:
        """Open what a step needs; why not, if it cannot be."""
        config = self.layer.config
        words = [Epochs(os.path.join(path, EPOCHS)) for path in self._places if os.path.isdir(path)]
        failed = [one.error for one in words if not one.shared]
        if failed:  # what is stored must be told to whoever has a page of it
            return f"{self.directory}: processes cannot be told what is replayed: {failed[0]}"
        self._words = _Told(*words)
        self._replayer = Replayer(
            Spool(self.directory, config.spool_max_bytes, self._clock), self.layer.store, self.layer.guard,
            config.replay_rate_per_s, config.replay_batch_max, self._clock,
        )  # fmt: skip
        self._replayer.epochs, self._replayer.cache = self._words, self.layer.cache
        self._replayer.at = self._reached
        return ""

    def _claim(self, now: float) -> bool:
        """Be the managed one here, or stand back from it for a while; False = another one is, and moves."""
        if now < self._back_until:
            return True
        try:
            if self._managed.stands:
                return True
            self._managed.release()
            return self._managed.acquire() or self._managed.stands_still()
        except OSError as error:
            self._findings.say("claim", f"{self._managed.path}: {error.strerror}")
            return False

    def _reached(self, step: str) -> None:
        self._managed.move()
        self._at(step)

    # --- what is told ---------------------------------------------------------------------------------

    def _tell(self, replayer: Replayer, progress: Progress, now: float) -> None:
        """Say what came of a step, and stand back from a database that takes nothing."""
        self._brought += progress.applied
        if progress.blocked in ("database", "spool") and not progress.applied:
            text = replayer.totals.last_error or "its breaker is open"
            what = f"{self.directory}: the {progress.blocked} takes nothing: {text}"
            self._findings.say(progress.blocked, what, text.partition(":")[0])
            if self._blocked_since is None:
                self._blocked_since = now
            if progress.blocked == "database" and now - self._blocked_since >= PATIENCE_S:
                self._stand_back(replayer, now)
        elif progress.applied or not (progress.blocked or progress.wait_s):  # it did something, or had not to
            self._blocked_since = None
            for subject in ("database", "spool"):
                self._findings.over(subject)
        if self._brought and not progress.blocked and not replayer.spool.next_batch(1):
            log.info("%s: %d brought in, nothing waits", self.directory, self._brought)
            self._brought, self._tends_at = 0, now

    def _stand_back(self, replayer: Replayer, now: float) -> None:
        replayer.give_lease()
        self._managed.release()
        self._blocked_since = None
        self._back_until, self._yields_until = now + BACK_S, now + YIELD_S

    def _look_at_files(self, now: float) -> None:
        self._files_at = now + FILES_S
        found = dict(files_in_the_way(self.directory))
        for path, text in found.items():
            self._files.say(path, text)
        self._files.keep(found)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
