"""What nobody uses goes, and nothing else; what was counted stays in the totals."""

from __future__ import annotations

import json
import math

from supervisor.catalogue import FORGET_S
from supervisor.engine import Engine
from supervisor.messages import Answer, Command, Configured, Forget, Refused
from tests.supervisor.conversation import FAILURE, Host
from tests.supervisor.crowd import Crowd


def test_a_breaker_without_workers_is_forgotten_after_a_day_and_its_counts_stay_in_the_totals() -> None:
    """Open or not: nobody waits for it. One that has a worker, a table or an operator stays."""
    host = Crowd()
    host.say(Configured((("app/tabled", "", False),)))
    host.settle_in("a", "b")
    for row, name in enumerate(("gone", "open", "tabled", "manual"), start=1):
        host.declare("a", name, row=row)
    host.outcomes(("a", FAILURE), row=1)
    host.outcomes(*[("a", FAILURE)] * 5, row=2)
    host.say(Command("app/manual", "disable", None, "", 0, "root"))
    host.leave("a")
    left = host.now
    host.tick(left + FORGET_S - 1.0)
    assert len(host.names) == 5
    host.tick(left + FORGET_S)
    assert host.names == ["app/database", "app/tabled", "app/manual"]
    assert host.engine.catalogue.forgotten.outcomes[FAILURE] == 6
    assert host.engine.next_time() > host.now
    again = Host(Engine.from_plain(json.loads(json.dumps(host.engine.to_plain()))))
    again.now = host.now
    host.join("c")
    again.join("c")
    for one in (host, again):
        one.declare("c", "gone")
    assert again.engine.to_plain() == host.engine.to_plain()


def test_an_operator_makes_the_host_forget() -> None:
    """One by name, if no worker has it; or all that nobody has a hand in."""
    host = Crowd()
    host.settle_in("a")
    for row, name in enumerate(("x", "y", "z"), start=1):
        host.declare("a", name, row=row)
    host.say(Forget("app/x", 0, "root"))
    assert host.effects == [Refused("in-use", "app/x is in use by 1 worker")]
    host.leave("a")
    host.say(Command("app/z", "force-open", None, "", 0, "root"))
    host.say(Forget("app/x", 0, "root"))
    assert host.effects[0] == Answer({"forgotten": 1, "names": ["app/x"]})
    host.say(Forget("app/x", 0, "root"))
    assert host.effects == [Refused("unknown", "there is no breaker app/x")]
    host.say(Forget("", 0, "root"))
    assert host.effects[0] == Answer({"forgotten": 2, "names": ["app/database", "app/y"]})
    assert host.names == ["app/z"]
    host.say(Forget("app/z", 0, "root"))
    assert (host.names, host.engine.next_time()) == ([], math.inf)
