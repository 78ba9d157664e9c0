"""What answers show that the engine cannot know: processes, files, memory. Frozen, taken per answer.

The daemon fills it from what it has at hand; nothing here is asked from a dependency. Neighbours:
`control_server` (which passes it on), `health` and `views` (which show it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process costs."""

    rss_bytes: int
    cpu_s: float
    threads: int
    fds: int | None = None
    """None = it is another user's, who does not show them."""


@dataclass(frozen=True, slots=True)
class ManagedProcess:
    """One managed process as the nursery told last."""

    name: str
    """Of its table."""
    number: int
    """From 1."""
    title: str
    """NAME, or NAME:number where there are several."""
    state: str
    """RUNNING, STARTING, BACKOFF, STOPPING, STOPPED, EXITED or FATAL."""
    pid: int = 0
    """0 = there is no process."""
    since: float = 0.0
    """When it came into this state, s of CLOCK_MONOTONIC."""
    restarts: int = 0
    last_exit: str = ""
    """How its last process ended, in words."""
    internal: bool = False
    """The supervisor's own: nobody starts or stops it."""
    log_gaps: int = 0
    """Lines of its log that are lost."""


@dataclass(frozen=True, slots=True)
class ProbeWait:
    """How long the probes of one table waited for a free prober, from due to asked."""

    last_s: float = 0.0
    max_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """What one user is refused at the moment, for one reason."""

    kind: str
    """`refused` = hellos of workers, `denied` = commands."""
    uid: int
    user: str
    pid: int
    """Of the process that was refused last."""
    reason: str
    """A fixed short word."""
    text: str
    """The sentence that was answered, or what was asked for."""
    count: int
    """How often, since it began."""
    first: float
    last: float
    """When, s of CLOCK_MONOTONIC."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The supervisor's own circumstances. A problem is a sentence; empty = there is none."""

    started_at: float
    """When this daemon began to serve, s of CLOCK_MONOTONIC."""
    pid: int
    nursery_pid: int
    nursery_started_at: float | None = None
    """When the nursery was started; None = as long ago as this daemon."""
    nursery_silent_s: float = 0.0
    """How long ago the nursery's loop turned last."""
    software: str = ""
    """The version of breakerd."""
    checkpoint_problem: str = ""
    """Why a commit is not durable; while it stands, the supervisor is not ready."""
    disk_problem: str = ""
    """Why the copy for a reboot is not written."""
    degraded: tuple[str, ...] = ()
    """What else is not as it should be: a quarantined snapshot, a segment that could not be read."""
    configuration_problem: str = ""
    """Why the last reload was not good: the configuration of before it is in force."""
    restarts: tuple[tuple[str, int], ...] = ()
    """How often each actor was restarted, by its name."""
    failed_at: tuple[tuple[str, float], ...] = ()
    """When actors last failed, s of CLOCK_MONOTONIC."""
    accept_full: int = 0
    """Connections turned away since this daemon began, because there were too many of them."""
    accept_emfile: int = 0
    """The same, because there was no free descriptor."""
    turned_away_at: float | None = None
    """When the last one was, s of CLOCK_MONOTONIC."""
    log_dropped: tuple[int, float | None] = (0, None)
    """Lines of the daemon's log that were never written, and when the last one was, s of CLOCK_MONOTONIC."""
    managed: tuple[ManagedProcess, ...] = ()
    """In the order of the configuration, the supervisor's own first."""
    usage: Mapping[int, Usage] = field(default_factory=dict)
    """By pid, where it was asked for and can be known."""
    ring_used: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(used, all) slots of the ring by worker, of workers whose segment is here."""
    probe_waits: Mapping[str, ProbeWait] = field(default_factory=dict)
    """How long the probes of each table wait for a free prober."""
    probers: tuple[str, ...] = ()
    """Titles of the probers that live."""
    refusals: tuple[Refusal, ...] = ()
    """Who is turned away at the moment."""
    refused_hellos: int = 0
    """Hellos that were refused since this daemon began, but for those that need only be said again."""
    denied_commands: int = 0
    """Commands of users who may not command, since this daemon began."""
    namespaces: frozenset[str] = frozenset()
    """Those that the configuration names: an operator knows who uses them."""
