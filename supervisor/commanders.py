"""Decides who may command: root, the supervisor's own user, and the configured commanders.

`[control] commanders` names users (`user:NAME`, `uid:NUMBER`) and groups (`group:NAME`). A process is in the
groups that the kernel reports for it (SO_PEERGROUPS), and in those that the user database puts its user in.
Knows no command; asks no database: `user_database` did.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ipc.vocabulary import NAME_PATTERN
from supervisor.connections import Peer, Request
from supervisor.errors import CommandDenied, RequestRefused
from supervisor.managed import VERBS
from supervisor.messages import Noted
from supervisor.rate_limit import RateLimit
from supervisor.user_database import Account, AccountQuery
from supervisor.worker import Worker

LOG_PERIOD_S: Final = 10.0
COMMANDING: Final = frozenset({"command", "config", "forget", "probe", "reload", "tail", *VERBS})
"""Verbs for commanders alone, or of which others see less."""


def query_for(
    request: Request, commanders: tuple[str, ...], owner_of: Callable[[str], int | None]
) -> AccountQuery | None:
    """What must be known of the user of this request before it can be answered; None = nothing.

    `owner_of` tells which uid used a namespace first: a refused hello names this user.
    """
    verb, peer = request.body.get("verb"), request.peer
    if verb == "hello":
        namespace = request.body.get("namespace")
        wanted = namespace if isinstance(namespace, str) and NAME_PATTERN.fullmatch(namespace) else ""
        owner = owner_of(wanted) if wanted else None
        return AccountQuery(peer.uid, peer.gid, (), wanted, -1 if owner is None else owner)
    if not isinstance(verb, str) or verb not in COMMANDING:
        return None
    groups = tuple(name.partition(":")[2] for name in commanders if name.startswith("group:"))
    return AccountQuery(peer.uid, peer.gid, groups)


def is_privileged(uid: int, commanders: tuple[str, ...]) -> bool:
    """Whether this user may command by its number alone."""
    return uid in (0, os.getuid()) or f"uid:{uid}" in commanders


def may_command(peer: Peer, account: Account, commanders: tuple[str, ...]) -> bool:
    """Whether this peer may command."""
    if is_privileged(peer.uid, commanders):
        return True
    if account.known and f"user:{account.name}" in commanders:
        return True
    return bool(account.group_ids & {peer.gid, *peer.groups, *account.member_of})


def account_of(request: Request) -> Account:
    """What is known of the user of this request."""
    return request.account or Account(str(request.peer.uid))


def check_commander(request: Request, commanders: tuple[str, ...], now: float) -> str:
    """The name of the user, who may command.

    Raises CommandDenied, and RequestRefused if the asker has given up by now: a request may lie in the
    socket while this process hangs, and nobody expects that it is carried out afterwards.
    """
    account, uid = account_of(request), request.peer.uid
    if not may_command(request.peer, account, commanders):
        grant = f"user:{account.name}" if account.known else f"uid:{uid}"
        text = f'user {account.name} may not command; add "{grant}" to [control] commanders, or become root'
        raise CommandDenied(text)
    until = request.body.get("until")
    if isinstance(until, int | float) and now > until:
        raise RequestRefused("late", "whoever asked for this has given up meanwhile: nothing was done")
    return account.name


class Impersonations:
    """Turns requests in another worker's name into events, at most one per user in LOG_PERIOD_S."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._limit = RateLimit(LOG_PERIOD_S, clock)

    def note(self, peer: Peer, worker: Worker) -> Noted | None:
        """The event that this peer has asked for a permit of this worker; None = it was told just now."""
        left_out = self._limit.allow(peer.uid)
        if left_out is None:
            return None
        more = f" ({left_out} more like it in between)" if left_out else ""
        text = f"uid {peer.uid}, pid {peer.pid} asked for a permit in the name of {worker.title}: refused"
        facts = (("event", "impersonation"), ("uid", str(peer.uid)), ("pid", str(peer.pid)))
        return Noted("denied", text + more, facts, worker=worker.nonce)
