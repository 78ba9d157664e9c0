"""All managed processes: started in order, kept alive by their policies, stopped in reverse.

Lives in the nursery's loop: `turn` does what is due and returns, `next_time` says when it must be called
again; a fork takes milliseconds, so only a few are made in one turn. Told what happens by nobody but
pidfds and the clock, so that a dead daemon changes nothing here; what the daemon should know goes to
`reports`, which sends it when there is one.
Neighbours: `ward` (one process), `policy` (the rules), `nursery` (the loop). Knows no breaker.
"""

from __future__ import annotations

import logging
import select
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from supervisor.errors import BadRequest, WorkerNotFound
from supervisor.lives import SHORTAGES, STOOD_S
from supervisor.policy import NEVER, Act, WardState
from supervisor.reports import Reports
from supervisor.retreat import Retreat
from supervisor.settings import SupervisorSettings
from supervisor.settings_workers import WorkerTable
from supervisor.ward import Home, Ward, WardSpec

log = logging.getLogger("breakerd.wards")

FORKS_MAX: Final = 4
"""Forks in one turn of the loop: nobody else waits longer than for these."""
LOOK_S: Final = 1.0
"""How often memory and heartbeats are looked at."""
SHORTAGE_S: Final = 0.5
"""After a fork for which no process, thread or descriptor was to be had, the next one waits so long."""
STOP_ALL_S: Final = 20.0
"""How long all workers together may take to end when breakerd does; then the rest is killed. With the
daemon's own time it is less than TimeoutStopSec of the unit."""
HURRY_S: Final = 5.0
"""So long before that, whoever was not asked to end yet is asked, whatever the order: one that takes all the
time must not have the others killed in the middle of their work."""
LAST_S: Final = 2.0
"""How long killed workers are waited for: one that the kernel holds must not hold breakerd."""
PROBER_RESTARTS_MAX: Final = 1_000_000
"""Probers are never given up: without them a breaker only waits for its time-out."""
PROBER_STOP_S: Final = 2.0
VERBS: Final = ("start", "stop", "restart")
ALL: Final = "all"


class Wards:
    """Every managed process, by the order of the configuration file."""

    def __init__(self, poll: select.poll, home: Home, reports: Reports) -> None:
        self._poll = poll
        self._home = home
        self._reports = reports
        self._groups: dict[str, list[Ward]] = {}
        """By name, in the order of starting."""
        self._leaving: list[Ward] = []
        """Their tables were removed; they are forgotten when they have ended."""
        self._births: deque[Ward] = deque()
        """STARTING, and not forked yet."""
        self._bear_at = 0.0
        """Nobody is forked before: nothing could be had for it lately."""
        self._retreat: Retreat | None = None
        self._end_at = NEVER
        """When the end of all has taken too long; NEVER = the end has not begun."""
        self._look_at = 0.0
        self._turned_at = self._woke_at = 0.0
        """The last turn, and the last one after the loop stood still: nobody is held to have been silent
        then."""
        self.escalated = ""
        """Who failed so often that everything has to end; empty = nobody."""

    # --- who there is ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Ward]:
        for group in self._groups.values():
            yield from group
        yield from self._leaving

    def pids(self) -> set[int]:
        """The processes whose ends are taken here."""
        return {ward.pid for ward in self if ward.pid}

    def apply(self, specs: Sequence[WardSpec], now: float) -> None:
        """Be what these say: changed tables restart, removed ones stop, added ones start; others go on."""
        before, self._groups = self._groups, {}
        for spec in specs:
            self._groups[spec.table.name] = self._group(spec, before.pop(spec.table.name, []), now)
        for group in before.values():
            for ward in group:
                self._remove(ward, now)

    def _group(self, spec: WardSpec, old: list[Ward], now: float) -> list[Ward]:
        """The processes of one table, made of those that there are."""
        for ward in old[spec.table.count :]:
            self._remove(ward, now)
        group = old[: spec.table.count]
        changed = bool(group) and group[0].spec.table.identity() != spec.table.identity()
        for ward in group:
            self._follow(ward, spec)
            if changed:
                self._do(ward, ward.course.adopt(spec.table, now), now)
            ward.course.table = spec.table
        for number in range(len(group) + 1, spec.table.count + 1):
            ward = self._again(spec, number) or Ward(spec, number, now)
            group.append(ward)
            self._reports.note(ward.title, ward.plain(self._home))
            if spec.table.autostart:
                self._do(ward, ward.course.start(now), now)
        return group

    def _follow(self, ward: Ward, spec: WardSpec) -> None:
        """It goes on under this table, and perhaps under another title."""
        before, ward.spec = ward.title, spec
        if ward.rename(spec.titles()[ward.number - 1], self._home):
            self._reports.gone(before)
        self._reports.note(ward.title, ward.plain(self._home))

    def _again(self, spec: WardSpec, number: int) -> Ward | None:
        """One that is about to leave, and is wanted again under the same name and number."""
        for ward in self._leaving:
            if (ward.spec.table.name, ward.number) == (spec.table.name, number):
                self._leaving.remove(ward)
                self._follow(ward, spec)
                ward.course.table = spec.table
                return ward
        return None

    def _remove(self, ward: Ward, now: float) -> None:
        self._leaving.append(ward)
        self._do(ward, ward.course.stop(now), now)
        self._forget(ward)

    def _forget(self, ward: Ward) -> None:
        """Its table is gone, and now it has ended, too."""
        if ward in self._leaving and not ward.course.living:
            self._leaving.remove(ward)
            self._reports.gone(ward.title)
            self._home.logs.forget(ward.title)

    # --- what is asked for ----------------------------------------------------------------------------

    def command(self, verb: str, name: str, now: float) -> list[str]:
        """Start, stop or restart these; their titles. Raises BadRequest."""
        if verb not in VERBS:
            raise BadRequest(f"there is no verb {verb}; there are {', '.join(VERBS)}")
        if self._end_at != NEVER:
            raise BadRequest("breakerd is about to end")
        wards = self._named(name)
        if name == ALL:
            groups = [
                [ward.course for ward in group if not ward.spec.internal] for group in self._groups.values()
            ]
            self._retreat = Retreat(groups) if verb == "stop" else None
        if verb == "stop" and name == ALL:
            self._go_on(now)
            return [ward.title for ward in wards]
        for ward in wards:
            does = {"start": ward.course.start, "stop": ward.course.stop, "restart": ward.course.restart}[
                verb
            ]
            self._do(ward, does(now), now)
        return [ward.title for ward in wards]

    def _named(self, name: str) -> list[Ward]:
        if name == ALL:
            return [ward for group in self._groups.values() for ward in group if not ward.spec.internal]
        group, _, number = name.partition(":")
        found = [
            ward
            for ward in self._groups.get(group, ())
            if not ward.spec.internal
            if not number or name in (ward.title, f"{group}:{ward.number}")
        ]
        if not found:
            raise WorkerNotFound(name)
        return found

    def replace(self, title: str, pid: int, now: float) -> None:
        """Kill this life of one of the supervisor's own, if it still is the one; the next follows at once."""
        for ward in self:
            if ward.spec.internal and ward.title == title and ward.pid == pid:
                self._do(ward, ward.course.replace(now), now)

    def leave(self, now: float) -> None:
        """Begin to stop all, in reverse order."""
        self._end_at = now + STOP_ALL_S + LAST_S
        for ward in self:
            if not ward.pid:
                self._do(ward, ward.course.stop(now), now)
        groups = [[ward.course for ward in group] for group in self._groups.values()]
        self._retreat = Retreat(
            [*groups, [ward.course for ward in self._leaving]], now + STOP_ALL_S, now + STOP_ALL_S - HURRY_S
        )
        self._go_on(now)

    def over(self, now: float) -> bool:
        """True if all have ended, or will not."""
        return now >= self._end_at or (self._end_at != NEVER and not any(ward.course.living for ward in self))

    def kill(self) -> None:
        """End all of them now; nobody waits for it."""
        self._births.clear()
        for ward in self:
            ward.signal(signal.SIGKILL)

    # --- the loop -------------------------------------------------------------------------------------

    def next_time(self, now: float) -> float:
        """When `turn` has to be called at the latest, s."""
        times = [ward.course.until for ward in self if ward not in self._births]
        if self._births:
            times.append(max(now, self._bear_at))
        if self._retreat is not None:
            times.append(self._retreat.until)
        if self._limited():
            times.append(self._look_at)
        return min(times, default=NEVER)

    def turn(self, ready: set[int], now: float) -> None:
        """Reap who ended, do what is due."""
        if now - self._turned_at > STOOD_S:
            self._woke_at = now
        self._turned_at = now
        for ward in list(self):
            if ward.pidfd in ready:
                self._reap(ward, now)
            if ward.course.state is WardState.STARTING and not ward.pid:
                continue  # not forked yet
            before = ward.course.state
            act = ward.course.turn(now)
            if act is not Act.NOTHING or ward.course.state is not before:
                self._do(ward, act, now)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(now)
        self._go_on(now)
        for _ in range(min(FORKS_MAX, len(self._births))):
            if now >= self._bear_at:
                self._bear(self._births.popleft(), now)

    def _limited(self) -> list[Ward]:
        """Who has to be looked at."""
        return [
            ward
            for ward in self
            if ward.pid
            and (ward.spec.table.memory_max is not None or ward.spec.table.heartbeat_timeout_s is not None)
        ]

    def _look(self, now: float) -> None:
        """Who is over a limit is ended; who lost lines, is told of."""
        for ward in self._limited():
            if ward.course.state is not WardState.STOPPING and (why := ward.over(now, self._woke_at)):
                log.warning("%s (pid %d): %s: it is restarted", ward.title, ward.pid, why)
                self._do(ward, ward.course.overran(now), now)
        for ward in self:
            self._reports.changed(ward.title, ward.plain(self._home))

    def _go_on(self, now: float) -> None:
        """The next step of a retreat, if there is one."""
        if self._retreat is None:
            return
        by_course = {id(ward.course): ward for ward in self}
        for course, act in self._retreat.turn(now):
            if (ward := by_course.get(id(course))) is not None:
                self._do(ward, act, now)
        if self._retreat.over:
            self._retreat = None

    def _do(self, ward: Ward, act: Act, now: float) -> None:
        """What its policy asks for."""
        if act is Act.FORK:
            self._births.append(ward)
        elif act is Act.ESCALATE:
            self.escalated = self.escalated or ward.title
        elif act in (Act.TERMINATE, Act.KILL):
            if ward in self._births:
                # It was never born, so it cannot end by itself.
                self._births.remove(ward)
                self._do(ward, ward.course.ended(now, True, self._home.chance()), now)
            else:
                ward.signal(signal.SIGTERM if act is Act.TERMINATE else signal.SIGKILL)
        self._reports.changed(ward.title, ward.plain(self._home))

    def _bear(self, ward: Ward, now: float) -> None:
        """Fork; where nothing more can be had it waits, which is no fault of its own."""
        try:
            ward.fork(self._home, now)
        except OSError as error:
            why = f"cannot be started: {error.strerror}"
            if ward.last_exit != why:
                log.error("%s %s", ward.title, why)  # noqa: TRY400 (one line)
            ward.last_exit = why
            if error.errno in SHORTAGES:
                self._births.appendleft(ward)
                self._bear_at = now + SHORTAGE_S
                self._reports.changed(ward.title, ward.plain(self._home))
            else:
                self._ended(ward, False, now)
            return
        ward.course.born(now)
        self._poll.register(ward.pidfd, select.POLLIN)
        if ward.talk is not None:
            self._reports.talks(ward.title, ward.pid, ward.talk)
        self._reports.changed(ward.title, ward.plain(self._home))

    def _reap(self, ward: Ward, now: float) -> None:
        self._poll.unregister(ward.pidfd)
        pid = ward.pid
        self._reports.silent(ward.title)
        well = ward.reap(self._home)
        log.log(
            logging.INFO if well or ward.course.state is WardState.STOPPING else logging.WARNING,
            "%s (pid %d) ended: %s", ward.title, pid, ward.last_exit,
        )  # fmt: skip
        self._ended(ward, well, now)

    def _ended(self, ward: Ward, well: bool, now: float) -> None:
        if self._end_at != NEVER:
            ward.course.stop(now)  # nobody is started any more
        act = ward.course.ended(now, well, self._home.chance())
        if ward.course.state is WardState.FATAL:
            log.error("%s ended more than %d times in %g s: given up", ward.title,
                      ward.course.table.max_restarts, ward.course.table.restart_window_s)  # fmt: skip
        self._do(ward, act, now)
        self._forget(ward)


def specs_of(settings: SupervisorSettings) -> tuple[WardSpec, ...]:
    """Every managed process that a configuration asks for: the probers first, if there is a probe."""
    workers = tuple(WardSpec(table) for table in settings.workers)
    if not any(table.probe for table in settings.breakers):
        return workers
    prober = WorkerTable(
        "prober",
        "workers.prober:main",
        count=settings.probe_processes,
        max_restarts=PROBER_RESTARTS_MAX,
        stop_timeout_s=PROBER_STOP_S,
    )
    return (WardSpec(prober, internal=True, talk=True), *workers)
