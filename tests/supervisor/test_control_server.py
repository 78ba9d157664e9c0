"""Every request is answered, whatever its handler meets."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.actor import Stage
from supervisor.connections import Connections, Peer
from supervisor.control_server import ControlServer
from supervisor.hello import HelloRefused
from supervisor.managed import Order
from supervisor.messages import Forget, Noted, PermitAsked, ProbeRule
from supervisor.mind import Mind
from supervisor.settings import SupervisorSettings, parse
from supervisor.user_database import UserDatabase
from tests.schemas import problems
from tests.supervisor.answering import Answers, Users, request
from tests.supervisor.conversation import Host, nonce
from tests.supervisor.test_mind import Box


def served(examine: Callable[[], dict[str, Any]]) -> tuple[Stage, Answers]:
    """A control server that sees of itself what it is told."""
    answers = Answers()
    stage = Stage(lambda _: None, lambda: 0.0, lambda _: None)
    nobody = cast(Any, None)
    control = ControlServer(nobody, nobody, SupervisorSettings(), lambda: 0.0)
    control.stage = stage
    control.connections = cast(Connections, answers)
    control.users = cast(UserDatabase, Users())
    control.examine = examine
    stage.add(control)
    return stage, answers


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_handler_without_a_descriptor_says_so(number: int) -> None:
    """Refused as busy: the actor goes on, and nobody waits for a time-out."""

    def examine() -> dict[str, Any]:
        raise OSError(number, os.strerror(number))

    stage, answers = served(examine)
    for connection in range(20):
        stage.post("control", request(connection, "doctor"))
    text = f"the supervisor could not do this at the moment ({os.strerror(number)}); try again"
    assert answers.refusals == dict.fromkeys(range(20), ("busy", text))
    assert stage.restarts() == {"control": 0}


def test_an_unknown_verb_is_refused() -> None:
    """Whatever stands there."""
    stage, answers = served(dict)
    stage.post("control", request(1, "dance"))
    assert answers.refusals[1][0] == "verb"


def test_orders_are_for_commanders_alone() -> None:
    """So is looking at what workers log: it may be nobody else's business."""
    stage, answers = served(dict)
    managed, mind = Desk(), Box("mind")
    stage.add(managed)
    stage.add(mind)
    for connection, verb in enumerate(("start", "stop", "restart")):
        stage.post("control", request(connection, verb, uid=54_321, name="web"))
    stage.post("control", request(8, "stop", uid=0, name="web"))
    stage.post("control", request(3, "tail", uid=54_321, name="web"))
    stage.post("control", request(9, "tail", uid=0, name="web"))
    assert {number: code for number, (code, _) in answers.refusals.items()} == dict.fromkeys(
        range(4), "denied"
    )
    assert [order.request.connection for order in managed.orders] == [8, 9]
    assert [tell.messages[0].kind for tell in mind.seen] == ["denied"] * 4
    assert "(uid 54321, user 54321, pid 1234)" in mind.seen[0].messages[0].text


class Desk:
    """Where orders go."""

    name = "managed"

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def receive(self, message: Order) -> None:
        """Keep it."""
        self.orders.append(message)

    def restart(self) -> None:
        """Nothing to forget."""


def test_probing_is_a_command_to_an_existing_probe() -> None:
    """It goes to the actor that has probes asked only for who may command, and by the table's name."""
    host = Host()
    host.probes(ProbeRule("database", 1, 1, False, 20.0))
    host.settle_in("a")
    host.declare("a", "cache", row=1)
    answers, stage = Answers(), Stage(lambda _: None, lambda: 0.0, lambda _: None)
    mind = cast(Mind, SimpleNamespace(engine=host.engine))
    control = ControlServer(mind, cast(Any, None), SupervisorSettings(), lambda: 0.0)
    control.stage = stage
    control.connections = cast(Connections, answers)
    control.users = cast(UserDatabase, Users())
    probes = Box("probes")
    stage.add(control)
    stage.add(probes)
    stage.add(Box("mind"))
    asked = request(1, "probe", name="app/database")
    stage.post("control", asked)
    assert [(one.name, one.request.connection) for one in probes.seen] == [("database", 1)]
    for connection, uid, name, code in (
        (2, 65_533, "database", "denied"),
        (3, 0, "cache", "unprobed"),
        (4, 0, "nothing", "unknown"),
        (5, 0, 7, "bad"),
    ):
        stage.post("control", request(connection, "probe", uid, name=name))
        assert answers.refusals[connection][0] == code
    assert len(probes.seen) == 1


class Doorman:
    """A greeter that lets nobody in."""

    def greet(self, _request: Any, _account: Any) -> Any:
        """No."""
        raise HelloRefused("denied", "user eve may not join the namespace shop")


def test_a_refused_hello_is_answered_counted_and_an_event() -> None:
    """The worker hears why, and so does whoever looks after the host."""
    answers, stage, mind = Answers(), Stage(lambda _: None, lambda: 0.0, lambda _: None), Box("mind")
    doorman = cast(Any, Doorman())
    control = ControlServer(
        cast(Mind, SimpleNamespace(engine=Host().engine)), doorman, SupervisorSettings(), lambda: 0.0
    )
    control.stage, control.connections = stage, cast(Connections, answers)
    control.users = cast(UserDatabase, Users())
    later: list[Callable[[], object]] = []
    control.later = later.append
    stage.add(control)
    stage.add(mind)
    for connection in range(3):
        stage.post("control", request(connection, "hello", uid=54_321, namespace="shop"))
    later.pop()()
    assert answers.refusals[2] == ("denied", "user eve may not join the namespace shop")
    (tell,) = mind.seen
    assert tell.messages[0].kind == "refused"
    assert control.refusals.going_on()[0].count == control.refusals.totals["refused"] == 3


def test_values_of_the_configuration_are_for_commanders() -> None:
    """No name tells what is a secret: arguments and targets are hidden from others, environments from all."""
    text = """
[breakers.bank]
probe = { kind = "http", url = "http://bank.test/ping?signature=s3cr3t" }
[workers.pay]
target = "shop.pay:run"
args = ["sk_live_s3cr3t"]
environment = { STRIPE = "sk_live_s3cr3t" }
"""
    answers, stage = Answers(), Stage(lambda _: None, lambda: 0.0, lambda _: None)
    nobody = cast(Any, None)
    control = ControlServer(nobody, nobody, parse(text, "x.toml"), lambda: 0.0)
    control.stage, control.connections = stage, cast(Connections, answers)
    control.users = cast(UserDatabase, Users())
    stage.add(control)
    stage.post("control", request(1, "config", uid=54_321))
    stage.post("control", request(2, "config", uid=0))
    assert "s3cr3t" not in repr(answers.answers[1])
    assert answers.answers[1]["config"]["workers"]["pay"]["args"] == ["***"]
    assert answers.answers[1]["config"]["breakers"]["bank"]["probe"]["kind"] == "http"
    told = answers.answers[2]["config"]["workers"]["pay"]
    assert (told["args"], told["environment"]) == (["sk_live_s3cr3t"], {"STRIPE": "***"})
    assert problems("config-show", answers.answers[1]) == []


def test_forgetting_is_a_command() -> None:
    """By name, short or full, or all that are unused; for commanders, and never by an empty request."""
    host = Host()
    host.settle_in("a")
    answers, stage, mind = Answers(), Stage(lambda _: None, lambda: 0.0, lambda _: None), Box("mind")
    known = cast(Mind, SimpleNamespace(engine=host.engine))
    control = ControlServer(known, cast(Any, None), SupervisorSettings(), lambda: 0.0)
    control.stage, control.connections = stage, cast(Connections, answers)
    control.users = cast(UserDatabase, Users())
    stage.add(control)
    stage.add(mind)
    stage.post("control", request(1, "forget", breaker="database"))
    stage.post("control", request(2, "forget", unused=True))
    assert [tell.messages for tell in mind.seen] == [
        (Forget("app/database", 0, "root"),),
        (Forget("", 0, "root"),),
    ]
    wrong: list[dict[str, Any]] = [{}, {"breaker": ""}, {"breaker": 7}, {"unused": 1}]
    for number, body in enumerate(wrong, start=3):
        stage.post("control", request(number, "forget", **body))
        assert answers.refusals[number][0] == "bad"
    stage.post("control", request(7, "forget", breaker="database", unused=True))
    stage.post("control", request(8, "forget", uid=54_321, unused=True))
    assert (answers.refusals[7][0], answers.refusals[8][0]) == ("bad", "denied")


class Names:
    """As a greeter: says who asks for whom."""

    def is_asked_by(self, worker: str, peer: Peer) -> bool:
        """The worker "a" is uid 500, pid 1234."""
        return worker == nonce("a") and (peer.pid, peer.uid) == (1234, 500)


def test_a_permit_is_given_to_the_process_of_its_worker_alone() -> None:
    """Another's name gets the answer that a name of nobody gets, and an event; the nonce opens nothing."""
    host = Host()
    host.settle_in("a")
    answers, stage = Answers(), Stage(lambda _: None, lambda: 0.0, lambda _: None)
    mind = cast(Mind, SimpleNamespace(engine=host.engine))
    control = ControlServer(mind, cast(Any, Names()), SupervisorSettings(), lambda: 0.0)
    control.stage = stage
    control.connections = cast(Connections, answers)
    box = Box("mind")
    stage.add(control)
    stage.add(box)
    stage.post("control", request(1, "permit", 500, nonce=nonce("a"), row=0, ask=1))
    for connection, uid, name in ((2, 501, "a"), (3, 0, "a"), (4, 501, "a"), (5, 501, "b")):
        stage.post("control", request(connection, "permit", uid, nonce=nonce(name), row=0, ask=1))
    told = [message for tell in box.seen for message in tell.messages]
    assert told[0] == PermitAsked(nonce("a"), 0, 1)
    noted = [message.text for message in told if isinstance(message, Noted)]
    assert [text.split(",")[0] for text in noted] == ["uid 501", "uid 0"]
    assert nonce("a") not in str(noted)
    assert len({answers.refusals[connection] for connection in (2, 3, 4, 5)}) == 1
