"""The reader of the rings among the actors: whichever fails at whichever message, the counts are exact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ipc import layout as at
from ipc.segment import Segment
from ipc.vocabulary import BreakerSettings, OutcomeKind
from supervisor.actor import Fault, Stage
from supervisor.engine import Engine
from supervisor.intake import Intake
from supervisor.intake_actor import Died, IntakeActor, Look
from supervisor.journal import Journal
from supervisor.messages import Effect, Retire, WorkerJoined
from supervisor.mind import Mind, Tell
from supervisor.steps import passes_by
from tests.ipc.ring_writer import RingWriter

SETTINGS = BreakerSettings(failure_threshold=None, failure_rate=None).to_json()
WORKERS = ("a" * 32, "b" * 32)


class Daemon:
    """Mind and intake on a stage, with two pretend workers; what is left for later waits in `later`."""

    def __init__(self, folder: Path, fault: str | None = None) -> None:
        self.now = 101.0
        self.takes = 0.0
        """Seconds that each commit takes."""
        self.later: list[Callable[[], None]] = []
        self.stage = Stage(self.later.append, lambda: self.now, self.fail, fault=Fault(fault))
        self.journal = Journal.open(str(folder), 1, "test")
        self.mind = Mind(Engine(), self.journal, self, lambda: self.now, lambda: 0.5, passes_by)
        self.intake = Intake(self.mind.engine)
        self.reader = IntakeActor(self.intake, self.mind, lambda: self.now, passes_by)
        self.mind.stage = self.reader.stage = self.stage
        self.retired: list[str] = []
        self.writers: dict[str, RingWriter] = {}
        for worker in WORKERS:
            self.mind.transact((WorkerJoined(worker, 1, 0, 0, "root", "w", "shop", "test"),))
            segment = Segment.create(at.Layout(1024), bytes.fromhex(worker), 1)
            segment.close_fd()
            self.writers[worker] = RingWriter(segment)
            segment.declare(json.dumps({"row": 0, "breaker": "db", "settings": SETTINGS}).encode())
            self.intake.add(worker, segment, self.mind.engine.reading(worker))
        for actor in (self.mind, self.reader):
            self.stage.add(actor)

    def fail(self, error: Exception) -> None:
        """An actor failed too often, which none should here."""
        raise error

    def deliver(self, effects: list[Effect]) -> None:
        """Effects leave: a worker whose segment is forgotten. It is the end of all that takes time."""
        self.now += self.takes
        for effect in effects:
            if isinstance(effect, Retire):
                self.retired.append(effect.worker)
                self.intake.remove(effect.worker)

    def post(self, message: Any) -> None:
        """Tell the reader something, and let everything that follows from it happen."""
        self.stage.post("intake", message)
        while self.later:
            self.later.pop(0)()

    @property
    def counted(self) -> int:
        """Outcomes in the metrics."""
        return sum(sum(one.metrics.outcomes) for one in self.mind.engine.catalogue.named.values())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons, whose files are closed at the end."""
    with ExitStack() as made:

        def one(fault: str | None = None) -> Daemon:
            daemon = Daemon(tmp_path, fault)
            made.callback(daemon.journal.close)
            return daemon

        yield one


def test_a_look_counts_what_is_there(make: Callable[..., Daemon]) -> None:
    """Outcomes of all workers are counted, and the slots are free again when they are committed."""
    daemon = make()
    for writer in daemon.writers.values():
        writer.fill(10)
    daemon.post(Look())
    assert daemon.counted == 20
    assert [writer.segment.words[at.W_COMMITTED] for writer in daemon.writers.values()] == [11, 11]


@pytest.mark.parametrize("actor", ["intake", "mind"])
@pytest.mark.parametrize("number", range(1, 25))
def test_a_failure_at_any_message_loses_and_doubles_nothing(
    make: Callable[..., Daemon], actor: str, number: int
) -> None:
    """One actor raises at its n-th message, while outcomes come and a worker dies: the totals are exact."""
    daemon = make(f"{actor}:{number}")
    put = 0
    for turn in range(30):
        for writer in daemon.writers.values():
            writer.fill(3)
            writer.put(OutcomeKind.FAILURE)
            put += 4
        daemon.post(Look(tick=turn % 3 == 0))
    for _ in range(3):
        daemon.post(Look(tick=True))
    assert daemon.counted == put
    assert all(writer.segment.words[at.W_COMMITTED] == writer.position for writer in daemon.writers.values())


class Meddler:
    """An actor that is told while a batch is on its way, and has the reader fail at that moment."""

    name = "meddler"

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def receive(self, message: Any) -> None:
        """Fail in the reader's place."""
        self._daemon.reader.restart()

    def restart(self) -> None:
        """Nothing to forget."""


def test_a_reader_that_restarts_while_a_batch_is_on_its_way_does_not_read_it_again(
    make: Callable[..., Daemon],
) -> None:
    """What the mind has in its mailbox is handled once: going back now would count its words twice."""
    daemon = make()
    daemon.stage.add(Meddler(daemon))
    daemon.writers[WORKERS[0]].fill(10)
    # All four wait in this order: the reader drains, the meddler restarts it, then the mind gets the batch.
    daemon.stage.add(Starter(daemon))
    daemon.stage.post("starter", None)
    daemon.post(Look())
    assert daemon.counted == 10
    daemon.writers[WORKERS[0]].fill(5)
    daemon.post(Look())
    assert daemon.counted == 15


class Starter:
    """Posts, as one turn, a look and the meddling after it."""

    name = "starter"

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def receive(self, message: Any) -> None:
        """Post both."""
        self._daemon.stage.post("intake", Look())
        self._daemon.stage.post("meddler", None)

    def restart(self) -> None:
        """Nothing to forget."""


@pytest.mark.parametrize("fault", [None, "mind:1", "mind:2", "intake:2", "intake:3"])
def test_a_dead_worker_is_drained_and_says_farewell_once(make: Callable[..., Daemon], fault: str) -> None:
    """Its last words and its leaving are one commit, which is made again if it failed."""
    daemon = make(fault)
    first = daemon.writers[WORKERS[0]]
    first.fill(7)
    daemon.post(Died(WORKERS[0]))
    for _ in range(3):
        daemon.post(Look())
    assert (daemon.counted, daemon.retired) == (7, [WORKERS[0]])
    assert list(daemon.mind.engine.workers) == [WORKERS[1]]


def test_a_message_from_elsewhere_does_not_disturb_the_reader(make: Callable[..., Daemon]) -> None:
    """The mind's other messages leave positions alone."""
    daemon = make()
    daemon.writers[WORKERS[1]].fill(3)
    daemon.stage.post("mind", Tell((WorkerJoined("c" * 32, 1, 0, 0, "root", "w", "shop", "test"),)))
    daemon.post(Look())
    assert daemon.counted == 3


@pytest.mark.parametrize(("took", "rests"), [(0.001, 0.0), (0.01, 0.03), (0.2, 0.1)])
def test_a_dear_batch_is_followed_by_a_rest(make: Callable[..., Daemon], took: float, rests: float) -> None:
    """A host with hundreds of busy workers gathers more per batch; a cheap batch delays nobody."""
    daemon = make()
    daemon.post(Look())
    daemon.takes = took
    writer = daemon.writers[WORKERS[0]]
    for _ in range(2):
        writer.put(OutcomeKind.FAILURE)
        daemon.post(Look())
    assert daemon.counted == (1 if rests else 2)
    daemon.now += rests + 0.001
    daemon.post(Look(tick=True))
    assert daemon.counted == 2


def test_the_last_look_of_a_life_takes_no_rest(make: Callable[..., Daemon]) -> None:
    """Who ends reads what there is, however dear the batch before was."""
    daemon = make()
    daemon.takes = 0.5
    writer = daemon.writers[WORKERS[0]]
    for last in (False, True):
        writer.put(OutcomeKind.FAILURE)
        daemon.post(Look(tick=True, last=last))
    assert daemon.counted == 2
