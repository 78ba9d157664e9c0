"""The steps of the crash protocol: what a test asks for, and what nobody can have meant."""

from __future__ import annotations

import pytest

from supervisor.steps import crash_at, life_of


@pytest.mark.parametrize(("told", "life"), [("committed", 1), ("committed:3", 1), ("adopted:1:2", 2)])
def test_the_life_is_the_third_part(told: str, life: int) -> None:
    """The first, if it is not named."""
    assert life_of(told) == life


@pytest.mark.parametrize("told", ["x:y", ":", "committed:", "committed:1:z", "committed:-1", "a:1.5:2:3"])
def test_what_cannot_be_read_asks_for_nothing(told: str) -> None:
    """A variable of the environment ends neither the nursery nor a daemon."""
    assert life_of(told) == 0
    passed = crash_at(told)
    for name in ("committed", "a", "x", ""):
        passed(name)
