"""How many processes are stopped: the last started first, each waited for, and all of them within a time.

Neighbours: `policy` (one process), `wards` (which does what is said here). Knows no signal and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.policy import NEVER, Act, Course, WardState


class Retreat:
    """Stops groups of courses one group after the other, the last one first; each is waited for."""

    __slots__ = ("_hurry", "_left", "_told", "_until")

    def __init__(
        self, groups: Sequence[Sequence[Course]], until: float = NEVER, hurry: float = NEVER
    ) -> None:
        """`hurry`, s: whose turn has not come is asked then, so that nobody is killed unasked; `until`, s:
        whatever lives then is killed at once.
        """
        self._hurry = hurry
        self._left = [list(group) for group in groups]
        self._told = False
        self._until = until

    @property
    def over(self) -> bool:
        """True if nobody is left to wait for."""
        return not self._left

    @property
    def until(self) -> float:
        """When `turn` has to be called at the latest, s; else after each end."""
        return min(self._hurry, self._until) if self._left else NEVER

    def turn(self, now: float) -> list[tuple[Course, Act]]:
        """What is to be done now."""
        if now >= self._until:
            return self._rush(now)
        acts: list[tuple[Course, Act]] = []
        if now >= self._hurry:
            self._hurry = NEVER
            waiting = self._left[: -1 if self._told else None]
            acts = [(course, course.stop(now)) for group in reversed(waiting) for course in group]
            self._left, self._told = [[course for group in self._left for course in group]], True
        while self._left:
            if not self._told:
                acts += [(course, course.stop(now)) for course in self._left[-1]]
                self._told = True
            if any(course.state is WardState.STOPPING for course in self._left[-1]):
                break
            self._left.pop()
            self._told = False
        return acts

    def _rush(self, now: float) -> list[tuple[Course, Act]]:
        """There is no time left: everybody at once, once."""
        self._until = self._hurry = NEVER
        self._left, self._told = [[course for group in self._left for course in group]], True
        acts = []
        for course in self._left[0]:
            course.stop(now)
            if course.living:
                course.until = NEVER
                acts.append((course, Act.KILL))
        return acts
