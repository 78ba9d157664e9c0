"""What the verdicts of one probe say, pure: whether an opening may end, and whether it is time for one.

A verdict speaks of the period in which it was begun: passes count from an opening on, failures from a
closing on, so what began before the breaker moved proves nothing, but shows that the probe is at work.
Neighbours: `catalogue` (holds one watch per table, and applies it to the breakers), `messages`. Knows no
breaker, no clock, and not how a probe is run.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import astuple, dataclass, field
from typing import Any, Final, NamedTuple

from ipc.circuit import NEVER
from supervisor.chronicle import line
from supervisor.messages import ProbeEnded, ProbeRule

PASSED: Final = "passed"
FAILED: Final = "failed"
ERROR: Final = "error"
"""It could not be asked at all: that says nothing of the dependency, and something of the configuration."""
STARTS_MAX: Final = 1000
"""Verdicts in a row whose beginnings are remembered; a `rise` or `fall` beyond it is never reached."""

TOOK_MAX_S: Final = 86_400.0
"""Seconds that a probe is believed to have taken."""


class Probing(NamedTuple):
    """What the schedule of a probe must know of the breakers that it speaks for."""

    table: str
    open: bool
    """One of them is OPEN: it waits for the probe."""
    opened_at: float
    """When the last of those that are OPEN has opened, s of CLOCK_MONOTONIC; -inf where none is."""


@dataclass(slots=True, eq=False)
class ProbeWatch:
    """The rule of one table's probe, its last verdict, and its newest verdicts of one kind in a row."""

    rule: ProbeRule
    verdict: str = ""
    """The last one; empty = there was none yet."""
    text: str = ""
    took_s: float = 0.0
    ended: float = NEVER
    """When the last verdict came, s."""
    until: float = NEVER
    """Until when the next word is awaited, s: so long, while it does not vouch, no open time ends."""
    decided: str = ""
    """The last verdict that was not an error."""
    run: int = 0
    """How many like it came in a row."""
    starts: list[float] = field(default_factory=list)
    """When those of them began that began last, s, in order."""
    told: str = ""
    """The verdict that was last an event."""

    def take(self, told: ProbeEnded, now: float) -> str:
        """A verdict has come; returns what is worth an event, a sentence's end, or nothing."""
        self.verdict = told.verdict if told.verdict in (PASSED, FAILED) else ERROR
        self.text, self.ended = line(told.text), now
        self.took_s = min(max(0.0, told.took_s), TOOK_MAX_S)  # no number of a prober makes JSON invalid
        if self.verdict != ERROR:
            patience_s = self.rule.patience_s
            self.until = now + (min(told.awaited_s, patience_s) if told.awaited_s > 0.0 else patience_s)
            if self.verdict != self.decided:
                self.decided, self.run = self.verdict, 0
                self.starts.clear()
            self.run += 1
            bisect.insort(self.starts, told.started)
            if len(self.starts) > min(STARTS_MAX, max(self.rule.rise, self.rule.fall)):
                del self.starts[0]
        return self._news()

    def _news(self) -> str:
        """One event for each change, not for each verdict; that it passes again only when it has risen."""
        verdict, before = self.verdict, self.told
        if verdict == before or (verdict == PASSED and before and self.run < self.rule.rise):
            return ""
        self.told = verdict
        if verdict == PASSED:
            return "its probe passes again" if before else ""
        return f"its probe {'fails' if verdict == FAILED else 'could not be asked'}: {self.text}"

    def _in_a_row(self, verdict: str, since: float, wanted: int) -> bool:
        began = sum(start >= since for start in self.starts)
        return self.decided == verdict and began >= wanted

    def risen(self, since: float) -> bool:
        """Enough passes in a row that were begun no earlier than `since` (s), the opening."""
        return self._in_a_row(PASSED, since, self.rule.rise)

    def fallen(self, since: float) -> bool:
        """Enough failures in a row that were begun no earlier than `since` (s), to open for them."""
        return self.rule.preventive and self._in_a_row(FAILED, since, self.rule.fall)

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        self.ended += delta_s
        self.until += delta_s
        self.starts = [start + delta_s for start in self.starts]

    def to_plain(self) -> list[Any]:
        """As JSON values."""
        times = [None if math.isinf(time) else time for time in (self.ended, self.until)]
        said = [self.verdict, self.text, self.took_s, self.decided, self.run, self.told]
        return [list(astuple(self.rule)), said, times, list(self.starts)]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> ProbeWatch:
        """The watch that `to_plain` wrote."""
        rule, (verdict, text, took_s, decided, run, told), times, starts = plain
        ended, until = (NEVER if time is None else time for time in times)
        known = ProbeRule(*rule)
        return cls(known, verdict, text, took_s, ended, until, decided, run, list(starts), told)
