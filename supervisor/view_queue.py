"""Answers what only asks, one user after the other, so that nobody's questions take the loop from the others.

A question is answered at once unless its user has others waiting, or rests. After each answer its user
rests for REST_FACTOR times as long as the answer took. Hellos, permits and commands never wait here.
A bounded number of each user's questions waits, and none for longer than its asker does.
Neighbours: `control_server` (whose questions these are), `views` (which makes the answers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from supervisor.connections import Request

WAITING_PER_UID_MAX: Final = 256
"""One for each connection that a user may have: refusing is no rest, the refused ask again at once."""
WAIT_MAX_S: Final = 2.0
REST_FACTOR: Final = 3.0
"""A user's answers take a quarter of the loop at most."""
REST_MIN_S: Final = 0.002
"""After any answer: a user who asks without pause has 500 answers a second at most."""


class ViewQueue:
    """Owns the questions that wait, by uid; `answer` makes and sends one answer, `refuse` says busy."""

    def __init__(
        self,
        answer: Callable[[Request], object],
        refuse: Callable[[Request], object],
        clock: Callable[[], float],
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._clock = clock
        self.is_privileged: Callable[[int], bool] = lambda _uid: False
        """Whose questions neither wait nor are followed by a rest."""
        self._waiting: dict[int, deque[tuple[float, Request]]] = {}
        """By uid, whose turn is next first: until when, s, and the question."""
        self._rests_until: dict[int, float] = {}

    def ask(self, request: Request) -> None:
        """Answer now, or when this user's turn comes."""
        uid, now = request.peer.uid, self._clock()
        if self.is_privileged(uid):
            self._answer(request)
            return
        if uid not in self._waiting and now >= self._rests_until.get(uid, now):
            self._answer_one(request)
            return
        waiting = self._waiting.setdefault(uid, deque())
        if len(waiting) >= WAITING_PER_UID_MAX:
            self._refuse(request)
            return
        until = request.body.get("until")
        latest = now + WAIT_MAX_S
        waiting.append((min(until, latest) if isinstance(until, int | float) else latest, request))

    def next_time(self) -> float | None:
        """When `turn` should be called, s; None = nobody waits."""
        return min((self._rests_until.get(uid, 0.0) for uid in self._waiting), default=None)

    def turn(self) -> None:
        """Answer one question of the user who has waited for its turn for longest; refuse what is too old."""
        now = self._clock()
        for uid, waiting in list(self._waiting.items()):
            while waiting and waiting[0][0] < now:
                self._refuse(waiting.popleft()[1])
            if not waiting:
                del self._waiting[uid]
        for uid in [one for one, until in self._rests_until.items() if until <= now]:
            del self._rests_until[uid]
        ready = [one for one in self._waiting if one not in self._rests_until]
        if not ready:
            return
        uid = ready[0]
        waiting = self._waiting.pop(uid)
        _, request = waiting.popleft()
        if waiting:
            self._waiting[uid] = waiting  # behind all others
        self._answer_one(request)

    def clear(self) -> None:
        """Refuse all that wait."""
        waiting, self._waiting = self._waiting, {}
        for questions in waiting.values():
            for _, request in questions:
                self._refuse(request)

    def _answer_one(self, request: Request) -> None:
        began = self._clock()
        try:
            self._answer(request)
        finally:
            now = self._clock()
            self._rests_until[request.peer.uid] = now + max(REST_MIN_S, REST_FACTOR * (now - began))
