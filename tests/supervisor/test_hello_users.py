"""What one user's hellos can take from another: no segment, no place, no bell, no descriptor."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys

import pytest

from supervisor import descriptors
from supervisor.connections import Peer
from supervisor.hello import WORKERS_PER_PROCESS_MAX, HelloRefused
from supervisor.messages import WorkerLeft
from tests.supervisor.test_hello import NOBODY, NONCE, Door, door

__all__ = ["door"]


def test_another_user_is_another_process_whatever_the_inode_says(door: Door) -> None:
    """Before Linux 6.9 all pidfds have one inode, as the two here: the uid refuses, then pid and tick do."""
    door.hello(uid=NOBODY)
    for other in (NOBODY - 1, 0):
        with pytest.raises(HelloRefused, match="another process"):
            door.hello(uid=other)
    attached = door.attachments.get(NONCE)
    assert attached is not None
    attached.held.about["tick"] -= 1
    with pytest.raises(HelloRefused, match="another process"):
        door.hello(uid=NOBODY, have=True)
    attached.held.about["tick"] += 1
    assert door.hello(uid=NOBODY, have=True).value["status"] == "resumed"


def test_a_process_that_was_root_may_have_become_another_user(door: Door) -> None:
    """Servers begin as root and give that up: it is the same process, for hellos and for permits."""
    door.hello(uid=0)
    assert door.hello(uid=NOBODY, have=True).value["status"] == "resumed"
    assert door.greeter.is_asked_by(NONCE, Peer(os.getpid(), NOBODY, NOBODY))


def test_a_worker_is_asked_for_by_its_own_living_process_alone(door: Door) -> None:
    """Knowing its nonce is not enough, not even for root; a dead process asks for nothing."""
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    door.hello(uid=NOBODY, pid=worker.pid)
    asked = door.greeter.is_asked_by
    assert asked(NONCE, Peer(worker.pid, NOBODY, NOBODY))
    strangers = ((os.getpid(), NOBODY), (worker.pid, 0), (worker.pid, 1), (0, NOBODY))
    assert not any(asked(NONCE, Peer(pid, uid, 0)) for pid, uid in strangers)
    assert not asked("f" * 32, Peer(worker.pid, NOBODY, NOBODY))
    worker.kill()
    worker.communicate()
    assert not asked(NONCE, Peer(worker.pid, NOBODY, NOBODY)), "its pid may be another's by now"


def test_one_process_takes_a_few_places_and_one_user_not_all(door: Door) -> None:
    """Whoever says hello under ever new nonces is refused; others find places still."""
    door.settings_of_ring(512)
    for number in range(WORKERS_PER_PROCESS_MAX):
        assert door.hello(uid=NOBODY, nonce=f"{number:032x}").value["status"] == "new"
    with pytest.raises(HelloRefused, match="attached 128 times") as caught:
        door.hello(uid=NOBODY, nonce="f" * 32)
    assert caught.value.code == "full"
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert door.hello(uid=NOBODY, pid=other.pid, nonce="e" * 32).value["status"] == "new"
    other.communicate(b"\n")


def test_a_hello_without_a_free_descriptor_is_busy_and_leaks_nothing(door: Door) -> None:
    """At each number of free descriptors: said again later, it succeeds; nothing stays behind meanwhile."""
    gc.collect()
    door.bells.of(0)
    open_before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    codes = []
    for free in range(6):
        given = (os.pidfd_open(os.getpid()),)
        fillers: list[int] = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            while True:
                try:
                    fillers.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            descriptors.close_all([fillers.pop() for _ in range(free)])
            door.hello(numbers=given, nonce=f"{free:032x}")
            codes.append("")
            break
        except HelloRefused as refused:
            codes.append(refused.code)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            descriptors.close_all(fillers)
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == open_before, free
    assert codes[-1] == ""
    assert len(codes) > 2
    assert set(codes[:-1]) <= {"busy", "memory"}


def test_users_have_bells_of_their_own_and_workers_of_one_user_share_one(door: Door) -> None:
    """No open file description goes to two users; a bell goes with its user's last worker."""
    bells = [
        door.hello(uid=uid, nonce=f"{number:032x}").descriptors[-1]
        for number, uid in enumerate((0, NOBODY, NOBODY, 0))
    ]
    assert bells[0] == bells[3] != bells[1] == bells[2]
    door.mind.transact((WorkerLeft(f"{0:032x}"), WorkerLeft(f"{1:032x}"), WorkerLeft(f"{3:032x}")))
    door.greeter.keep_bells()
    assert os.readlink(f"/proc/self/fd/{bells[1]}").startswith("anon_inode:")
    assert door.hello(uid=NOBODY, nonce=f"{2:032x}", have=True).descriptors == (bells[1],)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(bells[0])
