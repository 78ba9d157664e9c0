"""The answering side of the control socket, for actors: remembers what they say to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.connections import Peer, Request
from supervisor.user_database import Account, AccountQuery, look_up


class Answers:
    """As `Connections`, without a socket."""

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}
        self.refusals: dict[int, tuple[str, str]] = {}

    @staticmethod
    def is_privileged(uid: int) -> bool:
        """Root alone."""
        return uid == 0

    def answer(self, connection: int, _number: int, value: Any, _numbers: tuple[int, ...] = ()) -> bool:
        """An answer."""
        self.answers[connection] = value
        return True

    def refuse(self, connection: int, _number: int, code: str, text: str) -> bool:
        """An answer that says no."""
        self.refusals[connection] = (code, text)
        return True


class Users:
    """The user database, which answers at once."""

    def resolve(self, query: AccountQuery, proceed: Callable[[Account | None], None]) -> None:
        """As `UserDatabase`, without a thread."""
        proceed(look_up(query))

    def sweep(self) -> None:
        """Nobody waits."""


def request(connection: int, verb: str, uid: int = 0, **more: Any) -> Request:
    """What somebody asks."""
    return Request(connection, 1, {"verb": verb, **more}, Peer(1234, uid, uid), ())
