"""A page on a terminal."""

from __future__ import annotations

import io

import pytest

from supervisor.ctl import colour
from supervisor.ctl.page import Page, Table
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, Stage, Terminal

PAGE = Page({}, ("warn: [bold] is text", Table(("NAME", "STATE"), (("a", "OPEN"), ("b\x1b[2J", "")))))


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of a known kind and width."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_states_are_coloured_and_text_stays_text() -> None:
    """Words get colours; brackets are no markup; control characters from others never arrive."""
    out = Terminal()
    colour.show(PAGE, out)
    shown = out.getvalue()
    assert "\x1b[1;31mOPEN" in shown
    assert "[bold] is text" in shown
    assert "\x1b[2J" not in shown


def test_watch_clears_the_screen_first() -> None:
    """The page replaces the one before."""
    out = Terminal()
    colour.show(PAGE, out, clear=True)
    assert out.getvalue().startswith("\x1b[2J\x1b[H")


def test_a_terminal_gets_colour_unless_told_otherwise(
    stage: Stage, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--no-color, NO_COLOR, --json and pipes are plain."""
    stage.script["health"] = answers.health()
    assert "\x1b[" in ctl("health", out=Terminal()).out
    assert "\x1b[" not in ctl("health", "--no-color", out=Terminal()).out
    assert "\x1b[" not in ctl("health", "--json", out=Terminal()).out
    assert "\x1b[" not in ctl("health", out=io.StringIO()).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in ctl("health", out=Terminal()).out


def test_figures_are_never_cut_on_a_narrow_terminal(
    stage: Stage, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is too wide becomes long lines; a long last column is folded."""
    monkeypatch.setenv("COLUMNS", "60")
    stage.script["stats"] = answers.stats()
    stage.script["health"] = answers.health(
        checks={
            "supervisor:checkpoint": [{"status": "pass", "output": "word " * 20, "observedValue": "written"}]
        }
    )
    assert "shop/database      100        7             0" in ctl("stats", out=Terminal()).out
    assert ctl("health", out=Terminal()).out.count("word word word") > 2


def test_the_columns_are_the_same_words(stage: Stage, ctl: Ctl) -> None:
    """A terminal shows what a pipe gets."""
    stage.script["status"] = answers.status()
    shown = ctl("status", out=Terminal()).out
    for word in ("breakerd", "RUNNING", "pid 123, uptime 0:01:02"):
        assert word in shown
