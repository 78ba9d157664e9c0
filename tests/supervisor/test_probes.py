"""The actor that has probes asked: pretend probers, virtual time, and everything that they may do wrong."""

from __future__ import annotations

import json

import pytest

from supervisor.messages import ProbeEnded
from supervisor.probe_watch import Probing
from supervisor.probes import (
    BY_HAND_S,
    KILL_AGAIN_S,
    PREPARE_S,
    SWEEPS_S,
    Look,
    ProbeNow,
    ProberCame,
    ProberEnded,
    ProberSaid,
)
from supervisor.settings_probe import LATE_S
from tests.supervisor.probe_world import HUNG, ONE, TABLE, TWO, World, request


def test_a_probe_is_asked_of_a_free_prober_and_its_verdict_goes_to_the_engine() -> None:
    """With when it was asked, and by which table."""
    world = World()
    world.configure(database=TABLE)
    world.post(ProberCame(ONE))
    assert world.last(ONE) == {"number": world.last(ONE)["number"]}
    world.verdict(ONE)
    number = world.last(ONE)["number"]
    assert world.last(ONE) == {"number": number, "probe": TABLE.asked(), "details": False}
    world.now += 0.5
    world.say_back(ONE, begun=True)
    world.now += 0.5
    world.verdict(ONE, "failed", "refused")
    awaited_s = 2.0 * (4.0 + TABLE.timeout_s + LATE_S)
    assert world.told == [ProbeEnded("database", "failed", "refused", 0.25, 100.0, TABLE.digest, awaited_s)]
    world.pass_time(3.9)
    assert world.last(ONE)["number"] == number
    world.pass_time(0.2)
    assert world.last(ONE)["number"] == number + 1


def test_without_probers_probes_wait_and_it_shows() -> None:
    """They are asked when one comes."""
    world = World()
    world.configure(database=TABLE)
    world.pass_time(7.0)
    assert (world.told, world.probes.probers) == ([], ())
    assert world.probes.waits()["database"].last_s == pytest.approx(7.0)
    world.come(ONE)
    assert world.asked(ONE) == "h:80"
    assert world.probes.probers == ("prober:1",)


def test_an_opening_hastens_a_probe_that_has_become_slow() -> None:
    """It is asked within one interval."""
    world = World()
    world.configure(database=TABLE)
    world.come(ONE)
    for _ in range(8):
        count = len(world.sent[ONE])
        world.verdict(ONE, "failed")
        while len(world.sent[ONE]) == count:
            world.pass_time(1.0)
    world.verdict(ONE, "failed")
    count = len(world.sent[ONE])
    world.pass_time(20.0)
    assert len(world.sent[ONE]) == count
    world.openings = [Probing("database", True, world.now)]
    world.pass_time(5.1)
    assert len(world.sent[ONE]) == count + 1


def test_hung_probes_delay_others_only_while_all_probers_are_taken() -> None:
    """One of two is taken: nobody waits. Both are: the others wait, until one is killed and replaced."""
    world = World()
    world.configure(hung=HUNG, well=TABLE)
    world.come(ONE, TWO)
    assert [world.asked(ONE), world.asked(TWO)] == ["hung:80", "h:80"]
    world.say_back(ONE, begun=True)
    world.verdict(TWO)
    world.pass_time(2.9)
    assert (world.killed, world.probes.waits()["well"].max_s) == ([], 0.0)

    world = World()
    world.configure(hung=HUNG, other=HUNG, well=TABLE)
    world.come(ONE, TWO)
    assert [world.asked(ONE), world.asked(TWO)] == ["hung:80", "hung:80"]
    for key in (ONE, TWO):
        world.say_back(key, begun=True)
    world.pass_time(2.0 + LATE_S + 0.1)
    assert sorted(world.killed) == [ONE, TWO]
    assert [(one.table, one.verdict, one.text) for one in world.told] == [
        ("hung", "failed", "no answer within 3 s"),
        ("other", "failed", "no answer within 3 s"),
    ]
    assert world.probes.waits()["well"].last_s == pytest.approx(3.1, abs=0.11)
    world.post(ProberEnded(ONE))
    world.come(("prober:1", 103))
    assert world.asked(("prober:1", 103)) == "h:80"
    assert world.probes.waits()["well"].max_s == pytest.approx(3.1, abs=0.11)


def test_the_time_of_a_probe_runs_from_when_its_drivers_are_loaded() -> None:
    """Loading has a limit of its own, and says nothing of the dependency."""
    world = World()
    world.configure(database=TABLE)
    world.come(ONE)
    world.pass_time(PREPARE_S - 1.0)
    world.say_back(ONE, begun=True)
    world.pass_time(2.9)
    world.verdict(ONE)
    assert [one.verdict for one in world.told] == ["passed"]
    world.pass_time(PREPARE_S + 0.1)
    assert (world.killed, world.told[-1].verdict) == ([ONE], "error")


def test_a_prober_that_is_not_free_is_waited_for_and_then_killed() -> None:
    """It is at what an earlier daemon asked: that is nobody's failure."""
    world = World()
    world.configure(database=TABLE)
    world.post(ProberCame(ONE))
    world.pass_time(PREPARE_S + 2.0 + LATE_S - 0.1)
    assert world.killed == []
    world.pass_time(0.2)
    assert (world.killed, world.told) == ([ONE], [])


def test_an_answer_to_an_earlier_daemon_is_nobody_s() -> None:
    """Numbers of different lives differ; so do those of one life."""
    world, other = World(0.1), World(0.2)
    for one in (world, other):
        one.configure(database=TABLE)
        one.post(ProberCame(ONE))
    stale = other.last(ONE)["number"]
    data = {"number": stale, "verdict": "failed", "text": "", "took_s": 1.0, "details": {}}
    world.post(ProberSaid(ONE, json.dumps(data).encode()))
    assert (world.asked(ONE), world.told) == (None, [])
    world.verdict(ONE)
    assert world.asked(ONE) == "h:80"
    world.post(ProberSaid(ONE, json.dumps(data).encode()))
    world.post(ProberSaid(ONE, json.dumps({"number": stale, "group": 77}).encode()))
    assert world.told == []
    world.post(ProberEnded(ONE))
    assert world.groups == []


def test_a_prober_that_ends_in_a_probe() -> None:
    """That says nothing of the dependency; its program is killed, and the probe is asked again."""
    world = World()
    world.configure(disk=TABLE)
    world.come(ONE)
    world.say_back(ONE, begun=True)
    world.say_back(ONE, group=4242)
    world.post(ProberEnded(ONE))
    assert world.groups == [4242]
    assert [(one.table, one.verdict) for one in world.told] == [("disk", "error")]
    assert world.killed == []
    world.come(TWO)
    world.pass_time(10.1)
    assert world.asked(TWO) == "h:80"


def test_a_program_that_has_ended_is_not_killed_again() -> None:
    """Its number may be another's by then."""
    world = World()
    world.configure(disk=TABLE)
    world.come(ONE)
    world.say_back(ONE, begun=True)
    world.say_back(ONE, group=4242)
    world.verdict(ONE)
    world.post(ProberEnded(ONE))
    assert world.groups == []


def test_a_hung_prober_is_killed_with_its_program_and_until_it_is_dead() -> None:
    """The nursery's queue may have been full."""
    world = World()
    world.configure(disk=TABLE)
    world.come(ONE)
    world.say_back(ONE, begun=True)
    world.say_back(ONE, group=4242)
    world.pass_time(2.0 + LATE_S + 0.1)
    assert (world.killed, world.groups) == ([ONE], [4242])
    world.verdict(ONE)
    assert len(world.told) == 1
    world.pass_time(KILL_AGAIN_S + 0.1)
    assert world.killed == [ONE, ONE]
    world.post(ProberEnded(ONE))
    world.pass_time(5.0)
    assert world.killed == [ONE, ONE]


def test_a_prober_that_cannot_be_told_anything_costs_no_verdict() -> None:
    """It has just died: the next one is asked."""
    world = World()
    world.come(ONE)
    world.deaf.add(ONE)
    world.configure(database=TABLE)
    assert (world.killed, world.told) == ([ONE], [])
    world.come(TWO)
    assert world.asked(TWO) == "h:80"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"5",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"number": NUMBER, "verdict": "closed", "text": "", "took_s": 0, "details": {}}',
        b'{"number": NUMBER, "verdict": "passed"}',
        b'{"number": NUMBER, "verdict": "passed", "text": "", "took_s": "x", "details": {}}',
        b'{"number": NUMBER, "verdict": "passed", "text": "", "took_s": 0, "details": []}',
        b'{"number": NUMBER, "verdict": "passed", "text": "", "took_s": NaN, "details": {}}',
        b'{"number": NUMBER, "verdict": "passed", "text": "", "took_s": 0, "details": {"a": Infinity}}',
        b'{"number": NUMBER, "verdict": [], "text": "", "took_s": 0, "details": {}}',
        b'{"number": NUMBER, "group": 1}',
        b'{"number": NUMBER, "group": -1}',
        b'{"number": NUMBER, "group": "x"}',
    ],
)
def test_a_prober_that_says_nonsense_is_replaced(data: bytes) -> None:
    """User's code runs in it; the daemon believes nothing that it says without looking."""
    world = World()
    world.configure(database=TABLE)
    world.come(ONE)
    number = str(world.last(ONE)["number"]).encode()
    world.post(ProberSaid(ONE, data.replace(b"NUMBER", number)))
    assert world.killed == [ONE]
    assert [(one.table, one.verdict) for one in world.told] == [("database", "error")]


def test_by_hand_it_is_asked_at_once_and_answered() -> None:
    """Ahead of the queue, with the details; whoever asks for the same one gets the same answer."""
    world = World()
    world.configure(cache=TABLE, database=HUNG)
    world.come(ONE)
    world.post(ProbeNow("database", request(7)))
    world.post(ProbeNow("database", request(8)))
    world.now += 1.0
    world.verdict(ONE)
    assert world.last(ONE) == {
        "number": world.last(ONE)["number"],
        "probe": HUNG.asked(),
        "details": True,
    }
    world.verdict(ONE, "failed", "refused", connections=5)
    answer = {
        "schema": 1,
        "probe": "database",
        "kind": "tcp",
        "verdict": "failed",
        "text": "refused",
        "took_s": 0.25,
        "waited_s": 1.0,
        "details": {"connections": 5},
        "prober": "prober:1",
    }
    assert world.answers == [(7, answer), (8, answer)]
    assert [one.table for one in world.told] == ["cache", "database"]


def test_nobody_who_asks_waits_for_ever() -> None:
    """Without a free prober the answer is no, and so it is for a probe that is gone."""
    world = World()
    world.configure(database=TABLE)
    world.post(ProbeNow("database", request(1)))
    world.post(ProbeNow("cache", request(2)))
    assert world.answers == [(2, "unknown")]
    world.pass_time(BY_HAND_S + 0.2)
    assert world.answers == [(2, "unknown"), (1, "busy")]
    world.post(ProbeNow("database", request(3)))
    world.configure()
    world.post(Look())
    assert world.answers[-1] == (3, "busy")


def test_who_waits_hears_when_the_prober_dies() -> None:
    """That nothing was found out."""
    world = World()
    world.configure(database=TABLE)
    world.post(ProbeNow("database", request(1)))
    world.come(ONE)
    world.post(ProberEnded(ONE))
    assert [(number, value["verdict"]) for number, value in world.answers] == [(1, "error")]


def test_an_actor_that_failed_asks_everybody_anew() -> None:
    """What was being asked is asked again, what was heard of it meanwhile is nobody's."""
    world = World()
    world.configure(database=TABLE)
    world.come(ONE)
    old = world.last(ONE)["number"]
    world.post(ProbeNow("database", request(1)))
    world.probes.restart()
    assert world.answers == [(1, "busy")]
    assert world.asked(ONE) is None
    data = {"number": old, "verdict": "failed", "text": "", "took_s": 1.0, "details": {}}
    world.post(ProberSaid(ONE, json.dumps(data).encode()))
    assert world.told == []
    world.verdict(ONE)
    assert world.asked(ONE) == "h:80"


def test_strays_are_looked_for_after_a_begin_and_after_the_end_of_a_prober() -> None:
    """A moment later, and once more: what it has started may be known to nobody."""
    world = World()
    world.configure(disk=TABLE)
    world.pass_time(10.0)
    assert world.sweeps == [pytest.approx(100.0 + seconds, abs=0.11) for seconds in SWEEPS_S]
    world.come(ONE)
    world.pass_time(1.0)
    assert len(world.sweeps) == 2
    world.post(ProberEnded(ONE))
    world.pass_time(10.0)
    assert world.sweeps[2:] == [pytest.approx(111.0 + seconds, abs=0.22) for seconds in SWEEPS_S]
