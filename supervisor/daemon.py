"""The daemon: one event loop that feeds the actors. Deliberately dull; decides nothing.

Started by the nursery by fork and exec (`python -m supervisor.daemon TABLE`), with everything that must
outlive it as inherited descriptors. Start: read the checkpoint, take over the segments, drain once,
publish everything, then serve. End (asked, or the nursery gone): drain, commit, copy to disk, exit 0.
Neighbours: `nursery` (parent), `mind`, `intake_actor`, `control_server`, `disk_actor` (the actors).
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ipc.segment import boot_id
from supervisor import descriptors, health, priority, settings, start
from supervisor.actor import Fault, Stage
from supervisor.attachments import Attachments
from supervisor.commanders import is_privileged
from supervisor.connections import Connections, Limits
from supervisor.control_messages import Stored, Sweep, Turn
from supervisor.control_server import ControlServer
from supervisor.descriptor_closer import DescriptorCloser
from supervisor.descriptors import P_BEAT, P_NURSERY, Inheritance
from supervisor.disk_actor import CopyDue, DiskActor
from supervisor.doorbells import PAUSE_S, Doorbells
from supervisor.errand import Errand
from supervisor.errors import ActorFailed, ConfigurationError
from supervisor.facts import Facts
from supervisor.figures import Figures, Subject, subjects
from supervisor.hello import Greeter
from supervisor.intake import Intake
from supervisor.intake_actor import Died, IntakeActor, Look
from supervisor.leaving import Leaving, Pids
from supervisor.managed import Accepted, Managed, State
from supervisor.managed import Look as LookAtOrders
from supervisor.messages import Tick, WorkerForgotten, WorkerLeft
from supervisor.mind import Mind, Tell
from supervisor.probes import Look as LookAtProbes
from supervisor.probes import Probes, Reconfigured
from supervisor.refusals import COMMAND, HELLO
from supervisor.reload import Answered, Asked, Reload
from supervisor.reload import Look as LookAtReload
from supervisor.selfcheck import examine
from supervisor.settings import SupervisorSettings
from supervisor.starting import STATUS_BYTES_MAX, Starting, silent_s
from supervisor.steps import crash_at
from supervisor.talks import Talks
from supervisor.timers import Timer
from supervisor.user_database import UserDatabase
from supervisor.view_server import ViewServer

log = logging.getLogger("breakerd.daemon")

EXIT_OK: Final = 0
EXIT_ACTOR: Final = 70
EXIT_CONFIGURATION: Final = 78
HEARTBEAT_S: Final = 0.1
GC_THRESHOLDS: Final = (50_000, 20, 20)
"""For `gc`: a snapshot makes a great many lists, and none of them is part of a cycle."""
SWEEP_S: Final = 0.2
PROBES_S: Final = 0.1
"""How often it is looked which probe is due, and which prober is late."""
STATUS_S: Final = 1.0
"""How often systemd is told how things are, if they changed."""
FAULT_VARIABLE: Final = "BREAKERD_RAISE_AT"
CRASH_VARIABLE: Final = "BREAKERD_CRASH_AT"


class Daemon:
    """Everything of one life of the daemon, wired together."""

    def __init__(self, inherited: Inheritance, loop: asyncio.AbstractEventLoop) -> None:
        self._inherited = inherited
        self._loop = loop
        self._code = EXIT_OK
        told = _configuration(inherited)
        priority.change(told.log_level, os.environ, told.log_format)
        self._boot = boot_id()
        # Read once: it takes a descriptor, and an answer must not need one.
        self._software = start.software()
        self._step = crash_at(os.environ.get(CRASH_VARIABLE))
        self._channel = socket.socket(fileno=inherited.channel)
        self._channel.setblocking(False)
        self._pulse = memoryview(mmap.mmap(inherited.pulse, mmap.PAGESIZE)).cast("Q")
        self._starting = Starting(self._pulse, self._channel, time.monotonic_ns, time.sleep)
        self._started, self._closer = time.monotonic(), DescriptorCloser()
        self._problems, self._said = tuple[str, ...](), ""
        fault = Fault(os.environ.get(FAULT_VARIABLE))
        self._stage = Stage(loop.call_soon, time.monotonic, self._give_up, fault=fault)
        begun = self._starting.begin(inherited, self._boot, told)
        self._intake = Intake(begun.engine)
        self._attachments = Attachments(
            loop,
            self._intake,
            self._channel,
            lambda worker: self._stage.post("intake", Died(worker)),
            time.monotonic,
            self._step,
        )
        self._attachments.managed = inherited.managed
        self._mind = Mind(
            begun.engine, begun.journal, self._attachments, time.monotonic, random.random, self._step
        )
        self._reader = IntakeActor(self._intake, self._mind, time.monotonic, self._step)
        self._bells = Doorbells(dict(inherited.bells), loop, self._to_nursery, self._rung)
        self._greeter = Greeter(
            self._mind, self._attachments, told, self._bells, self._boot, time.monotonic_ns
        )
        self._control = ControlServer(self._mind, self._greeter, told, time.monotonic)
        later = loop.call_soon_threadsafe
        self._disk = DiskActor(begun.disk, self._mind, Errand(later), time.monotonic, self._boot)
        self._control.later = loop.call_soon
        self._control.users = UserDatabase(later, time.monotonic)
        self._control.discard = self._greeter.discard = self._closer.discard
        self._control.examine = lambda: examine(
            inherited.runtime, inherited.state, self._disk, time.monotonic_ns()
        )
        self._reload = Reload(told, self._to_nursery, Errand(later), self._apply, time.monotonic, self._step)
        self._managed = Managed(self._to_nursery, inherited.runtime, told.workers, time.monotonic)
        self._figures = Figures(self._subjects, Errand(later))
        self._talks = Talks(
            loop, lambda message: self._stage.post("probes", message), self._to_nursery, Errand(later)
        )
        self._probes = Probes(self._mind.openings, self._talks, time.monotonic, random.random)
        self._reload.problem = inherited.config_problem
        self._connections = self._seat(told)
        self._ticking = Timer(loop, told.tick_s, self._tick)
        self._copying = Timer(loop, told.disk_interval_s, lambda: self._stage.post("disk", CopyDue()))
        pids = Pids(self._managed.pids, lambda: [one.pid for one in self._mind.engine.workers.values()])
        self._leaving = Leaving(loop.call_later, time.monotonic, loop.stop, self._nursery_lives, pids)
        self._starting.take_over(lambda: self._takeover(begun))

    def _seat(self, told: SupervisorSettings) -> Connections:
        """Give every actor its mailbox, and whoever answers the connections."""
        actors = (self._mind, self._reader, self._control, self._disk, self._reload)
        for actor in (*actors, self._managed, self._figures, self._probes):
            actor.stage = self._stage
            self._stage.add(actor)
        connections = Connections(
            socket.socket(fileno=self._inherited.listener),
            self._loop,
            time.monotonic,
            lambda request: self._stage.post("control", request),
            Limits.of(told),
        )
        connections.is_privileged = lambda uid: is_privileged(uid, self._control.settings.commanders)
        self._control.views = ViewServer(
            self._mind, self._facts, connections, self._view_turn_after, time.monotonic
        )
        connections.discard, connections.backlog = self._closer.discard, self._closer.backlog
        self._closer.closed = lambda: self._loop.call_soon_threadsafe(connections.resume)
        for answering in (self._control, self._reload, self._managed, self._figures, self._probes):
            answering.connections = connections
        return connections

    def _takeover(self, begun: start.Begun) -> None:
        """Before anybody is served: adopt what the nursery kept, drain it, publish all of it again."""
        self._step("loaded")
        problems = list(begun.problems)
        for held in begun.adopted:
            self._starting.beat()
            problem = self._attachments.adopt(held, self._mind.engine, self._lost)
            if problem:
                # One bad segment is set aside and told; it never stops the start.
                problems.append(problem)
        self._problems = tuple(problems)
        self._step("adopted")
        self._starting.beat()
        self._mind.transact(begun.opening(self._problems), self._starting.wait_for_room)
        self._starting.beat()
        self._step("opened")
        for worker, pid in begun.absent:
            self._attachments.await_return(worker, pid, self._lost)
        for held in begun.tombs_held:
            descriptors.close_all([held.memory, held.pidfd])
            self._attachments.drop(held.nonce)
        self._intake.heartbeat(time.monotonic_ns())
        self._attachments.deliver(list(self._mind.engine.publications()))
        for worker in list(self._intake.sources):
            self._attachments.stamp(worker, self._mind.engine.incarnation)
            self._intake.publish_committed(worker)
        self._step("republished")

    def _lost(self, worker: str) -> None:
        """It died without handing its segment back."""
        self._stage.post("mind", Tell((WorkerLeft(worker, segment_lost=True),)))

    def run(self) -> int:
        """Serve until asked to end; the exit code."""
        loop = self._loop
        self._bells.start()
        self._every(PAUSE_S, self._bells.listen_again)
        loop.add_reader(self._channel.fileno(), self._from_nursery)
        loop.add_signal_handler(signal.SIGTERM, self._leaving.asked)
        self._every(HEARTBEAT_S, self._beat)
        for work in (self._attachments.remind, self._closer.retry, self._mind.make_room):
            self._every(SWEEP_S, work)
        self._every(SWEEP_S, self._greeter.keep_bells)
        for actor, message in (("control", Sweep()), ("reload", LookAtReload()), ("managed", LookAtOrders())):
            self._every(SWEEP_S, partial(self._stage.post, actor, message))
        self._stage.post("probes", Reconfigured(self._control.settings.probes()))
        for talk in self._inherited.probers:
            self._talks.add(talk.title, talk.pid, talk.socket)
        self._every(PROBES_S, lambda: self._stage.post("probes", LookAtProbes()))
        self._connections.start()
        self._starting.ready()
        self._every(SWEEP_S, self._starting.ready)
        if self._inherited.managed:
            self._tell_status()
            self._every(STATUS_S, self._tell_status)
        log.info("serving, pid %d, incarnation %d", os.getpid(), self._mind.engine.incarnation)
        loop.run_forever()
        self._end()
        return self._code

    def _every(self, seconds: float, work: Callable[[], object]) -> None:
        """Do this work again and again, whatever the configuration says."""
        Timer(self._loop, seconds, work)

    def _apply(self, new: SupervisorSettings) -> None:
        """A reload is committed: use the new settings wherever they are used."""
        priority.change(new.log_level, os.environ, new.log_format)
        self._greeter.settings = self._control.settings = new
        self._managed.tables = new.workers
        self._connections.limits = Limits.of(new)
        self._stage.post("probes", Reconfigured(new.probes()))
        self._ticking.every(new.tick_s)
        self._copying.every(new.disk_interval_s)

    def _view_turn_after(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._stage.post, "control", Turn())

    def _rung(self) -> None:
        """A doorbell was rung."""
        self._stage.post("intake", Look())

    def _tick(self) -> None:
        """The guarantee behind the doorbell: at most one tick passes before a word is read."""
        self._stage.post("intake", Look(tick=True))
        if self._mind.engine.next_time() <= time.monotonic():
            self._stage.post("mind", Tell((Tick(),)))

    def _beat(self) -> None:
        """Written by the loop that does the work, so that a stuck loop is seen as such."""
        now = time.monotonic_ns()
        self._pulse[P_BEAT] = now
        self._intake.heartbeat(now)

    def _tell_status(self) -> None:
        """One sentence for systemd, through the nursery; a full channel loses it to the next second."""
        text = health.sentence(self._mind.engine, self._facts())
        if text != self._said and descriptors.send(
            self._channel, descriptors.STATUS + text.encode()[:STATUS_BYTES_MAX]
        ):
            self._said = text

    def _from_nursery(self) -> None:
        """What the nursery sends: descriptors were closed; or nothing any more, because it died."""
        while (got := descriptors.receive(self._channel)) is not None:
            data, numbers = got
            if data[:1] == descriptors.PROBER and len(numbers) == 1:
                told = json.loads(data[1:])
                self._talks.add(told["title"], told["pid"], numbers.pop())
            if data[:1] == descriptors.LISTENER and len(numbers) == 1:
                self._connections.move(socket.socket(fileno=numbers.pop()))
            descriptors.close_all(numbers)
            if not data:
                log.error("the nursery is gone: writing the last checkpoint")
                self._loop.remove_reader(self._channel.fileno())
                # Whoever comes now waits for the next supervisor: nobody keeps descriptors any more.
                self._connections.stop()
                self._leaving.orphaned()
                return
            if data[:1] == descriptors.STORED:
                self._attachments.stored(data[1:17].hex())
                self._stage.post("control", Stored(data[1:17].hex()))
            if data[:1] == descriptors.MANAGED:
                self._stage.post("managed", State(data[1:]))
            if data[:1] == descriptors.COMMANDED:
                self._stage.post("managed", Accepted(data[1:]))
            if data[:1] == descriptors.HANGUP:
                self._stage.post("reload", Asked(hangup=int.from_bytes(data[1:9], "big")))
            if data[:1] == descriptors.LOADED:
                told = json.loads(data[9:]).get("text", "")
                self._stage.post("reload", Answered(int.from_bytes(data[1:9], "big"), told))
            if data[:1] == descriptors.DROPPED:
                worker = data[1:17].hex()
                if self._stage.post("mind", Tell((WorkerForgotten(worker),))):
                    self._attachments.dropped(worker)

    def _nursery_lives(self) -> bool:
        nursery = self._inherited.nursery
        return os.getppid() == nursery and descriptors.state_of(nursery) not in ("Z", "X", "")

    def _to_nursery(self, data: bytes, numbers: tuple[int, ...]) -> bool:
        return descriptors.send(self._channel, data, numbers)

    def _give_up(self, failed: ActorFailed) -> None:
        """An actor failed too often: this life ends, the nursery decides about the next."""
        log.critical("%s: the daemon ends", failed)
        self._code = EXIT_ACTOR
        self._loop.stop()

    def _end(self) -> None:
        """No more requests; everything that was put is counted, committed and copied."""
        self._connections.stop()
        if self._code == EXIT_OK:
            self._stage.post("intake", Look(tick=True, last=True))
            self._stage.turn()
            try:
                self._mind.journal.snapshot(self._mind.engine.to_plain())
            except OSError as error:
                # All of it is committed already; only the next start has more to read.
                log.warning("no last snapshot: %s", error.strerror or error)
            self._disk.save_now()
        self._connections.close()
        self._connections.release()

    def _subjects(self) -> list[Subject]:
        """Every process whose figures may be asked for: our own, the managed ones, the attached ones."""
        workers = [(one.pid, one.since, one.inode) for one in self._mind.engine.workers.values()]
        managed = [one.pid for one in self._managed.processes()]
        return subjects(self._inherited.nursery, managed, workers, time.monotonic())

    def _facts(self, verb: Any = "") -> Facts:
        """What the engine cannot know, as far as this verb shows it."""
        return Facts(
            started_at=self._started,
            pid=os.getpid(),
            nursery_pid=self._inherited.nursery,
            nursery_silent_s=silent_s(self._pulse[P_NURSERY], time.monotonic()),
            nursery_started_at=self._inherited.started_at,
            software=self._software,
            checkpoint_problem=self._mind.problem,
            disk_problem=self._disk.problem,
            configuration_problem=self._reload.problem,
            degraded=(*self._problems, *filter(None, (self._mind.journal.cramped,))),
            restarts=tuple(sorted(self._stage.restarts().items())),
            failed_at=self._stage.failed_at(),
            accept_full=self._connections.refused_full,
            accept_emfile=self._connections.refused_emfile,
            turned_away_at=self._connections.turned_away_at,
            log_dropped=priority.dropped(),
            ring_used=self._attachments.ring_used() if verb == "workers" else {},
            probe_waits=self._probes.waits(),
            probers=self._probes.probers,
            managed=self._managed.processes(),
            namespaces=frozenset(table.name for table in self._control.settings.namespaces),
            refusals=self._control.refusals.going_on(),
            refused_hellos=self._control.refusals.totals[HELLO],
            denied_commands=self._control.refusals.totals[COMMAND],
        )


def _configuration(inherited: Inheritance) -> SupervisorSettings:
    """What the nursery keeps of the file. Raises ConfigurationError."""
    return (
        settings.parse(inherited.config_text, inherited.config) if inherited.config else SupervisorSettings()
    )


def main() -> int:
    """The entry of the process; the argument is the number of the table's descriptor."""
    # A terminal that closes, or its ^C, tells the whole group: it is the nursery's word that counts.
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    table = int(sys.argv[1])
    with open(table, "rb") as file:
        file.seek(0)
        inherited = Inheritance.from_json(file.read())
    for number in inherited.numbers():
        os.set_inheritable(number, False)
    priority.begin(logging.INFO, os.environ)
    if not descriptors.die_with_parent(inherited.nursery):
        return EXIT_OK
    gc.set_threshold(*GC_THRESHOLDS)
    loop = asyncio.new_event_loop()
    try:
        return Daemon(inherited, loop).run()
    except ConfigurationError as error:
        log.critical("%s", error)
        return EXIT_CONFIGURATION
    finally:
        loop.close()


if __name__ == "__main__":
    sys.exit(main())
