"""The stage: one message at a time, failures stay inside, the limit goes to the level above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from supervisor import actor
from supervisor.actor import Fault, RestartRules, Stage
from supervisor.errors import ActorFailed


class Recorder:
    """An actor that notes what it was told, and raises at the word `bad`."""

    def __init__(self, name: str, stage: Stage | None = None, passes_to: str = "") -> None:
        self.name = name
        self.seen: list[Any] = []
        self.restarted = 0
        self._stage = stage
        self._passes_to = passes_to

    def receive(self, message: Any) -> None:
        """Note it, pass it on, or raise."""
        self.seen.append(message)
        if message == "bad":
            raise ValueError(message)
        if self._stage and self._passes_to:
            self._stage.post(self._passes_to, (self.name, message))

    def restart(self) -> None:
        """Count it."""
        self.restarted += 1


OFTEN = RestartRules()


class World:
    """A loop that remembers what it shall call later, a clock to move, and the reason of a giving up."""

    def __init__(self, rules: RestartRules = OFTEN, fault: str | None = None) -> None:
        self.now = 0.0
        self.later: list[Callable[[], None]] = []
        self.given_up: list[ActorFailed] = []
        self.stage = Stage(self.later.append, lambda: self.now, self.given_up.append, rules, Fault(fault))


def test_a_message_and_all_that_follows_from_it_are_handled_before_post_returns() -> None:
    """Posting from outside runs the receiver and whoever it tells."""
    world = World()
    first, second = Recorder("a", world.stage, "b"), Recorder("b")
    world.stage.add(first)
    world.stage.add(second)
    assert world.stage.post("a", 1)
    assert (first.seen, second.seen) == ([1], [("a", 1)])


def test_an_actor_that_raises_is_restarted_and_the_others_go_on() -> None:
    """The message at which it raised is lost, the next one is handled."""
    world = World()
    weak, strong = Recorder("weak"), Recorder("strong")
    world.stage.add(weak)
    world.stage.add(strong)
    for message in ("bad", "good"):
        world.stage.post("weak", message)
        world.stage.post("strong", message.replace("bad", "fine"))
    assert (weak.seen, weak.restarted, strong.seen) == (["bad", "good"], 1, ["fine", "good"])
    assert world.stage.restarts() == {"weak": 1, "strong": 0}


def test_too_many_failures_within_the_window_are_the_level_aboves_business() -> None:
    """With at most two restarts in ten seconds the third failure gives up, and names the actor."""
    world = World(RestartRules(restarts_max=2, window_s=10.0))
    world.stage.add(Recorder("weak"))
    for _ in range(3):
        world.stage.post("weak", "bad")
    assert [error.name for error in world.given_up] == ["weak"]


def test_failures_that_lie_further_apart_than_the_window_never_give_up() -> None:
    """Each one is old when the next comes."""
    world = World(RestartRules(restarts_max=1, window_s=10.0))
    world.stage.add(Recorder("weak"))
    for _ in range(20):
        world.stage.post("weak", "bad")
        world.now += 11.0
    assert world.given_up == []


def test_a_full_mailbox_says_no_and_loses_nothing() -> None:
    """What was put before is handled; what did not fit was never put."""
    world = World()
    answers: list[bool] = []

    class Flooder(Recorder):
        def receive(self, message: Any) -> None:
            answers.extend(world.stage.post("sink", number) for number in range(actor.MAILBOX_MAX + 1))

    sink = Recorder("sink")
    world.stage.add(Flooder("flooder"))
    world.stage.add(sink)
    world.stage.post("flooder", "go")
    while len(sink.seen) < actor.MAILBOX_MAX:
        world.stage.turn()
    assert answers == [*[True] * actor.MAILBOX_MAX, False]
    assert sink.seen == list(range(actor.MAILBOX_MAX))


def test_a_turn_is_bounded_and_asks_the_loop_for_the_next_one() -> None:
    """An actor that always posts to itself does not keep the loop from its sockets."""
    world = World()

    class Endless(Recorder):
        def receive(self, message: Any) -> None:
            self.seen.append(message)
            world.stage.post(self.name, message + 1)

    endless = Endless("endless")
    world.stage.add(endless)
    world.stage.post("endless", 0)
    assert (len(endless.seen), len(world.later)) == (actor.TURN_MAX, 1)
    world.later.pop()()
    assert (len(endless.seen), len(world.later)) == (2 * actor.TURN_MAX, 1)


def test_a_turn_is_bounded_in_time_too() -> None:
    """Messages that take long leave the loop its sockets after a few milliseconds."""
    world = World()

    class Slow(Recorder):
        def receive(self, message: Any) -> None:
            self.seen.append(message)
            world.now += 0.002
            world.stage.post(self.name, message + 1)

    slow = Slow("slow")
    world.stage.add(slow)
    world.stage.post("slow", 0)
    assert (len(slow.seen), len(world.later)) == (3, 1)


@pytest.mark.parametrize(("told", "raised_at"), [("a:2", [2]), ("a:2+", [2, 3, 4]), (None, []), ("b:1", [])])
def test_the_hook_raises_at_the_message_it_names(told: str | None, raised_at: list[int]) -> None:
    """`a:2` raises once, `a:2+` from then on, and nobody else is hit."""
    fault, raised = Fault(told), []
    for number in range(1, 5):
        try:
            fault.check("a", number)
        except RuntimeError:
            raised.append(number)
    assert raised == raised_at
