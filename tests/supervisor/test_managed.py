"""Orders to the nursery and the states that it tells, over a real socketpair with a pretend nursery."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from supervisor import descriptors
from supervisor.actor import Fault, Stage
from supervisor.connections import Connections
from supervisor.facts import ManagedProcess
from supervisor.log_files import LogFile, path_of
from supervisor.managed import ANSWER_S, ORDERS_MAX, Accepted, Look, Managed, Order, State
from supervisor.nursery import as_many
from supervisor.settings import parse
from supervisor.settings_workers import PROCESSES_MAX
from tests.schemas import problems
from tests.supervisor.answering import Answers, request

TABLES = """
[workers.web]
target = "app:web"
count = 2
stop_timeout_s = 7
[workers.mail]
target = "app:mail"
start_s = 2
stop_timeout_s = 3
"""


class Nursery(Answers):
    """Both ends: the actor, and what a nursery does at the other end of its channel."""

    def __init__(self, runtime: Path, fault: str | None = None) -> None:
        super().__init__()
        self.now = 100.0
        self.runtime = runtime
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.stage = Stage(lambda _: None, lambda: self.now, lambda _: None, fault=Fault(fault))
        self.managed = Managed(
            lambda data, numbers: descriptors.send(self.theirs, data, numbers),
            str(runtime),
            parse(TABLES, "file").workers,
            lambda: self.now,
        )
        self.managed.connections = cast(Connections, self)
        self.managed.stage = self.stage
        self.stage.add(self.managed)

    def ask(self, verb: str, connection: int = 1, **more: Any) -> None:
        """Somebody asks."""
        self.stage.post("managed", Order(request(connection, verb, **more), "root"))

    def told(self) -> list[dict[str, Any]]:
        """The orders that the nursery has got."""
        found = []
        while (got := descriptors.receive(self.ours)) is not None:
            assert got[0][:1] == descriptors.COMMAND
            found.append(json.loads(got[0][1:]))
        return found

    def accept(self, ticket: int, **answer: Any) -> None:
        """The nursery answers."""
        self.stage.post("managed", Accepted(json.dumps({"ticket": ticket, **answer}).encode()))

    def state(self, title: str, state: str, **more: Any) -> None:
        """The nursery tells how one is."""
        name, _, number = title.partition(":")
        plain: dict[str, Any] = {"name": name, "number": int(number or 1), "title": title, "state": state}
        plain |= {"pid": 0, "since": 90.0, "restarts": 0, "last_exit": "", "internal": False, "log_gaps": 0}
        self.stage.post("managed", State(json.dumps({**plain, "gone": False, **more}).encode()))

    def close(self) -> None:
        """Both ends."""
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """The actor and a nursery that does what a test says."""
    made = Nursery(tmp_path)
    yield made
    made.close()


# --- states -------------------------------------------------------------------------------------------


def test_states_stand_in_the_order_of_the_file(nursery: Nursery) -> None:
    """The newest of each; the supervisor's own first, what is not configured any more last."""
    nursery.state("old", "STOPPING", pid=3)
    nursery.state("mail", "RUNNING", pid=5, since=95.0, restarts=2, last_exit="exit code 1", log_gaps=4)
    nursery.state("web:2", "STARTING")
    nursery.state("prober:1", "RUNNING", internal=True)
    nursery.state("web:1", "BACKOFF")
    nursery.state("web:1", "RUNNING", pid=7, since=99.0)
    assert [one.title for one in nursery.managed.processes()] == ["prober:1", "web:1", "web:2", "mail", "old"]
    _, web, _, mail, _ = nursery.managed.processes()
    assert web == ManagedProcess("web", 1, "web:1", "RUNNING", 7, 99.0)
    assert mail == ManagedProcess("mail", 1, "mail", "RUNNING", 5, 95.0, 2, "exit code 1", False, 4)


def test_one_whose_table_is_gone_is_forgotten(nursery: Nursery) -> None:
    """Also one that was never heard of; words of a later version are passed over."""
    nursery.state("web:1", "RUNNING", pid=7, mood="good")
    nursery.state("web:1", "STOPPED", gone=True)
    nursery.state("web:2", "STOPPED", gone=True)
    assert nursery.managed.processes() == ()


# --- orders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "name", "accepted", "takes_s"),
    [
        ("start", "mail", ["mail"], 5.0),
        ("stop", "web", ["web:1", "web:2"], 7.0),
        ("restart", "web:2", ["web:2"], 8.0),
        ("stop", "all", ["web:1", "web:2", "mail"], 10.0),
        ("restart", "all", ["web:1", "web:2", "mail"], 12.0),
        ("start", "all", ["web:1", "web:2", "mail"], 9.0),
    ],
)
def test_an_order_is_answered_when_the_nursery_has_accepted_it(
    nursery: Nursery, verb: str, name: str, accepted: list[str], takes_s: float
) -> None:
    """With how long it may take at most: `all` is stopped one table after the other."""
    nursery.ask(verb, name=name)
    assert nursery.told() == [{"ticket": 1, "verb": verb, "name": name}]
    assert (nursery.answers, nursery.refusals) == ({}, {})
    nursery.accept(1, accepted=accepted)
    assert nursery.answers == {1: {"schema": 1, "verb": verb, "accepted": accepted, "takes_s": takes_s}}


def test_an_order_for_more_than_a_message_names_is_told_of_all(nursery: Nursery) -> None:
    """Whoever restarts all waits for all, not for those whose names had room."""
    nursery.ask("restart", 1, name="all")
    nursery.ask("restart", 2, name="web")
    nursery.accept(1, accepted=["web:1"], of=3)
    nursery.accept(2, accepted=["web:1"], of=2)
    assert nursery.answers[1]["accepted"] == ["web:1", "web:2", "mail"]
    assert nursery.answers[1]["takes_s"] == 12.0
    assert nursery.answers[2]["accepted"] == ["web:1", "web:2"]


def test_as_many_titles_as_one_message_holds() -> None:
    """However many processes there are, and however long their names."""
    titles = [f"{'w' * 64}:{number}" for number in range(PROCESSES_MAX)]
    named = as_many(titles)
    assert 0 < len(named) < len(titles)
    told = {"ticket": 1 << 62, "accepted": named, "of": len(titles)}
    assert len(json.dumps(told).encode()) < descriptors.MESSAGE_MAX
    assert as_many(titles[:40]) == titles[:40]


def test_answers_find_their_askers(nursery: Nursery) -> None:
    """In whatever order they come; one that nobody waits for is nobody's."""
    nursery.ask("stop", 1, name="web")
    nursery.ask("start", 2, name="mail")
    nursery.accept(2, accepted=["mail"])
    nursery.accept(1, accepted=["web:1"])
    nursery.accept(1, accepted=["web:2"])
    nursery.accept(99, accepted=[])
    assert {number: answer["accepted"] for number, answer in nursery.answers.items()} == {
        1: ["web:1"],
        2: ["mail"],
    }


def test_an_unknown_name_is_refused_with_what_there_is(nursery: Nursery) -> None:
    """Whoever typed it sees what could have been meant."""
    nursery.state("prober:1", "RUNNING", internal=True)
    nursery.ask("stop", name="wbe")
    nursery.accept(1, code="unknown", text="there is no managed worker wbe")
    text = "there is no managed worker wbe; there are web:1, web:2, mail, prober:1"
    assert nursery.refusals == {1: ("unknown", text)}
    nursery.managed.tables = ()
    nursery.state("prober:1", "RUNNING", gone=True)
    nursery.ask("stop", 2, name="web")
    nursery.accept(2, code="unknown", text="no")
    assert nursery.refusals[2] == ("unknown", "no; none is configured: they stand in [workers.NAME]")
    nursery.ask("stop", 3, name="web")
    nursery.accept(3, code="bad", text="breakerd is about to end")
    assert nursery.refusals[3] == ("bad", "breakerd is about to end")


@pytest.mark.parametrize("name", [None, 5, "", "x" * 161])
def test_what_is_no_name_is_not_passed_on(nursery: Nursery, name: Any) -> None:
    """The nursery is not asked."""
    nursery.ask("stop", name=name)
    assert nursery.refusals == {1: ("bad", "stop takes the name of a worker: NAME, NAME:2 or all")}
    assert nursery.told() == []


def test_a_nursery_that_is_silent_keeps_nobody_waiting(nursery: Nursery) -> None:
    """Refused after ANSWER_S; an answer after that is nobody's."""
    nursery.ask("stop", name="web")
    nursery.now += ANSWER_S
    nursery.stage.post("managed", Look())
    assert nursery.refusals == {}
    nursery.now += 0.1
    nursery.stage.post("managed", Look())
    assert nursery.refusals[1][0] == "late"
    nursery.accept(1, accepted=["web:1"])
    assert nursery.answers == {}


def test_a_nursery_whose_queue_is_full_is_said(nursery: Nursery) -> None:
    """Nothing waits here for room: an order that comes later than its asker thinks does harm."""
    count = 0
    while not nursery.refusals:
        count += 1
        nursery.ask("stop", count, name="web")
    assert count <= ORDERS_MAX + 1
    assert next(iter(nursery.refusals.values()))[0] == "busy"
    assert len(nursery.told()) == count - 1


def test_the_actor_that_fails_refuses_who_waits_and_keeps_the_states(tmp_path: Path) -> None:
    """Whether it was done is to be seen."""
    nursery = Nursery(tmp_path, fault="managed:3")
    nursery.state("web:1", "RUNNING")
    nursery.ask("stop", name="web")
    nursery.state("web:1", "STOPPING")
    assert nursery.refusals[1][0] == "busy"
    assert [one.state for one in nursery.managed.processes()] == ["RUNNING"]
    nursery.close()


# --- the log ------------------------------------------------------------------------------------------


def logged(nursery: Nursery, title: str, *lines: str) -> LogFile:
    """The worker has logged."""
    file = LogFile(path_of(str(nursery.runtime), title))
    for line in lines:
        file.write(f"{line}\n".encode())
    return file


def test_tail_has_the_last_lines_and_goes_on_from_there(nursery: Nursery) -> None:
    """A name without a number where there is only one process; nothing yet is no mistake."""
    nursery.ask("tail", name="mail", lines=2)
    assert nursery.answers[1]["lines"] == []
    file = logged(nursery, "mail", "a", "b", "c")
    nursery.ask("tail", 2, name="mail:1", lines=2)
    answer = nursery.answers[2]
    assert problems("tail", answer) == []
    assert (answer["name"], answer["lines"], answer["lost"]) == ("mail", ["b", "c"], False)
    file.write(b"d\n")
    nursery.ask("tail", 3, name="mail", lines=100, after=answer["position"])
    assert nursery.answers[3]["lines"] == ["d"]
    file.close()


def test_tail_wants_one_process(nursery: Nursery) -> None:
    """Of several, which; of none, what there is. One that lives on without its table still has its log."""
    nursery.ask("tail", 1, name="web")
    assert nursery.refusals[1] == ("ambiguous", "web is web:1, web:2: say which")
    nursery.ask("tail", 2, name="wbe")
    assert nursery.refusals[2] == (
        "unknown",
        "there is no managed worker wbe; there are web:1, web:2, mail",
    )
    nursery.ask("tail", 3, name="web:3")
    assert nursery.refusals[3][0] == "unknown"
    nursery.state("old", "STOPPING")
    logged(nursery, "old", "bye").close()
    nursery.ask("tail", 4, name="old")
    assert nursery.answers[4]["lines"] == ["bye"]
    nursery.ask("tail", 5, name="../../etc/passwd")
    assert nursery.refusals[5][0] == "unknown"


@pytest.mark.parametrize(
    "wrong", [{"name": 5}, {"lines": "x"}, {"after": 7}, {"after": "garbage"}, {"lines": None}]
)
def test_tail_of_garbage_is_refused(nursery: Nursery, wrong: dict[str, Any]) -> None:
    """One sentence, no failure."""
    nursery.ask("tail", **{"name": "mail", "lines": 1, "after": "", **wrong})
    assert nursery.refusals[1][0] == "bad"


def test_a_log_that_cannot_be_read_is_said(nursery: Nursery) -> None:
    """Not the daemon's end."""
    (nursery.runtime / "logs").mkdir()
    (nursery.runtime / "logs" / "mail.log").symlink_to("/etc/passwd")
    nursery.ask("tail", name="mail")
    assert nursery.refusals[1] == ("log", "the log of mail cannot be read: Too many levels of symbolic links")
