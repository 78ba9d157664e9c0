"""Fixtures of several files here."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.workers.talking import CANARY, TalkingProber


@pytest.fixture
def prober() -> Iterator[TalkingProber]:
    """A prober that has said no secret when the test is over."""
    with TalkingProber(CANARY_URL=f"redis://:{CANARY}@127.0.0.1:1/0", CANARY_WORD=CANARY) as made:
        yield made
        assert CANARY not in json.dumps(made.said) + made.printed()
