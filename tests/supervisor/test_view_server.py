"""Questions are answered from the engine, with what their verb shows, when their user's turn comes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from supervisor.connections import Connections
from supervisor.facts import Facts
from supervisor.mind import Mind
from supervisor.view_server import ViewServer
from tests.supervisor.answering import Answers, request
from tests.supervisor.conversation import FACTS, Host


def test_answers_come_in_turns_and_a_bad_question_is_refused() -> None:
    """The second of a user waits for the time that is asked for; facts are gathered for the verb."""
    host, answers = Host(), Answers()
    host.settle_in("a")
    verbs: list[Any] = []
    asked_for: list[float] = []

    def facts(verb: Any) -> Facts:
        verbs.append(verb)
        return replace(FACTS)

    mind = cast(Mind, SimpleNamespace(engine=host.engine))
    now = [200.0]
    server = ViewServer(mind, facts, cast(Connections, answers), asked_for.append, lambda: now[0])
    server.ask(request(1, "version", 7))
    server.ask(request(2, "breaker", 7, name="no-such"))
    assert (answers.answers[1]["pid"], verbs, len(asked_for)) == (FACTS.pid, ["version"], 1)
    server.sweep()
    now[0] += max(asked_for)
    server.turn()
    assert answers.refusals[2][0] == "unknown"
    server.ask(request(3, "workers", 8))
    server.ask(request(4, "workers", 8))
    server.clear()
    assert (len(answers.answers[3]["workers"]), answers.refusals[4][0]) == (1, "busy")
