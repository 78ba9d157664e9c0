"""Fixtures of the tests that run real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.live.house import House


@pytest.fixture
def house() -> Iterator[House]:
    """A running supervisor with default settings."""
    with House() as made:
        yield made.start()


@pytest.fixture
def build() -> Iterator[Callable[..., House]]:
    """Make houses with a configuration or an environment; they are not started, but closed in every case."""
    built: list[House] = []

    def make(config: str = "", **environment: str) -> House:
        built.append(House(config, environment))
        return built[-1]

    yield make
    for each in built:
        each.close()
