"""A box and a service for each test; where there can be none, the tests are named as not run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import could_not_run
from tests.systemd.box import Box, missing
from tests.systemd.service import Service


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A booted systemd."""
    lacking = missing()
    if lacking:
        could_not_run(f"systemd:{request.node.name}", lacking)
    with Box() as made:
        yield made.boot()


@pytest.fixture
def service(box: Box) -> Iterator[Service]:
    """The supervisor in it: neither installed nor started."""
    made = Service(box)
    yield made
    made.close()
