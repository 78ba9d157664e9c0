"""How much of the fault suite is run: enough for every change, or the full counts of the catalogue.

`BREAKERD_LONG=1 pytest tests/faults` runs the full counts (some hours on two cores).
"""

from __future__ import annotations

import os
from typing import Final, TypeVar

Amount = TypeVar("Amount")

LONG: Final = os.environ.get("BREAKERD_LONG") == "1"
PATIENCE_S: Final = 7200 if LONG else 120
"""After how many seconds a single test is given up."""


def effort(short: Amount, full: Amount) -> Amount:
    """The count for every change, or the full one."""
    return full if LONG else short
