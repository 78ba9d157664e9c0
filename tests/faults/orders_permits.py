"""Orders to ask for a permit by hand: only the worker's own process may ask in its name.

Neighbours: `crew` (who obeys), `tests.live.managed_targets` (which asks for a managed worker).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ipc import control
from ipc.process import default_client

if TYPE_CHECKING:
    from tests.faults.crew import Crew

ASK_S: Final = 2.0


def ask_permit(row: int, ask: int, vanish: bool = False, wait_s: float = 0.0) -> dict[str, Any]:
    """The supervisor's answer; with `vanish` the asker leaves after `wait_s`, whatever was answered."""
    client = default_client()
    assert client.path is not None
    asked: dict[str, Any] = {"nonce": client.nonce.hex(), "row": row, "ask": ask}
    if not vanish:
        answer: dict[str, Any] = control.ask(client.path, "permit", ASK_S, **asked)
        return answer
    exchange = control.Exchange(client.path)
    exchange.send("permit", **asked)
    if wait_s:
        control.wait_readable(exchange.connection, wait_s)
    exchange.close()
    return {}


def permit(_crew: Crew, **asked: Any) -> dict[str, Any]:
    """As `ask_permit`."""
    return ask_permit(**asked)


def nonce(_crew: Crew) -> dict[str, Any]:
    """What this worker alone should know."""
    return {"nonce": default_client().nonce.hex()}


ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"permit": permit, "nonce": nonce}
