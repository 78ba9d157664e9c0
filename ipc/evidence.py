"""What outcomes say about a dependency: runs of failures, rates in a window, and whose fault it looks.

The host run counts failures since the last success of anybody; each party has its own run; the window
feeds the failure rate and the slow rate. For the host run outcomes stand in the order of the eighths of
a second in which they ended, within one eighth in the order of arrival: what comes late breaks nothing.
Neighbours: `window` (the rolling counts), `breaker` (which acts on a Finding). Knows no state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ipc import window as rolling
from ipc.vocabulary import BreakerSettings, TimeWindow
from ipc.window import EIGHTHS_PER_S

ORDER_SLACK_S: Final = 0.125
"""The intake tells the ends of a quiet stretch of successes to within an eighth of a second."""
HOST_RUN_EIGHTHS: Final = 64
"""Eighths of a second that the host run tells apart; older failures are counted with the oldest of them."""
RUN_GAP_S: Final = 300.0
"""A failure that comes so long after the one before begins a new run; a longer window lengthens this."""
NEVER: Final = float("-inf")


def eighth(time: float) -> int:
    """The eighth of a second in which `time` (s) lies."""
    return math.floor(time * EIGHTHS_PER_S)


class Finding(NamedTuple):
    """A rule holds. `party` is whom it speaks against; "" = the dependency itself."""

    party: str
    cause: str


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """The failures of one party since its last success."""

    length: int
    first: float
    """When the first of them ended, s."""
    last: float
    """When the last of them ended, s."""
    doubted: bool = False
    """A success of another party ended between two of them: it looks like this party's own fault."""


class Evidence:
    """Runs and window of one breaker; only its breaker feeds it, and only with current outcomes."""

    __slots__ = ("_newest", "_second", "_tail", "host_run", "runs", "settings", "window")

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.window = rolling.rolling(settings.window)
        self.host_run = 0
        self.runs: dict[str, Run] = {}
        """Own runs; a party whose last outcome was a success has none."""
        self._tail: dict[int, dict[str, int]] = {}
        """The host run: by eighth of a second and party."""
        self._newest: tuple[float, str] = NEVER, ""
        """(end, party) of the newest success, and of the newest of any other party."""
        self._second: tuple[float, str] = NEVER, ""

    def add(self, party: str, flags: int, count: int, end: float) -> None:
        """Take in `count` equal outcomes that the window holds."""
        self.window.add(party, flags, count, end)
        if flags & rolling.FAILED:
            self.failure(party, count, end)
        else:
            self.success(party, end)

    def success(self, party: str, end: float) -> None:
        """Successes end runs and are what a peer's failures are doubted by."""
        if self.host_run:
            self._end_host_run(eighth(end))
        if self.runs:
            self.runs.pop(party, None)
        newest = self._newest
        if party == newest[1]:
            if end > newest[0]:
                self._newest = end, party
        elif end >= newest[0]:
            self._newest, self._second = (end, party), newest
        elif end >= self._second[0]:
            self._second = end, party

    def _end_host_run(self, last: int) -> None:
        """Take the failures out that ended no later than the eighth `last`."""
        for past in [past for past in self._tail if past <= last]:
            self.host_run -= sum(self._tail.pop(past).values())

    def failure(self, party: str, count: int, end: float) -> None:
        """Failures lengthen runs."""
        newest = self._newest[0]
        when = eighth(end)
        if newest == NEVER or when >= eighth(newest):
            if self._tail and when - max(self._tail) > self._gap_s() * EIGHTHS_PER_S:
                self._tail.clear()
                self.host_run = 0
            failed = self._tail.setdefault(when, {})
            failed[party] = failed.get(party, 0) + count
            self.host_run += count
            if len(self._tail) > HOST_RUN_EIGHTHS:
                self._merge_oldest()
        run = self.runs.get(party)
        if run is None or end - run.last > self._gap_s():
            self.runs[party] = Run(count, end, end)
            return
        run.length += count
        run.first, run.last = min(run.first, end), max(run.last, end)
        of_peers = self._newest if self._newest[1] != party else self._second
        if run.first < of_peers[0] <= end:
            run.doubted = True

    def _gap_s(self) -> float:
        """How long a run lasts without another failure, s."""
        window = self.settings.window
        return max(RUN_GAP_S, window.seconds) if isinstance(window, TimeWindow) else RUN_GAP_S

    def _merge_oldest(self) -> None:
        first, second, *_ = sorted(self._tail)
        into = self._tail[second]
        for party, count in self._tail.pop(first).items():
            into[party] = into.get(party, 0) + count

    def of_runs(self, party: str) -> Finding | None:
        """What the consecutive rule says after a failure of `party`."""
        threshold = self.settings.failure_threshold
        if threshold is None:
            return None
        if self.host_run >= threshold:
            return Finding("", f"{self.host_run} failures in a row")
        run = self.runs.get(party)
        if run is not None and run.doubted and run.length >= threshold:
            return Finding(party, f"{run.length} failures in a row of one worker while others succeeded")
        return None

    def of_rate(self, flag: int) -> Finding | None:
        """What the failure rate (flag FAILED) or the slow rate (flag SLOW) says now."""
        failing = flag == rolling.FAILED
        rate = self.settings.failure_rate if failing else self.settings.slow_call_rate
        totals = self.window.totals
        count = rolling.failures if failing else rolling.slow
        bad, total = count(totals), rolling.calls(totals)
        if rate is None or total < self.settings.minimum_calls or bad / total < rate:
            return None
        parts = self.window.parts
        worst = min(parts, key=lambda party: (-count(parts[party]), rolling.calls(parts[party]), party))
        rest = total - rolling.calls(parts[worst])
        cause = f"{bad} of {total} calls {'failed' if failing else 'were slow'} (limit {rate:g})"
        if not rest or (bad - count(parts[worst])) / rest >= rate:
            return Finding("", cause)
        return Finding(worst, f"{cause}, too many of them of one worker")

    def quiet(self) -> bool:
        """True if no number of plain successes can make a rate rule hold: they only make rates smaller."""
        plain, failed, slow, both = self.window.totals
        if not (failed or slow or both):
            return True
        settings = self.settings
        least = max(plain + failed + slow + both, settings.minimum_calls)
        if settings.failure_rate is not None and (failed + both) / least >= settings.failure_rate:
            return False
        return settings.slow_call_rate is None or (slow + both) / least < settings.slow_call_rate

    def step(self, flags: int, left: int) -> int:
        """How many of `left` equal outcomes may be taken before the rules must be asked.

        Successes make a rate smaller, so it is largest where `minimum_calls` is reached: there, or
        after the first one, it is asked, and not again for the others.
        """
        if flags:
            return 1
        plain, *bad = self.window.totals
        if not any(bad):
            return left
        return min(left, max(1, self.settings.minimum_calls - plain - sum(bad)))

    def set_apart(self, party: str) -> None:
        """Take the party's outcomes out: it is judged apart. Its own run goes on until it succeeds."""
        self.window.drop(party)
        for failed in self._tail.values():
            self.host_run -= failed.pop(party, 0)

    def end_run(self, party: str) -> None:
        """The party succeeded apart from the others, or is gone."""
        self.runs.pop(party, None)

    def opened(self) -> None:
        """The window is used up; the runs go on, for trials belong to them too."""
        self.window.clear()

    def closed(self) -> None:
        """A new start for the host; a party that failed without a success since keeps its own run."""
        self.window.clear()
        self._tail.clear()
        self.host_run = 0

    def clear(self) -> None:
        """Forget everything."""
        self.closed()
        self.runs.clear()
        self._newest = self._second = NEVER, ""

    def configure(self, settings: BreakerSettings, now: float) -> None:
        """Judge by other settings from now on; what is known is kept."""
        if settings.window != self.window.settings:
            self.window = rolling.refit(self.window, settings.window, now)
        self.settings = settings

    def shift(self, delta: float) -> None:
        """Move every stored time by `delta` seconds."""
        self.window.shift(delta)
        self._tail = self._shifted_tail(delta)
        self._newest = self._newest[0] + delta, self._newest[1]
        self._second = self._second[0] + delta, self._second[1]
        for run in self.runs.values():
            run.first += delta
            run.last += delta

    def _shifted_tail(self, delta: float) -> dict[int, dict[str, int]]:
        return {eighth(past / EIGHTHS_PER_S + delta): failed for past, failed in self._tail.items()}

    def to_plain(self) -> list[Any]:
        """As JSON values."""
        tail = [[past, sorted(failed.items())] for past, failed in self._tail.items()]
        successes = [[None if end == NEVER else end, party] for end, party in (self._newest, self._second)]
        runs = [[party, run.length, run.first, run.doubted, run.last] for party, run in self.runs.items()]
        return [self.window.to_plain(), self.host_run, tail, runs, successes]

    @classmethod
    def from_plain(cls, settings: BreakerSettings, plain: list[Any]) -> Evidence:
        """The evidence that `to_plain` wrote, its window as it was then: `configure` refits it."""
        evidence = cls(settings)
        window, evidence.host_run, tail, runs, successes = plain
        evidence._tail = {past: dict(failed) for past, failed in tail}
        evidence.window = rolling.from_plain(window)
        evidence.runs = {party: _run(*run) for party, *run in runs}
        newest, second = ((NEVER if end is None else end, party) for end, party in successes)
        evidence._newest, evidence._second = newest, second
        return evidence


def _run(length: int, first: float, doubted: bool, last: float | None = None) -> Run:
    """A run as it was written; an older daemon did not write when its last failure ended."""
    return Run(length, first, first if last is None else last, doubted)
