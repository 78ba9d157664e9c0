"""Attaching: once, again, refused, silent and gone; without a thread and without waiting."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import ipc
from ipc import CircuitBreaker, CircuitOpenError, OutcomeKind
from ipc.attachment import ANSWER_WAIT_S
from ipc.client import FIRST_WAIT_S, Client
from ipc.control import Exchange
from ipc.process import set_default
from tests.ipc.calls import call, fail
from tests.ipc.fake_supervisor import FakeSupervisor
from tests.ipc.waiting import descriptors, eventually


def test_first_call_attaches(client: Client, supervisor: FakeSupervisor) -> None:
    """Nothing is said before the first guarded call; that one is attached, declared and counted."""
    breaker = CircuitBreaker("database", failure_threshold=7)
    other = CircuitBreaker("cache")
    assert not supervisor.workers
    assert call(breaker) == 1
    worker = supervisor.worker()
    assert client.attached
    assert client.namespace == "tests"
    assert worker.hello["name"] == "test"
    assert worker.hello["pid"] == os.getpid()
    assert worker.declared() == [
        {"row": 0, "breaker": "database", "settings": {"failure_threshold": 7}},
        {"row": 1, "breaker": "cache", "settings": {}},
    ]
    assert supervisor.rung()
    assert call(other) == 1
    assert (worker.total(0, OutcomeKind.SUCCESS), worker.total(1, OutcomeKind.SUCCESS)) == (1, 1)


def test_connect_attaches_and_says_whether(supervisor: FakeSupervisor) -> None:
    """ipc.connect says who we are, and True; a name out of bounds is an error, no supervisor is False."""
    before = set_default(None)
    try:
        with pytest.raises(ipc.SettingsError, match="namespace"):
            ipc.connect(supervisor.path, namespace="no spaces")
        assert ipc.connect(supervisor.path, name="web-1", namespace="shop")
        hello = supervisor.worker().hello
        assert (hello["name"], hello["namespace"]) == ("web-1", "shop")
        assert ipc.connect()
        assert len(supervisor.workers) == 1
        set_default(None)
        assert not ipc.connect("/nonexistent/breakerd.sock", timeout=0.05)
        set_default(None)
        assert not ipc.connect("off")
    finally:
        set_default(before)


def test_namespace_and_socket_come_from_the_environment(
    supervisor: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BREAKERD_SOCKET and BREAKERD_NAMESPACE apply where nothing was said; `off` never attaches."""
    monkeypatch.setenv("BREAKERD_SOCKET", supervisor.path)
    monkeypatch.setenv("BREAKERD_NAMESPACE", "billing")
    client = Client()
    assert client.connect()
    assert client.namespace == "billing"
    client.close()
    monkeypatch.setenv("BREAKERD_SOCKET", "off")
    alone = Client()
    assert not alone.connect(0.01)
    assert not alone.attached


def test_refused_hello_warns_once_and_waits(
    client: Client, supervisor: FakeSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that a retry does not change: one warning, local, and no further hello for 30 s."""
    supervisor.refusal = ("denied", "user web may not join the namespace shop")
    breaker = CircuitBreaker("database", failure_threshold=1)
    for _ in range(3):
        assert call(breaker) == 1
    assert not client.connect(0.2)
    fail(breaker, 1)
    assert isinstance(call(breaker), CircuitOpenError)
    warnings = [record.message for record in caplog.records if "stay" in record.message]
    assert warnings == ["breakers stay in this process: user web may not join the namespace shop"]
    assert client.due > time.monotonic() + 25


@pytest.mark.usefixtures("client")
def test_an_attached_worker_leaves_telling_to_the_supervisor(
    supervisor: FakeSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """A state change is logged once per host: a worker that only reads it from its board says nothing."""
    caplog.set_level(logging.DEBUG)
    breaker = CircuitBreaker("database", failure_threshold=1)
    assert call(breaker) == 1
    fail(breaker, 1)
    supervisor.worker().publish(0, ipc.BreakerState.OPEN, 1, time.monotonic() + 60.0)
    assert isinstance(call(breaker), CircuitOpenError)
    supervisor.worker().publish(0, ipc.BreakerState.CLOSED, 2)
    assert call(breaker) == 1
    assert [record.message for record in caplog.records if "->" in record.message] == []


def test_another_clock_stays_local(
    client: Client, supervisor: FakeSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """A supervisor whose monotonic clock is more than 50 ms apart is another time namespace's."""
    supervisor.skew_ns = 200_000_000
    assert not client.connect(0.2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "clock" in caplog.text


def test_absent_supervisor_costs_nothing_and_is_found_later(supervisor: FakeSupervisor) -> None:
    """Without a socket calls go on at once; when one appears, calls attach by themselves."""
    path = f"{supervisor.path}.later"
    client = Client(path)
    before = set_default(client)
    try:
        breaker = CircuitBreaker("database")
        guarded = breaker(lambda: 1)
        slowest = 0.0
        for _ in range(2_000):
            start = time.monotonic()
            guarded()
            slowest = max(slowest, time.monotonic() - start)
        assert not client.attached
        assert slowest < 0.05
        os.symlink(supervisor.path, path)

        def called_and_attached() -> bool:
            guarded()
            return client.attached

        eventually(called_and_attached)
        guarded()
        assert supervisor.worker().total(0, OutcomeKind.SUCCESS) >= 1
    finally:
        set_default(before)
        client.close()


def test_silent_supervisor_delays_one_call(client: Client, supervisor: FakeSupervisor) -> None:
    """A supervisor that takes a hello and says nothing: the first call waits 50 ms, the next ones do not."""
    supervisor.silent = True
    breaker = CircuitBreaker("database")
    start = time.monotonic()
    assert call(breaker) == 1
    first = time.monotonic() - start
    assert first < FIRST_WAIT_S + 0.2
    start = time.monotonic()
    for _ in range(100):
        call(breaker)
    assert time.monotonic() - start < 0.2
    assert first < ANSWER_WAIT_S


def test_hello_is_repeated_with_the_same_nonce(client: Client, supervisor: FakeSupervisor) -> None:
    """A hello whose answer was lost is said again and gets the same segment."""
    supervisor.silent = True
    assert not client.connect(0.05)
    supervisor.silent = False
    eventually(lambda: client.connect(0.5))
    assert list(supervisor.workers) == [client.nonce.hex()]


def test_commands_go_to_the_supervisor(client: Client, supervisor: FakeSupervisor) -> None:
    """Attached, a verb is an order under the full name; denied is ControlDenied, and a PermissionError."""
    breaker = CircuitBreaker("database")
    assert client.connect()
    breaker.force_open(for_s=60, reason="maintenance")
    breaker.state.is_open = False
    told = [(one["breaker"], one["action"], one["for_s"], one["reason"]) for one in supervisor.commands]
    assert told == [
        ("tests/database", "force-open", 60, "maintenance"),
        ("tests/database", "reset", None, ""),
    ]
    supervisor.refusal = ("denied", "add user:web to [control] commanders")
    with pytest.raises(ipc.ControlDenied, match="commanders"):
        breaker.reset()


def test_a_command_before_the_first_call_goes_to_the_supervisor_too(
    client: Client, supervisor: FakeSupervisor
) -> None:
    """Nothing was called yet: the process attaches for the command's sake, and it holds for the host."""
    breaker = CircuitBreaker("database")
    breaker.force_open(for_s=60)
    assert [one["breaker"] for one in supervisor.commands] == ["tests/database"]
    assert client.attached


WITHOUT_PIDFDS = """
import errno, logging, os, sys
import ipc
def refused(pid, flags=0):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
os.pidfd_open = refused
logging.basicConfig()
breaker = ipc.CircuitBreaker("database", failure_threshold=1)
assert not ipc.connect(sys.argv[1], timeout=0.3)
try:
    breaker.call(os.stat, "/nowhere")
except FileNotFoundError:
    print(breaker.state.value.name)
"""


def test_a_kernel_without_pidfds_leaves_a_process_on_its_own(supervisor: FakeSupervisor) -> None:
    """No system call for it, or a seccomp profile that forbids it: local, with one warning."""
    command = [sys.executable, "-c", WITHOUT_PIDFDS, supervisor.path]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, supervisor.workers) == (0, "OPEN\n", {})
    assert done.stderr.count("Function not implemented") == 1


def test_failure_count_is_read_from_the_ring(client: Client, supervisor: FakeSupervisor) -> None:
    """Attached, failure_count is this process's run of failures, as its own ring tells."""
    breaker, other = CircuitBreaker("database"), CircuitBreaker("cache")
    call(breaker)
    fail(breaker, 3)
    fail(other, 1)
    assert (breaker.state.failure_count, other.state.failure_count) == (3, 1)
    call(breaker)
    assert breaker.state.failure_count == 0


def test_a_run_of_failures_ends_with_a_reset(client: Client, supervisor: FakeSupervisor) -> None:
    """An open breaker tells what it failed with; once it is closed again, that is over."""
    breaker = CircuitBreaker("database")
    fail(breaker, 3)
    worker = supervisor.worker()
    worker.publish(0, ipc.BreakerState.OPEN, 9, until=time.monotonic() + 60)
    counts = [breaker.state.failure_count]
    worker.publish(0, ipc.BreakerState.CLOSED, 10)
    counts.append(breaker.state.failure_count)
    fail(breaker, 1)
    assert [*counts, breaker.state.failure_count] == [3, 0, 1]


def test_exception_classes_are_counted(client: Client, supervisor: FakeSupervisor) -> None:
    """Each class of failures has a row of its own, up to 32 per breaker; the rest are `other`."""
    breaker = CircuitBreaker("database", failure_threshold=None, failure_rate=None)
    classes = [type(f"Error{number}", (Exception,), {}) for number in range(35)]
    for kind in (*classes, *classes):
        call(breaker, kind("x"))
    call(breaker, KeyboardInterrupt())
    worker = supervisor.worker()
    told = {one["class"]: one["row"] for one in worker.declared() if "class" in one}
    assert len(told) == 33
    assert worker.tally(told["Error0"], OutcomeKind.COUNT) == 2
    assert worker.tally(told["other"], OutcomeKind.COUNT) == 6
    assert "KeyboardInterrupt" not in told


def test_twenty_clients_in_one_process(supervisor: FakeSupervisor) -> None:
    """A process may hold many attachments, each with its own nonce and segment."""
    clients = [Client(supervisor.path, name=f"c{number}") for number in range(20)]
    assert all(client.connect() for client in clients)
    assert len(supervisor.workers) == 20
    before = descriptors()
    for client in clients:
        client.close()
        assert not client.attached
    eventually(lambda: descriptors() == before - 60)  # memory file, the mapping's copy of it, bell


def test_a_lost_answer_leaks_no_descriptor(client: Client, supervisor: FakeSupervisor) -> None:
    """Hellos that fail, whatever the reason, leave no descriptor open."""
    before = descriptors()
    supervisor.refusal = ("full", "no room")
    for _ in range(5):
        client.connect(0.05)
    supervisor.refusal = None
    supervisor.skew_ns = 1 << 40
    client._warned.clear()
    client.connect(0.05)
    eventually(lambda: descriptors() == before + 2)  # the pretend supervisor's own segment


def test_health_is_asked_of_the_supervisor(tmp_path: Path) -> None:
    """query_health raises SupervisorUnavailable where there is nobody, and says what to do."""
    with pytest.raises(ipc.SupervisorUnavailable, match="start breakerd"):
        ipc.query_health("live", socket=str(tmp_path / "breakerd.sock"), timeout=0.1)
    with pytest.raises(ipc.SupervisorUnavailable, match="off"):
        ipc.query_health(socket="off")


def test_unknown_answers_are_survived(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that nobody understands keep the process local, with one warning."""
    caplog.set_level(logging.WARNING)

    class Strange(Exchange):
        def value(self) -> object:
            return ["not", "an", "object"]

    client.path = client._socket
    exchange = Strange(client.path or "")
    with pytest.raises(ipc.ControlRefused, match="hello"):
        client._answered(exchange)


def test_settings_leave_out_their_defaults() -> None:
    """A declaration names only what differs, so that a thousand breakers fit into a segment."""
    settings = replace(CircuitBreaker(failure_threshold=7).settings, window=ipc.CountWindow(50))
    assert ipc.BreakerSettings.from_json({"failure_threshold": 7, "window": {"calls": 50}}) == settings
