"""A question for a permit has a shape, or is refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from ipc.layout import ROWS
from supervisor.errors import BadRequest
from supervisor.request_parsing import ASK_END, read_permit

GOOD: dict[str, Any] = {"nonce": "0af" * 10 + "12", "row": ROWS - 1, "ask": ASK_END - 1}


def test_what_has_the_shape_is_read() -> None:
    """To the last row and number."""
    assert read_permit(GOOD) == (GOOD["nonce"], ROWS - 1, ASK_END - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": None}, {"nonce": 7}, {"nonce": "0a " * 10 + "12"}, {"nonce": "0A" * 16},
        {"nonce": "ab" * 15},
        {"row": -1}, {"row": ROWS}, {"row": 1.0}, {"row": True}, {"row": "1"}, {"row": None},
        {"ask": -1}, {"ask": ASK_END}, {"ask": False}, {"ask": [1]},
    ],
)  # fmt: skip
def test_what_has_not_is_refused(wrong: dict[str, Any]) -> None:
    """Whatever a stranger sends."""
    with pytest.raises(BadRequest, match="nonce, row and ask"):
        read_permit({**GOOD, **wrong})
