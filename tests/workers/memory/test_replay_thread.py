"""The thread of an application beside a managed replayer, and beside what it cannot replay."""

from __future__ import annotations

import os

from tests.workers.memory.posts import (
    MIB,
    Stage,
    free,
    holder,
    open_folder,
    stage,
)
from workers.memory.leases import LEASES, MANAGED
from workers.memory.records import Conversation
from workers.memory.replay import Replayer
from workers.memory.replay_thread import ASIDE_S, TEND_S, ReplayThread
from workers.memory.spool import Spool
from workers.memory.spooled import record_of

__all__ = ["open_folder", "stage"]


def test_a_thread_stands_aside_for_a_managed_replayer(stage: Stage) -> None:
    """It gives the lease, and sleeps while something of its own waits; it ends when nothing does."""
    spool = Spool(stage.directory, 64 * MIB)
    spool.put(record_of(Conversation.now("ann", "mine", "x")))
    replayer = Replayer(spool, stage.store, stage.layer.guard, 1000.0, clock=lambda: stage.now)
    thread = ReplayThread(replayer, lambda: stage.now)
    assert replayer.take_lease()
    with holder(os.path.join(stage.directory, MANAGED)):
        assert replayer.superseded
        assert thread._turn() == (ASIDE_S, False)
        assert stage.store.order == []
        assert free(os.path.join(stage.directory, LEASES[0]))
        spool.done(spool.next_batch(1))
        stage.orphan("of somebody else")
        assert thread._turn() == (ASIDE_S, True)
        assert len(stage.left()) > 0
    assert free(os.path.join(stage.directory, MANAGED))
    stage.now += ASIDE_S
    thread._turn()
    assert stage.store.order == ["of somebody else"]
    thread.close()
    replayer.give_lease()
    spool.close()


def test_a_thread_that_stood_aside_is_not_begun_again_for_each_look(stage: Stage) -> None:
    """Files that are a managed replayer's business start one thread in so many seconds, not one a call."""
    spool = Spool(stage.directory, 64 * MIB)
    stage.orphan("of somebody else")
    replayer = Replayer(spool, stage.store, stage.layer.guard, 1000.0, clock=lambda: stage.now)
    woken = []

    class Told(ReplayThread):
        def wake(self) -> None:
            woken.append(stage.now)

    thread = Told(replayer, lambda: stage.now)
    with holder(os.path.join(stage.directory, MANAGED)):
        thread._turn()
        for stage.now in (1.0, ASIDE_S):
            thread.look()
        assert woken == [ASIDE_S]
    spool.close()


def test_a_thread_does_not_live_for_what_was_set_aside(stage: Stage) -> None:
    """Quarantine keeps a file, and no thread."""
    spool = Spool(stage.directory, 64 * MIB)
    spool.put(record_of(Conversation.now("ann", "bad", "x")))
    stage.store.poison = {"bad"}
    replayer = Replayer(spool, stage.store, stage.layer.guard, 1000.0, clock=lambda: stage.now)
    thread = ReplayThread(replayer, lambda: stage.now)
    thread._turn()
    stage.now += 1.0
    assert thread._turn() == (TEND_S, True)
    assert spool.views.counts() == (0, 1)
    thread.close()
    replayer.give_lease()
    spool.close()


def test_a_lease_whose_file_is_gone_is_none(stage: Stage) -> None:
    """Somebody emptied the directory: the lease is taken anew, so that all see the same one."""
    spool = Spool(stage.directory, 64 * MIB)
    spool.make_directory()
    replayer = Replayer(spool, stage.store, stage.layer.guard, 1000.0)
    assert replayer.take_lease()
    os.unlink(os.path.join(stage.directory, LEASES[0]))
    assert replayer.take_lease()
    assert not free(os.path.join(stage.directory, LEASES[0]))
    replayer.give_lease()
    assert free(os.path.join(stage.directory, LEASES[0]))
    spool.close()
