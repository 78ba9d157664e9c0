"""What the workers of the fault tests guard: a function that ends as it is told, its intent in the ledger.

Neighbours: `oracle` (the ledger), `crew` and the `orders_*` (who call it).
"""

from __future__ import annotations

from typing import Final

from ipc.vocabulary import OutcomeKind
from tests.faults.oracle import Ledger


class Broken(ConnectionError):
    """What a guarded function raises when its dependency is down."""


class Strange(Exception):
    """Neither a failure nor a success of the dependency."""


RAISES: Final[dict[str, tuple[type[BaseException] | None, OutcomeKind]]] = {
    "ok": (None, OutcomeKind.SUCCESS),
    "fail": (Broken, OutcomeKind.FAILURE),
    "ignored": (Strange, OutcomeKind.IGNORED),
    "keyboard": (KeyboardInterrupt, OutcomeKind.IGNORED),
    "exit": (SystemExit, OutcomeKind.IGNORED),
    "generator": (GeneratorExit, OutcomeKind.IGNORED),
    "memory": (MemoryError, OutcomeKind.IGNORED),
}
"""How a call may be told to end: what it raises, and the kind of outcome that this is."""


def body(how: str, ledger: Ledger) -> str:
    """What is guarded: ends as told, with its intent in the ledger as the last thing before it ends."""
    raised, kind = RAISES[how]
    ledger.intend(kind)
    if raised is not None:
        raise raised(how)
    return how
