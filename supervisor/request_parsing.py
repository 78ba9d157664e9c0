"""Checks requests for permits, field by field. A wrong one is refused in a sentence.

Pure. Neighbours: `control_server`, which carries out what is returned here. Knows no peer and no engine.
"""

from __future__ import annotations

from typing import Any, Final, TypeGuard

from ipc.layout import ROWS
from supervisor.descriptors import is_nonce
from supervisor.errors import BadRequest

ASK_END: Final = 1 << 53


def read_permit(body: dict[str, Any]) -> tuple[str, int, int]:
    """Nonce, row and number of a question for a permit. Raises BadRequest."""
    nonce, row, ask = (body.get(key) for key in ("nonce", "row", "ask"))
    if not is_nonce(nonce) or not _is_whole(row) or not _is_whole(ask):
        raise BadRequest("a permit is asked for with nonce, row and ask")
    if not 0 <= row < ROWS or not 0 <= ask < ASK_END:
        raise BadRequest("a permit is asked for with nonce, row and ask")
    return nonce, row, ask


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
