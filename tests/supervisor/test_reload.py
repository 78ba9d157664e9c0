"""A reload: all of a good file or nothing of a wrong one, one at a time, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.messages import Configured, Message, Reloaded
from supervisor.mind import Told
from supervisor.reload import (
    ANSWER_S,
    ASKERS_MAX,
    TABLE,
    Answered,
    Asked,
    Event,
    Phase,
)
from supervisor.settings import SupervisorSettings, parse
from tests.supervisor.reload_world import NEW, NOTHING, WRONG, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With the old file in force."""
    return World(tmp_path)


def test_every_pair_of_the_table_is_there() -> None:
    """What is not drawn stays where it is."""
    assert set(TABLE) == {(phase, event) for phase in Phase for event in Event}


def test_a_good_file_is_given_away_committed_applied_and_answered_in_this_order(world: World) -> None:
    """Nothing is in force before the nursery keeps it and the engine has committed it."""
    world.file.write_text(NEW)
    world.ask()
    assert world.given == []
    world.read()
    assert world.given == [(1, NEW)]
    assert (world.mind.told, world.applied) == ([], [])
    world.taken()
    wanted = parse(NEW, str(world.file))
    (told,) = world.mind.told
    text = "supervisor: ring_slots; breakers: added cache, changed database"
    expected: tuple[Message, ...] = (
        Configured(wanted.configured()),
        wanted.probes_configured(),
        Reloaded(1000, "deploy", text),
    )
    assert (told.messages, told.sender) == (expected, "reload")
    assert (world.applied, world.answers, world.reload.settings.ring_slots) == ([], {}, 16384)
    world.committed()
    assert world.applied == [wanted]
    assert world.reload.settings is world.applied[0]
    assert world.settled == [""]
    assert world.answers[1]["ok"] is True
    assert world.answers[1]["changed"]["breakers"] == {
        "added": ["cache"],
        "changed": ["database"],
        "removed": [],
    }
    assert len(world.answers[1]["kept"]) == 1
    names = ("asked", "checked", "given", "taken", "committed", "answered")
    assert world.steps == [f"reload-{name}" for name in names]


def test_without_a_thread_it_is_refused_and_the_next_one_is_not(world: World) -> None:
    """At the limit of processes: said to who asked, and no failure of the actor."""
    world.thread = False
    world.ask()
    world.look()
    assert world.answers[1]["errors"] == [
        f"{world.file}: cannot be read at the moment: can't start new thread"
    ]
    world.thread = True
    world.ask(2)
    world.through()
    assert world.answers[2]["ok"] is True
    assert world.stage.restarts()["reload"] == 0


def test_a_wrong_file_changes_nothing_and_every_mistake_is_told(world: World) -> None:
    """As `config check` says them; health has the first one until a good reload."""
    world.file.write_text(WRONG)
    world.ask()
    world.read()
    assert world.answers[1] == {
        "schema": 1,
        "file": str(world.file),
        "ok": False,
        "errors": [
            f"{world.file}: breakers.database.failure_threshold: must be >= 1, got -3",
            f"{world.file}: supervisor.tick_s: must be <= 0.1, got 5",
        ],
        "changed": {
            "control": [],
            "supervisor": [],
            **dict.fromkeys(("breakers", "namespaces", "workers"), NOTHING),
        },
        "restarted": [],
        "kept": [],
    }
    assert (world.given, world.mind.told, world.applied) == ([], [], [])
    first = f"{world.file}: breakers.database.failure_threshold: must be >= 1, got -3 (and 1 more)"
    assert (world.reload.problem, world.settled) == (first, [first])
    world.file.write_text(NEW)
    world.ask(2)
    world.through()
    assert (world.reload.problem, world.settled[-1]) == ("", "")


def test_who_asks_during_a_reload_gets_one_that_began_after_the_question(world: World) -> None:
    """The file may have been edited since it was read."""
    world.ask(1)
    world.read()
    world.file.write_text(NEW)
    world.ask(2)
    world.ask(3)
    world.stage.post("reload", Asked())
    world.taken()
    world.committed()
    assert list(world.answers) == [1]
    assert world.answers[1]["changed"]["breakers"]["added"] == []
    assert world.reload.phase is Phase.READING
    world.through()
    assert list(world.answers) == [1, 2, 3]
    assert world.answers[3]["changed"]["breakers"]["added"] == ["cache"]
    assert (len(world.given), world.threads, world.reload.phase) == (2, [], Phase.IDLE)


def test_a_signal_is_done_when_a_reload_that_began_after_it_is_over(world: World) -> None:
    """The nursery tells the next daemon of those that are not."""
    world.ask()
    world.stage.post("reload", Asked(hangup=1))
    world.through()
    assert world.hangups == [0]
    world.stage.post("reload", Asked(hangup=2))
    world.file.write_text(WRONG)
    world.read()
    assert world.hangups == [0, 1]
    world.read()
    assert world.hangups == [0, 1, 2]
    world.reload.settings = SupervisorSettings()
    world.stage.post("reload", Asked(hangup=3))
    assert world.hangups == [0, 1, 2, 3]


def test_not_everybody_may_wait(world: World) -> None:
    """Beyond the limit: busy."""
    for number in range(1 + ASKERS_MAX):
        world.ask(number)
    assert world.refusals == {}
    world.ask(1000)
    assert [code for code, _ in world.refusals.values()] == ["busy"]


def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    """It says so, warns of nothing, and tells the nursery that the reload is over."""
    world = World(tmp_path)
    world.reload.settings = SupervisorSettings()
    world.ask()
    assert world.refusals[1][0] == "unconfigured"
    assert "no configuration file" in world.refusals[1][1]
    world.stage.post("reload", Asked())
    assert (world.reload.problem, world.settled, world.threads) == ("", ["", ""], [])


def test_a_nursery_that_is_silent_is_given_it_again_and_the_asker_told_that_it_takes_longer(
    world: World,
) -> None:
    """The same ticket, twice as long pauses; in the end all of it is applied."""
    world.file.write_text(NEW)
    world.ask()
    world.read()
    world.look(0.5)
    assert len(world.given) == 1
    assert world.reload.problem == ""
    for _ in range(20):
        world.look(0.5)
    assert world.given == [(1, NEW)] * 4  # at 0, 1, 3 and 7 s
    assert "the nursery has not answered" in world.reload.problem
    assert world.refusals[1][0] == "late"
    assert ANSWER_S < 10
    world.taken()
    world.taken()
    assert len(world.mind.told) == 1
    world.committed()
    assert (len(world.applied), world.reload.problem, world.answers) == (1, "", {})


def test_a_nursery_that_takes_nothing_or_says_no_leaves_the_old_one(world: World) -> None:
    """Refused with the reason; health warns; what the nursery could not be told is told later."""
    world.ask()
    world.room = False
    world.read()
    assert world.refusals[1][0] == "refused"
    assert "takes no messages" in world.reload.problem
    world.room = True
    world.look()
    assert world.settled == [world.reload.problem]
    world.ask(2)
    world.read()
    world.taken("no free descriptor")
    assert "no free descriptor" in world.refusals[2][1]
    assert "no free descriptor" in world.reload.problem
    assert (world.mind.told, world.applied, world.reload.phase) == ([], [], Phase.IDLE)


def test_a_refusal_is_none_while_another_copy_may_be_taken(world: World) -> None:
    """The nursery says no to the first of two copies, for want of a descriptor, and takes the second one."""
    world.file.write_text(NEW)
    for number in (1, 2):
        world.ask(number)
        world.read()
        world.look(1.0)
        assert len(world.given) == 2 * number
        world.taken("no free descriptor")
        assert world.reload.phase is Phase.GIVING
        if number == 1:
            world.taken("no free descriptor")
    assert world.refusals[1][0] == "refused"
    world.taken()
    world.committed()
    assert world.answers[2]["ok"] is True
    assert world.applied == [parse(NEW, str(world.file))]


def test_a_mind_that_failed_is_told_again(world: World) -> None:
    """The nursery has the new one already: there is only the way forward."""
    world.file.write_text(NEW)
    world.ask()
    world.read()
    world.taken()
    world.look(1.0)
    first, second = world.mind.told
    assert first == second
    world.committed()
    world.committed()
    assert len(world.applied) == 1


def test_what_belongs_to_an_earlier_reload_is_dropped(world: World) -> None:
    """Late answers of the nursery and of the mind."""
    world.ask()
    world.read()
    world.taken()
    world.committed()
    world.file.write_text(NEW)
    world.ask()
    world.read()
    world.stage.post("reload", Answered(1, ""))
    world.stage.post("reload", Told(1, None))
    assert world.reload.phase is Phase.GIVING
    assert len(world.mind.told) == 1


def test_a_thread_that_found_nothing_is_a_refusal(world: World) -> None:
    """Whatever it raised; here for a path that cannot be one."""
    world.reload.settings = replace(world.reload.settings, file="\0")
    world.ask()
    work, done = world.threads.pop()
    with pytest.raises(ValueError, match="null"):
        work()
    done()
    assert "could not be checked" in world.answers[1]["errors"][0]
    assert world.reload.phase is Phase.IDLE


@pytest.mark.parametrize("message", range(1, 5))
def test_an_actor_that_raises_anywhere_is_carried_on(tmp_path: Path, message: int) -> None:
    """At asking and reading: nothing is changed; after the text was given away: all of it is."""
    world = World(tmp_path, fault=f"reload:{message}")
    world.file.write_text(NEW)
    world.ask()
    if world.threads:
        world.read()
    for _ in range(3):
        world.look(1.0)
        if world.given:
            world.taken()
        if world.mind.told:
            world.committed()
    assert world.reload.phase is Phase.IDLE
    whole = world.applied in ([], [parse(NEW, str(world.file))])
    assert whole
    assert (len(world.given) > 0) is (len(world.applied) == 1)
    world.ask(2)
    world.through()
    assert world.answers[2]["ok"] is True
    assert world.reload.settings == parse(NEW, str(world.file))


def test_a_first_file_that_has_appeared_is_read(tmp_path: Path) -> None:
    """No restart is needed for it, and every later reload reads it, too."""
    world = World(tmp_path)
    world.reload.settings = SupervisorSettings()
    world.reload.appeared = lambda: str(world.file)
    world.ask()
    assert (world.refusals, len(world.threads)) == ({}, 1)
    world.read()
    assert [text for _, text in world.given] == [world.file.read_text()]
