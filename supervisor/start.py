"""The first act of a daemon: what the checkpoint says, set against what the nursery holds.

Every worker of the checkpoint is in one of four cases, and so is every segment that the nursery kept:

    record  held  what it is                          what is done
    live    yes   the normal case                     read on from the recorded position
    live    no    the nursery died too                alive: it may hand its segment back; dead: lost
    tomb    yes   folded, the drop was not answered   drop it again
    tomb    no    the answer was not committed        forget it
    none    yes   deposited, the commit did not come  joins now, from the segment's own position

Neighbours: `daemon` (which acts on this), `journal`, `disk`, `mind` (which rebuilds the engine).
"""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from supervisor import descriptors
from supervisor.descriptors import PHASE_CHECKPOINT, PHASE_COPY, PHASE_STARTING, Held, Inheritance
from supervisor.disk import DiskCopy
from supervisor.engine import Engine
from supervisor.image import Damaged, read_image
from supervisor.journal import FILE_NAME as CHECKPOINT
from supervisor.journal import Journal
from supervisor.messages import (
    Configured,
    DaemonStarted,
    Message,
    WorkerForgotten,
    WorkerJoined,
    WorkerLeft,
)
from supervisor.mind import rebuild
from supervisor.process_identity import has_run_since
from supervisor.settings import SupervisorSettings

log = logging.getLogger("breakerd.start")

QUARANTINED: Final = "state_quarantined: "
"""How a sentence begins that tells of a checkpoint which was set aside whole."""
SET_ASIDE_MAX: Final = 3
"""Files set aside that are kept; the oldest goes first."""
UNREADABLE: Final = (ValueError, TypeError, LookupError)
"""What the engine raises on a snapshot, and `messages.from_plain` on a message, that it never wrote."""


def software() -> str:
    """The installed version of breakerd."""
    try:
        return metadata.version("breakerd")
    except metadata.PackageNotFoundError:
        return "0+source"


@dataclass(frozen=True, slots=True)
class Begun:
    """What a daemon begins with."""

    engine: Engine
    journal: Journal
    disk: DiskCopy
    problems: tuple[str, ...]
    """What could not be read: the supervisor is degraded while this life lasts."""
    told: tuple[str, ...]
    """What is lost as is to be expected, after a reboot: told once."""
    adopted: tuple[Held, ...]
    absent: tuple[tuple[str, int], ...]
    """Workers that live without a segment here: nonce and pid."""
    tombs_held: tuple[Held, ...]
    """Dead workers that the nursery was asked to drop, and has not."""
    _lost: tuple[str, ...]
    _forgotten: tuple[str, ...]
    _boot: int
    _configured: tuple[Message, ...]

    def opening(self, problems: tuple[str, ...]) -> tuple[Message, ...]:
        """The first messages of this life, as one commit; `problems` may be more than ours by now."""
        return (
            DaemonStarted(self.engine.incarnation + 1, self._boot, (*problems, *self.told), os.getuid()),
            *self._configured,
            *(WorkerLeft(worker, segment_lost=True) for worker in self._lost),
            *(WorkerForgotten(worker) for worker in self._forgotten),
        )


def configuring(settings: SupervisorSettings) -> tuple[Message, ...]:
    """Everything by which the engine learns the configuration file: said at the start and by a reload."""
    return Configured(settings.configured()), settings.probes_configured()


def begin(
    inherited: Inheritance,
    boot: int,
    settings: SupervisorSettings,
    now: float,
    phase: Callable[[int], object] = lambda _phase: None,
) -> Begun:
    """Read what earlier lives left, and say by `phase` which of it this start begins with.

    Raises OSError only if the checkpoint cannot be made at all; then nothing was set aside for that.
    """
    problems: list[str] = []
    told: list[str] = []
    disk = DiskCopy(inherited.state)
    phase(PHASE_CHECKPOINT)
    if inherited.fresh & PHASE_CHECKPOINT:
        aside = _set_aside(os.path.join(inherited.runtime, CHECKPOINT))
        problems.append(f"{QUARANTINED}the checkpoint was {aside}")
        journal, found = Journal.open(inherited.runtime, boot, software()), None
    else:
        journal, found = _from_checkpoint(inherited.runtime, boot, problems)
    if found is None:
        phase(PHASE_COPY)
        if inherited.fresh & PHASE_COPY:
            aside = _set_aside(disk.path)  # no daemon that began with it survived
            problems.append(f"{QUARANTINED}the copy was {aside}; this daemon started empty")
        else:
            found = _from_copy(disk, (boot, now), problems, told)
            if inherited.fresh & PHASE_CHECKPOINT and told:
                problems[0] += f"; {told.pop()}"  # one loss, which is counted once
    if found is None:
        phase(PHASE_STARTING)
    engine = found or Engine()
    held = {one.nonce: one for one in inherited.held}
    adopted = [one for nonce, one in held.items() if nonce not in engine.tombs]
    joined = tuple(_joined(one) for one in adopted if one.nonce not in engine.workers)
    for message in joined:
        engine.handle(message, now, 0.0)
    missing = {nonce: worker for nonce, worker in engine.workers.items() if nonce not in held}
    # A worker of another PID namespace has no pid here: whether it lives is seen when it comes back, or not.
    lost = [
        one
        for one, worker in missing.items()
        if worker.pid and is_gone(worker.pid, worker.inode, worker.since)
    ]
    return Begun(
        engine,
        journal,
        disk,
        tuple(problems),
        tuple(told),
        tuple(adopted),
        tuple((nonce, worker.pid) for nonce, worker in missing.items() if nonce not in lost),
        tuple(held[nonce] for nonce in engine.tombs if nonce in held),
        tuple(lost),
        tuple(nonce for nonce in engine.tombs if nonce not in held),
        boot,
        configuring(settings),
    )


def _from_checkpoint(directory: str, boot: int, problems: list[str]) -> tuple[Journal, Engine | None]:
    """The open journal, and the engine that it tells of; None = of none that this version can read.

    A whole checkpoint of another version is set aside at once: no later start would fare better.
    """
    journal = Journal.open(directory, boot, software())
    loaded = journal.load()
    if loaded is None:
        return journal, None
    problems.extend(loaded.problems)
    if loaded.snapshot is None:
        return journal, None
    try:
        return journal, rebuild(loaded)
    except UNREADABLE as error:
        journal.close()
        aside = _set_aside(os.path.join(directory, CHECKPOINT))
        problems.append(f"{QUARANTINED}the checkpoint of breakerd {loaded.software} was {aside}: {error}")
        return Journal.open(directory, boot, software()), None


def _from_copy(
    disk: DiskCopy, here: tuple[int, float], problems: list[str], told: list[str]
) -> Engine | None:
    """From the copy on disk, if it is of use; what went wrong is told. `here` is boot id and time, s."""
    saved = disk.load()
    problems.extend(saved.problems)
    if saved.image is None:
        return None
    try:
        engine = rebuild(read_image(saved.image))
    except Damaged as error:
        problems.append(f"{disk.path}: not used: {error}")
        return None
    except UNREADABLE as error:
        problems.append(f"{QUARANTINED}the copy of it was {_set_aside(disk.path)}: {error}")
        return None
    engine.shift(saved.shift_s(*here))
    told.append(f"continued from the copy in {disk.directory}: what came after it was saved is lost")
    return engine


def _joined(held: Held) -> WorkerJoined:
    """The message that the life before did not come to commit, from what the nursery was told."""
    about = held.about
    return WorkerJoined(
        held.nonce,
        pid=int(about.get("pid", 0)),
        inode=int(about.get("inode", 0)),
        uid=int(about.get("uid", 0)),
        user=str(about.get("user", "")),
        name=str(about.get("name", "")),
        namespace=str(about.get("namespace", "")),
        software=str(about.get("software", "")),
    )


def is_gone(pid: int, inode: int, since: float) -> bool:
    """True if the process of a record without a segment has ended; else it may come back with its own.

    `since` is when it joined, s of CLOCK_MONOTONIC: a process that began later has its pid by chance.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return True
    try:
        other = bool(inode) and os.fstat(pidfd).st_ino != inode
        return other or not has_run_since(pid, since) or descriptors.is_dead(pidfd)
    finally:
        os.close(pidfd)


def _set_aside(path: str) -> str:
    """Give a file that is of no use here a name of its own; what became of it, to be told.

    At most SET_ASIDE_MAX are kept: the runtime directory is memory. Dying in between leaves one more.
    """
    aside = f"{path}.bad-{int(time.time())}"
    earlier = sorted(glob.glob(f"{glob.escape(path)}.bad-*"))
    try:
        for old in earlier[: max(0, len(earlier) + 1 - SET_ASIDE_MAX)]:
            os.unlink(old)
        os.rename(path, aside)
    except FileNotFoundError:
        return "not there"
    except OSError as error:
        return f"not usable, and it cannot be set aside ({error.strerror})"
    return f"set aside as {aside}"
