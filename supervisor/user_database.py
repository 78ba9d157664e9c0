"""What the host's user database says of a uid: its name, its groups, whether a name is a user's.

The database may be on the network (LDAP, SSSD) and may hang for minutes. So the event loop never asks it: a
thread does, and the loop continues with the request when the answer is there, or gives it up after WAIT_S.
Answers are kept for a minute; a uid that the database does not know is asked for again each time. While the
database hangs, the last answer that it ever gave about a uid is used.
Neighbours: `control_server` (asks before a hello and before a command), `commanders`, `hello`.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

KEEP_S: Final = 60.0
"""How long an answer is believed."""
WAIT_S: Final = 1.0
"""How long a request waits for the database."""
THREADS_MAX: Final = 4
"""Threads that ask at once: so many hanging questions, and no more."""
THREADS_PER_UID_MAX: Final = 1
"""One user's questions hold one thread."""
ENTRIES_MAX: Final = 4096
WAITING_MAX: Final = 4096
"""Requests that wait for an answer; beyond it one is given up at once."""


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """What is asked about the user of one request."""

    uid: int
    gid: int
    groups: tuple[str, ...] = ()
    """Names of groups whose members are wanted."""
    namespace: str = ""
    """A name that may be another user's; empty = not asked."""
    owner: int = -1
    """The uid of another user whose name is wanted; -1 = of nobody."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of a user."""

    name: str
    """The number where the uid has no name."""
    known: bool = False
    """The database knows this uid."""
    group_ids: frozenset[int] = frozenset()
    """Of the groups that were asked for, as far as they exist."""
    member_of: frozenset[int] = frozenset()
    """The groups that the database puts this user in."""
    namespace_is_user: bool = False
    """The namespace that was asked for is the name of a user."""
    owner_name: str = ""
    """The name of `owner`, or its number."""


@dataclass(slots=True)
class _Waiting:
    query: AccountQuery
    since: float
    proceed: Callable[[Account | None], None]


def look_up(query: AccountQuery) -> Account:
    """Ask the database, however long that takes. Call it in a thread."""
    name, known = _name_of(query.uid)
    ids, member_of = set(), {query.gid}
    for group in query.groups:
        with contextlib.suppress(KeyError):
            ids.add(grp.getgrnam(group).gr_gid)
    if ids and known:
        member_of |= set(os.getgrouplist(name, query.gid))
    is_user = False
    if query.namespace:
        with contextlib.suppress(KeyError):
            is_user = bool(pwd.getpwnam(query.namespace))
    owner_name = _name_of(query.owner)[0] if query.owner >= 0 else ""
    return Account(name, known, frozenset(ids), frozenset(member_of), is_user, owner_name)


def _name_of(uid: int) -> tuple[str, bool]:
    """The name of this user, and whether it has one."""
    try:
        return pwd.getpwuid(uid).pw_name, True
    except KeyError:
        return str(uid), False


class UserDatabase:
    """Owns the threads and the answers. `later` has the loop call something, from any thread."""

    def __init__(
        self,
        later: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
        look_up: Callable[[AccountQuery], Account] = look_up,
    ) -> None:
        self._later = later
        self._clock = clock
        self._look_up = look_up
        self._kept: dict[AccountQuery, tuple[float, Account]] = {}
        self._waiting: list[_Waiting] = []
        self._asking: set[AccountQuery] = set()
        """What threads ask at the moment."""

    def resolve(self, query: AccountQuery, proceed: Callable[[Account | None], None]) -> None:
        """Call `proceed` with the answer: at once if it is known, else later; None = it cannot be had now."""
        kept = self._kept.get(query)
        if kept is not None and kept[1].known and self._clock() - kept[0] < KEEP_S:
            proceed(kept[1])
        elif len(self._waiting) >= WAITING_MAX:
            proceed(None)
        else:
            self._waiting.append(_Waiting(query, self._clock(), proceed))
            self._start_threads()

    def sweep(self) -> None:
        """A few times a second: requests that have waited long enough continue without a fresh answer."""
        late = self._clock() - WAIT_S
        given_up = [one for one in self._waiting if one.since <= late]
        self._waiting = [one for one in self._waiting if one.since > late]
        for one in given_up:
            kept = self._kept.get(one.query)
            one.proceed(kept[1] if kept else None)
        self._start_threads()

    def _start_threads(self) -> None:
        for one in self._waiting:
            if len(self._asking) >= THREADS_MAX:
                return
            same_user = sum(query.uid == one.query.uid for query in self._asking)
            if one.query not in self._asking and same_user < THREADS_PER_UID_MAX:
                self._ask(one.query)

    def _ask(self, query: AccountQuery) -> None:
        """Ask in a thread. Where none can be started the loop asks by itself, so that workers may join."""

        def work() -> None:
            account: Account | None = None
            try:
                with contextlib.suppress(OSError):
                    account = self._look_up(query)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._later(lambda: self._answered(query, account))

        self._asking.add(query)
        try:
            threading.Thread(target=work, name="user-database", daemon=True).start()
        except RuntimeError:
            self._later(work)

    def _answered(self, query: AccountQuery, account: Account | None) -> None:
        """In the loop again."""
        self._asking.discard(query)
        if account is not None:
            self._kept.pop(query, None)
            if len(self._kept) >= ENTRIES_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[query] = (self._clock(), account)
        served = [one for one in self._waiting if one.query == query]
        self._waiting = [one for one in self._waiting if one.query != query]
        for one in served:
            one.proceed(account)
        self._start_threads()
