"""What a process has one of: its default client, and the two questions that need no breaker.

Neighbours: `client` (what it is), `guard` (which asks for it). Knows no row.
"""

from __future__ import annotations

from typing import Any

from ipc import control
from ipc.client import Client
from ipc.control_async import running_loop
from ipc.errors import SupervisorUnavailable
from ipc.logbook import warn

_default: list[Client] = []


def default_client() -> Client:
    """The client of this process, made on first use."""
    if not _default:
        _default.append(Client())
    return _default[0]


def set_default(client: Client | None) -> Client | None:
    """Let breakers that are made from now on use this client (None = a new one); gives the one before."""
    before = _default[0] if _default else None
    _default[:] = [] if client is None else [client]
    return before


def connect(
    socket: str | None = None, name: str | None = None, namespace: str | None = None, timeout: float = 2.0
) -> bool:
    """Attach this process to the supervisor, waiting up to `timeout` seconds; True if attached.

    Optional: without it the first guarded call attaches. `name` is shown to operators; `namespace` says
    whose breakers these are (else BREAKERD_NAMESPACE, else the user's name). Raises SettingsError.
    """
    return _prepared(socket, name, namespace).connect(timeout)


async def connect_async(
    socket: str | None = None, name: str | None = None, namespace: str | None = None, timeout: float = 2.0
) -> bool:
    """As `connect`, awaited: for the start of an asyncio application, whose loop it never blocks.

    Where no asyncio loop runs (trio, for one) it is `connect`. Raises SettingsError.
    """
    client, loop = _prepared(socket, name, namespace), running_loop()
    return client.connect(timeout) if loop is None else await client.connect_async(timeout, loop)


def _prepared(socket: str | None, name: str | None, namespace: str | None) -> Client:
    """The default client, told what to attach as; one that is attached keeps what it is, and says so."""
    client = default_client()
    if not client.attached:
        client.configure(socket, name, namespace)
    elif missing := client.differs(name, namespace):
        warn(
            "this process is attached already, so ipc.connect cannot give it the %s: "
            "call ipc.connect before the first guarded call, or set BREAKERD_NAME and BREAKERD_NAMESPACE",
            missing,
        )
    return client


def query_health(level: str = "full", socket: str | None = None, timeout: float = 2.0) -> dict[str, Any]:
    """The supervisor's health in the health+json shape; `level` is live, ready or full.

    Raises SupervisorUnavailable where nobody answers within `timeout` seconds, ControlRefused for a level
    that does not exist.
    """
    path = control.socket_path(socket)
    if path is None:
        raise SupervisorUnavailable("BREAKERD_SOCKET is off: there is no supervisor to ask", "absent")
    answer: dict[str, Any] = control.ask(path, "health", timeout, level=level)
    return answer
