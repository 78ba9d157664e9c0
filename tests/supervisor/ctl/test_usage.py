"""Help, and what may have been meant."""

from __future__ import annotations

from supervisor.ctl.parse import VERBS
from supervisor.ctl.usage import FLAGS
from tests.schemas import problems
from tests.supervisor.ctl.conftest import Ctl


def test_help_names_every_verb_and_every_flag(ctl: Ctl) -> None:
    """Nothing that can be typed is a secret."""
    shown = ctl("help").out
    for verb in VERBS:
        assert f"  {verb} " in shown
        mine = ctl("help", verb).out
        assert mine == ctl(verb, "--help").out
        for flag in VERBS[verb].flags:
            assert flag in mine
            assert FLAGS[flag][1] in mine


def test_a_slip_is_answered_with_what_was_meant(ctl: Ctl) -> None:
    """Exit code 2, on standard error."""
    for line, meant in (("helth", "health"), ("health --jsn", "--json"), ("breaker opne x", "open")):
        ran = ctl(*line.split())
        assert ran.code == 2
        assert ran.out == ""
        assert f"did you mean: {meant}\n" in ran.err


def test_nothing_typed_is_answered_with_the_help(ctl: Ctl) -> None:
    """On standard error: it is no success."""
    ran = ctl()
    assert ran.code == 2
    assert "usage: supervisorctl VERB" in ran.err


def test_bad_arguments_exit_in_the_style_that_was_asked_for(ctl: Ctl) -> None:
    """2, 3 and 1."""
    assert [ctl("helth", "--exit-code", style).code for style in ("lsb", "nagios", "probe")] == [2, 3, 1]


def test_help_as_json_is_true_to_its_schema(ctl: Ctl) -> None:
    """--json on every verb."""
    assert problems("help", ctl("help", "--json").json) == []
