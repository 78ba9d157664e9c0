"""A hello: the kernel is believed, the worker is not; the same nonce is the same worker and no other."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipc import layout as at
from ipc.segment import Segment
from supervisor import descriptors
from supervisor.actor import Stage
from supervisor.attachments import Attachments
from supervisor.connections import Peer, Request
from supervisor.doorbells import Doorbells
from supervisor.engine import Engine
from supervisor.hello import Greeter, HelloRefused, Joining, Welcome
from supervisor.intake import Intake
from supervisor.journal import Journal
from supervisor.messages import BreakerDeclared, Forget, WorkerForgotten, WorkerJoined, WorkerLeft
from supervisor.mind import Mind
from supervisor.settings import NamespaceTable, SupervisorSettings
from supervisor.steps import passes_by
from supervisor.user_database import AccountQuery, look_up
from tests.supervisor.test_connections import Loop

NONCE = "0123456789abcdef0123456789abcdef"
NOBODY = 65534


class Door:
    """A greeter with everything behind it, and the nursery's end of the channel."""

    def __init__(self, folder: Path, settings: SupervisorSettings) -> None:
        self.now_ns = 5_000_000_000
        engine = Engine()
        self.journal = Journal.open(str(folder), 1, "test")
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        theirs.setblocking(False)
        self.theirs = theirs
        self.loop = Loop()
        self.died: list[str] = []
        intake = Intake(engine)
        self.attachments = Attachments(
            self.loop, intake, theirs, self.died.append, lambda: self.now_ns * 1e-9, passes_by
        )
        self.mind = Mind(engine, self.journal, self.attachments, lambda: 5.0, lambda: 0.5, passes_by)
        self.mind.stage = Stage(lambda _: None, lambda: 5.0, lambda _: None)
        self.bells = Doorbells({}, self.loop, lambda *_: True, lambda: None)
        self.greeter = Greeter(self.mind, self.attachments, settings, self.bells, 77, lambda: self.now_ns)

    def hello(self, uid: int = 0, pid: int = 0, numbers: tuple[int, ...] | None = None, **body: Any) -> Any:
        """Say hello, and commit what follows from it."""
        said = {
            "verb": "hello",
            "version": 1,
            "layout": 1,
            "nonce": NONCE,
            "clock": self.now_ns,
            "name": "web-1",
        }
        pid = pid or os.getpid()
        given = (os.pidfd_open(pid),) if numbers is None else numbers
        namespace = str(body.get("namespace") or "")
        owner = self.mind.engine.catalogue.owner_of(namespace)
        greeted = self.greeter.greet(
            Request(1, 1, {**said, **body}, Peer(pid, uid, uid), given),
            look_up(AccountQuery(uid, uid, (), namespace, -1 if owner is None else owner)),
        )
        if isinstance(greeted, Joining):
            self.mind.transact((greeted.message,))
            self.greeter.joined(greeted)
            return self.greeter.welcome(greeted)
        return greeted

    def settings_of_ring(self, slots: int) -> None:
        """Segments of another size from now on."""
        self.greeter.settings = replace(self.greeter.settings, ring_slots=slots)

    def close(self) -> None:
        """Give everything back."""
        for attached in [self.attachments.get(worker) for worker in list(self.mind.engine.workers)]:
            if attached is not None:
                os.close(attached.held.pidfd)
                attached.segment.close_fd()
        while (got := descriptors.receive(self.ours)) is not None and got[0]:
            descriptors.close_all(got[1])
        self.ours.close()
        self.theirs.close()
        self.bells.keep(())
        self.journal.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A door with one configured namespace."""
    made = Door(tmp_path, SupervisorSettings(namespaces=(NamespaceTable("shop", ("nobody",)),)))
    yield made
    made.close()


def test_a_new_worker_gets_a_segment_that_the_nursery_holds_too(door: Door) -> None:
    """The deposit is in the nursery's queue before anybody is answered."""
    welcome = door.hello()
    assert (welcome.value["status"], welcome.value["namespace"]) == ("new", "root")
    got = descriptors.receive(door.ours)
    assert got is not None
    data, numbers = got
    assert (data[:17], len(numbers)) == (b"D" + bytes.fromhex(NONCE), 2)
    kept = Segment.attach(numbers[0], bytes.fromhex(NONCE), 77)
    mine = Segment.attach(os.dup(welcome.descriptors[0]), bytes.fromhex(NONCE), 77)
    mine.words[at.W_CHANGES] = 42
    assert kept.words[at.W_CHANGES] == 42
    kept.close_fd()
    mine.close_fd()
    os.close(numbers[1])


def test_a_hello_whose_answer_was_lost_gets_the_same_segment_again(door: Door) -> None:
    """R4: idempotent by nonce; with the segment at hand it is only resumed."""
    first = door.hello()
    again = door.hello()
    assert again.value["status"] == "new"
    assert os.fstat(again.descriptors[0]).st_ino == os.fstat(first.descriptors[0]).st_ino
    resumed = door.hello(have=True)
    assert (resumed.value["status"], resumed.descriptors) == ("resumed", (door.bells.of(0),))
    assert len(door.mind.engine.workers) == 1


def test_the_nonce_of_another_process_is_refused_and_the_old_slot_stays(door: Door) -> None:
    """D17: a replayed hello gets nothing."""
    door.hello()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(HelloRefused, match="another process"):
            door.hello(pid=other.pid)
    finally:
        other.kill()
        other.communicate()
    assert NONCE in door.attachments


def test_the_nonce_of_a_dead_worker_is_never_used_again(door: Door) -> None:
    """Its tomb remembers it until the nursery has let go."""
    door.hello()
    door.mind.transact((WorkerLeft(NONCE),))
    with pytest.raises(HelloRefused, match="ended"):
        door.hello()
    door.mind.transact((WorkerForgotten(NONCE),))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"version": 2}, "version"),
        ({"version": None}, "version"),
        ({"layout": 99}, "version"),
        ({"clock": 5_000_000_000 + 51_000_000}, "clock"),
        ({"clock": "now"}, "clock"),
        ({"nonce": "xyz"}, "refused"),
        ({"nonce": "g" * 32}, "refused"),
        ({"nonce": "ab " * 10 + "ab"}, "refused"),
        ({"nonce": "\t" * 16 + "ab" * 8}, "refused"),
        ({"nonce": "AB" * 16}, "refused"),
        ({"nonce": "ab" * 16 + "\n"}, "refused"),
        ({"nonce": ["a"] * 32}, "refused"),
        ({"name": "no spaces"}, "refused"),
        ({"namespace": "no/slash"}, "refused"),
    ],
)
def test_what_cannot_be_is_refused_with_a_fixed_word(door: Door, body: dict[str, Any], code: str) -> None:
    """And nothing is kept of it: no segment, no descriptor."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HelloRefused) as caught:
        door.hello(**body)
    assert (caught.value.code, len(os.listdir("/proc/self/fd"))) == (code, before)


def test_what_is_no_pidfd_or_not_ones_own_is_refused(door: Door) -> None:
    """The process is the kernel's word."""
    with pytest.raises(HelloRefused, match="pidfd"):
        door.hello(numbers=())
    with pytest.raises(HelloRefused, match="pidfd"):
        door.hello(numbers=(os.open("/dev/null", os.O_RDONLY),))
    with pytest.raises(HelloRefused, match="not that of the process that sent it"):
        door.hello(numbers=(os.pidfd_open(os.getppid()),))


def test_namespaces_are_ones_own_or_configured(door: Door) -> None:
    """Root may join any; a user its own, a free one, or where it is named; never another user's."""
    assert door.hello(uid=NOBODY, nonce="1" * 32).value["namespace"] == "nobody"
    assert door.hello(uid=NOBODY, nonce="2" * 32, namespace="shop").value["namespace"] == "shop"
    assert door.hello(uid=NOBODY, nonce="3" * 32, namespace="a-free-one").value["namespace"] == "a-free-one"
    with pytest.raises(HelloRefused, match=r"\[namespaces.root\] users"):
        door.hello(uid=NOBODY, nonce="4" * 32, namespace="root")
    with pytest.raises(HelloRefused, match=r"\[namespaces.shop\] users"):
        door.hello(uid=1, nonce="5" * 32, namespace="shop")


def test_an_empty_list_of_users_lets_nobody_in(tmp_path: Path) -> None:
    """Only root, and the user of that name: an empty list is said, and not the same as no list."""
    tables = (NamespaceTable("vault", ()), NamespaceTable("daemon"))
    made = Door(tmp_path, SupervisorSettings(namespaces=tables))
    try:
        with pytest.raises(HelloRefused, match=r'\[namespaces.vault\] users = \["nobody"\]'):
            made.hello(uid=NOBODY, nonce="1" * 32, namespace="vault")
        assert made.hello(uid=0, nonce="2" * 32, namespace="vault").value["namespace"] == "vault"
        assert made.hello(uid=1, nonce="3" * 32, namespace="daemon").value["namespace"] == "daemon"
    finally:
        made.close()


def test_a_foreign_namespace_is_refused_with_the_line_that_opens_it(door: Door) -> None:
    """Who uses it now and who asks stand in it, and a name that TOML cannot take bare is quoted."""
    door.hello(uid=NOBODY, nonce="1" * 32, namespace="mail.eu")
    with pytest.raises(HelloRefused) as refused:
        door.hello(uid=1, nonce="2" * 32, namespace="mail.eu")
    assert str(refused.value) == (
        "user daemon may not join the namespace mail.eu, which nobody uses; "
        '[namespaces."mail.eu"] users = ["nobody", "daemon"]'
    )


def test_a_namespace_stays_his_whose_breakers_are_known(door: Door) -> None:
    """Nobody takes it between two deploys, when no worker of its user is there."""
    engine = door.mind.engine
    said = (
        WorkerJoined("e" * 32, 1, 0, NOBODY, "nobody", "w", "queue-room", "0.1.0"),
        BreakerDeclared("e" * 32, 0, "queue", "{}"),
        WorkerLeft("e" * 32),
    )
    for message in said:
        engine.handle(message, 1.0, 0.0)
    with pytest.raises(HelloRefused, match="which nobody uses"):
        door.hello(uid=1, nonce="1" * 32, namespace="queue-room")
    assert door.hello(uid=NOBODY, nonce="2" * 32, namespace="queue-room").value["status"] == "new"
    door.mind.transact((WorkerLeft("2" * 32),))
    engine.handle(Forget("", 0, "root"), 2.0, 0.0)
    assert door.hello(uid=1, nonce="3" * 32, namespace="queue-room").value["status"] == "new"


def test_a_worker_of_an_unknown_life_hands_its_segment_back(door: Door) -> None:
    """When nursery and daemon are new, the worker's own segment is asked for, checked and used."""
    segment = Segment.create(at.Layout(), bytes.fromhex(NONCE), 77)
    segment.words[at.W_CHANGES] = 9
    asked = door.hello(have=True)
    assert isinstance(asked, Welcome)
    assert asked.value["status"] == "sendfd"
    numbers = (os.pidfd_open(os.getpid()), os.dup(segment.fd))
    assert door.hello(have=True, numbers=numbers).value["status"] == "resumed"
    attached = door.attachments.get(NONCE)
    assert attached is not None
    assert attached.segment.words[at.W_CHANGES] == 9
    segment.close_fd()


def test_a_foreign_file_in_place_of_a_segment_is_refused(door: Door) -> None:
    """Wrong seals, size or nonce: nothing of it is mapped."""
    other = Segment.create(at.Layout(), b"another nonce!!!", 77)
    unsealed = os.memfd_create("unsealed")
    os.ftruncate(unsealed, at.Layout().size)
    for number in (os.dup(other.fd), unsealed, os.open("/dev/null", os.O_RDONLY)):
        with pytest.raises(HelloRefused, match="cannot be used"):
            door.hello(have=True, numbers=(os.pidfd_open(os.getpid()), number))
    other.close_fd()


def test_a_death_that_nobody_dealt_with_is_told_again(door: Door) -> None:
    """Once when the pidfd says so, then each second until the worker is retired."""
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    door.hello(pid=worker.pid)
    worker.kill()
    worker.communicate()
    door.loop.spin()
    door.attachments.remind()
    assert door.died == [NONCE]
    door.now_ns += 1_100_000_000
    door.attachments.remind()
    assert door.died == [NONCE, NONCE]
    door.mind.transact((WorkerLeft(NONCE),))
    door.now_ns += 1_100_000_000
    door.attachments.remind()
    assert door.died == [NONCE, NONCE]


def test_a_drop_that_found_the_channel_full_is_asked_for_again(door: Door) -> None:
    """Until the nursery says that it has closed its copies; who comes again is not dropped again."""

    def asked() -> list[str]:
        found = []
        while (got := descriptors.receive(door.ours)) is not None:
            descriptors.close_all(got[1])
            found.append(got[0][:1].decode())
        return found

    while descriptors.send(door.theirs, b"-"):
        pass
    door.attachments.drop(NONCE)
    assert "X" not in asked()
    door.attachments.remind()
    assert asked() == []
    door.now_ns += 1_100_000_000
    door.attachments.remind()
    assert asked() == ["X"]
    door.attachments.dropped(NONCE)
    door.now_ns += 1_100_000_000
    door.attachments.remind()
    assert asked() == []
    door.attachments.drop(NONCE)
    door.hello()
    door.now_ns += 1_100_000_000
    door.attachments.remind()
    assert asked() == ["X", "D"]


def test_under_systemd_a_worker_is_welcome_when_the_store_has_it(door: Door) -> None:
    """Not before: nursery and worker could die together; a hello said again asks for the store again."""
    door.attachments.managed = True
    assert door.hello() is None
    with pytest.raises(HelloRefused, match="not stored this worker yet"):
        door.hello()
    deposits = 0
    while (got := descriptors.receive(door.ours)) is not None:
        deposits += got[0][:1] == descriptors.DEPOSIT
        descriptors.close_all(got[1])
    assert deposits == 2
    door.attachments.stored(NONCE)
    assert door.hello().value["status"] == "new"
    assert door.hello(have=True).value["status"] == "resumed"


def test_an_answer_of_the_store_may_come_before_the_commit(door: Door) -> None:
    """Then nobody waits; and it counts no longer once the descriptors were dropped."""
    door.attachments.managed = True
    door.attachments.stored(NONCE)
    assert door.hello().value["status"] == "new"
    door.attachments.dropped(NONCE)
    assert not door.attachments.is_safe(NONCE)
