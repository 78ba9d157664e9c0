"""The link under load: every outcome once, in the right segment, whatever threads, signals and forks do."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import CircuitBreaker, OutcomeKind
from ipc import layout as at
from ipc.blocks import FREE_THREADED
from ipc.client import Client
from ipc.link import Link
from ipc.ring import Reader, slices
from ipc.rows import declaration
from ipc.segment import Segment, boot_id
from ipc.testing import MovableClock
from ipc.vocabulary import BreakerSettings, BreakerState
from tests.ipc.calls import Down
from tests.ipc.fake_supervisor import FakeSupervisor, Worker

NEVER_OPENS = BreakerSettings(failure_threshold=None, failure_rate=None)
KINDS = [kind for kind in OutcomeKind if kind is not OutcomeKind.COUNT]


def attached(link: Link, slots: int = 1024) -> Worker:
    """Put a link on a segment of ours, which is read as a supervisor reads it."""
    segment = Segment.create(at.Layout(slots), os.urandom(16), boot_id())
    worker = Worker({}, segment, Reader(segment.words, segment.layout))
    # The link owns its descriptor, as a worker owns the one that it was sent.
    theirs = Segment(memory_of(segment), segment.layout, os.dup(segment.fd))
    link.attach(theirs, -1, link.clock())
    segment.words[at.W_HEARTBEAT] = int(2e9 * 1e9)
    for row in range(8):
        worker.publish(row, BreakerState.CLOSED, 1)
    return worker


def memory_of(segment: Segment) -> Any:
    """A second mapping of a segment's file."""
    return mmap.mmap(segment.fd, segment.layout.size)


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Threads switch as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run it in that many threads at once."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@settings(deadline=None, max_examples=300)
@given(
    row=st.integers(0, at.ROWS - 1),
    kind=st.sampled_from(KINDS),
    generation=st.integers(0, 15),
    permit=st.none() | st.integers(0, 1 << 40),
    start=st.floats(20.0, 9e6),
    took=st.floats(0.0, 300.0),
)
def test_slow_words_come_out_as_they_were_put(
    row: int, kind: OutcomeKind, generation: int, permit: int | None, start: float, took: float
) -> None:
    """Row, kind, generation and permit are exact, the end to 2 ms, the duration to a step or 10 %."""
    clock = MovableClock()
    clock.now = start
    link = Link(clock, lambda: 0.0)
    clock.now = end = start + took
    link.put(row, kind, generation, permit, start, end)
    reader = Reader(link.words, link.segment.layout)
    [(epoch, [word])] = [pair for part in reader.read(256) for pair in slices(part)]
    code = at.CODES[word >> at.CODE_SHIFT]
    assert code is not None
    assert (code.kind, code.permit) == (kind, None if permit is None else permit & 63)
    assert word >> at.ROW_SHIFT & at.ROW_MASK == row
    assert word >> at.GENERATION_SHIFT & 15 == generation
    told = epoch + (word >> at.END_SHIFT & at.END_MASK) / at.END_STEPS_PER_S
    assert abs(told - end) <= 0.002
    step = 1 / at.LONG_STEPS_PER_S if code.long else 1 / at.DURATION_STEPS_PER_S
    measured = end - start  # as the call itself would have measured it
    assert abs((word & at.DURATION_MASK) * step - min(measured, at.DURATION_MASK * step)) <= 1.01 * step


@settings(deadline=None, max_examples=300)
@given(
    row=st.integers(0, at.ROWS - 1),
    code=st.integers(0, 15),
    now=st.floats(20.0, 9e6),
    ends=st.lists(st.floats(0.0, 63.0), min_size=1, max_size=20),
    took=st.floats(0.0, at.QUICK_LIMIT_S, exclude_max=True),
    failed=st.booleans(),
)
def test_quick_words_come_out_as_they_were_put(
    row: int, code: int, now: float, ends: list[float], took: float, failed: bool
) -> None:
    """The sum of doubles that packs a quick outcome gives exactly the fields that went into it."""
    clock = MovableClock()
    clock.now = now
    link = Link(clock, lambda: 0.0)
    link.put(0, OutcomeKind.SUCCESS, 0, None, now, now)
    slots, ring, limit, plus, minus, block = link.queue
    if FREE_THREADED:
        assert limit[0] == 0.0
        return
    epoch, head = block.epoch, at.head(row, code)
    put = [end for end in (epoch + later for later in ends) if end < limit[0]]
    for end in put:
        word = (end * at.END_FACTOR + plus) - minus + head + took
        ring[next(slots)] = -word if failed else word
    reader = Reader(link.words, link.segment.layout)
    words = [word for part in reader.read(256) for _, listed in slices(part) for word in listed][1:]
    assert len(words) == len(put)
    for end, word in zip(put, words, strict=True):
        assert word >> at.CODE_SHIFT == (at.FAST_FAILURE if failed else at.FAST_SUCCESS)
        assert word >> at.ROW_SHIFT & at.ROW_MASK == row
        assert word >> at.GENERATION_SHIFT & 15 == code
        assert abs(epoch + (word >> at.END_SHIFT & at.END_MASK) / 512 - end) <= 0.001
        assert abs((word & at.DURATION_MASK) / at.DURATION_STEPS_PER_S - took) <= 2.0**-18


class Cancelled(BaseException):
    """As asyncio's: neither an error of the function nor an end of the program."""



@pytest.mark.usefixtures("fast_switching")
def test_threads_lose_nothing(client: Client) -> None:
    """Eight threads, all kinds mixed, a ring that overflows: ring and tallies add up to what was issued."""
    breaker = CircuitBreaker("database", failure_threshold=None, failure_rate=None, expected_exception=Down)
    worker = attached(client.link, slots=512)
    client.untried = False
    issued: Counter[OutcomeKind] = Counter()
    others: list[BaseException] = []
    lock = threading.Lock()

    @breaker
    def query(raises: type[BaseException] | None) -> None:
        if raises is not None:
            raise raises

    what: list[tuple[type[BaseException] | None, OutcomeKind]] = [
        (None, OutcomeKind.SUCCESS),
        (Down, OutcomeKind.FAILURE),
        (ValueError, OutcomeKind.IGNORED),
        (Cancelled, OutcomeKind.CANCELLED),
    ]

    def work() -> None:
        mine: Counter[OutcomeKind] = Counter()
        for number in range(4_000):
            raises, kind = what[0 if number % 8 < 5 else number % 8 - 4]
            try:
                query(raises)
            except BaseException as error:
                if type(error) is not raises:
                    others.append(error)
            mine[kind] += 1
            if number % 500 == 0:
                with lock:
                    worker.drain()
        with lock:
            issued.update(mine)

    in_threads(8, work)
    assert not others
    worker.drain()
    counted = {kind: worker.total(0, kind) for _, kind in what}
    assert counted == dict(issued)
    assert worker.invalid == 0
    assert worker.reader.gaps == 0
    assert not worker.reader.holes
    # Threads that meet a class for the first time at once may declare it on a row each: their sum counts.
    classes = [row for row in worker.declared() if row.get("class") == "Down"]
    failures = sum(worker.tally(row["row"], OutcomeKind.COUNT) for row in classes)
    assert failures == issued[OutcomeKind.FAILURE]
    assert sum(worker.tally(0, kind) for _, kind in what) > 0  # it did overflow


@pytest.mark.usefixtures("fast_switching")
def test_attaching_anew_under_busy_threads(client: Client) -> None:
    """Forty swaps of the segment under four busy threads: the sum over all of them is what was issued."""
    breaker = CircuitBreaker("database", failure_threshold=None, failure_rate=None)
    client.untried = False
    guarded = breaker(lambda: None)
    workers = [attached(client.link, slots=16_384)]
    stop = threading.Event()
    issued = [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            for _ in range(100):
                guarded()
            issued[number] += 100

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for swap in range(40):
            reached = sum(issued) + 2_000
            while sum(issued) < reached:
                workers[-1].drain()
            workers.append(attached(client.link, slots=1024 << swap % 5))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert sum(worker.total(0, OutcomeKind.SUCCESS) for worker in workers) == sum(issued)
    assert sum(worker.invalid + worker.reader.gaps for worker in workers) == 0
    for worker in workers:
        assert worker.declared()[0]["breaker"] == "database"


def test_signals_leave_no_hole(client: Client) -> None:
    """A handler that makes guarded calls itself, thousands of times a second: everything is counted."""
    breaker = CircuitBreaker("database", failure_threshold=None, failure_rate=None)
    worker = attached(client.link)
    client.untried = False
    guarded = breaker(lambda: None)
    handled = 0

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal handled
        handled += 1
        guarded()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    calls = 0
    try:
        while handled < 1_000:
            guarded()
            calls += 1
            if not calls % 256:
                worker.drain()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert worker.total(0, OutcomeKind.SUCCESS) == calls + handled
    assert worker.reader.gaps == 0


def test_forked_child_puts_into_its_own(client: Client, supervisor: FakeSupervisor) -> None:
    """A fork inside a guarded call: the parent reports it, the child does not, and its own calls it puts."""
    breaker = CircuitBreaker("database", failure_threshold=None, failure_rate=None)
    worker = attached(client.link)
    client.untried = False
    read, write = os.pipe()

    @breaker
    def inner() -> None: ...

    @breaker
    def outer() -> int:
        return os.fork()

    inner()
    pid = outer()
    if pid == 0:
        code = 1
        try:
            inner()
            inner()
            link = client.link
            own = Reader(link.words, link.segment.layout)
            count = sum(len(listed) for part in own.read(256) for _, listed in slices(part))
            os.write(write, bytes([count, link.attached]))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read, 2) == bytes([2, 1])
    assert worker.total(0, OutcomeKind.SUCCESS) == 2
    assert supervisor.worker().total(0, OutcomeKind.SUCCESS) == 2  # the child attached by itself
    os.close(read)
    os.close(write)


def test_rows_are_numbered_by_the_process() -> None:
    """Rows are given out in order and declared with their number, breakers and classes alike, up to 1,024."""
    link = Link(MovableClock(), lambda: 0.0)
    worker = attached(link)
    record = declaration("database", BreakerSettings(failure_threshold=7))
    assert link.add_breaker("database", BreakerSettings(failure_threshold=7), record) == 0
    assert link.add_class(b'"of":0,"class":"Down"}') == 1
    assert worker.declared() == [
        {"row": 0, "breaker": "database", "settings": {"failure_threshold": 7}},
        {"row": 1, "of": 0, "class": "Down"},
    ]
    for _ in range(2, at.ROWS):
        assert link.add_class(b'"of":0,"class":"X"}') is not None
    assert link.add_class(b'"of":0,"class":"X"}') is None


def test_bell_is_rung_once_per_reading(client: Client) -> None:
    """Failures between two readings cost one ring; a bell whose descriptor was closed is not written to."""
    bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    link = client.link
    worker = attached(link)
    link.hear(bell)
    assert os.eventfd_read(bell) == 1
    for _ in range(3):
        link.ring()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(bell)
    worker.drain()
    link.ring()
    assert os.eventfd_read(bell) == 1
    os.close(bell)
    read, write = os.pipe()
    spare = os.dup(write)
    os.dup2(spare, bell if bell not in (read, write, spare) else write)  # the number is another file's now
    worker.drain()
    link.ring()
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 8)
    for number in {read, write, spare, bell}:
        os.close(number)


def test_a_gate_held_by_nobody_is_replaced(client: Client) -> None:
    """After a fork in C the gate may be held by a thread that does not exist here: the child goes on."""
    breaker = CircuitBreaker("database", failure_threshold=None, failure_rate=None)
    client.untried = False
    client.close()
    guarded = breaker(lambda: 1)
    guarded()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> bool:
        inside.set()
        return leave.wait(10)

    thread = threading.Thread(target=client.link._gate.run, args=(hold,))
    thread.start()
    inside.wait()
    client.link.page[0] = 0.0  # what the kernel does in a child
    client.link.queue[2][0] = 0.0
    held = client.link._gate
    assert guarded() == 1
    assert client.link._gate is not held
    leave.set()
    thread.join()
