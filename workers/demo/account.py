"""The account that the demo ends with: pure figures in, text and a verdict out. Knows no process and no file.

`acts` measures the figures, `__main__` prints the account and makes the verdict its exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from workers.demo.ledger import Counts

NS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class OutageFigures:
    """What one outage did to one crew. None = did not happen within the outage."""

    everywhere_s: float | None
    """From the first failure of anybody to the first refusal of the last worker."""
    hits: int
    """Calls that failed on the dead database."""
    waited_s: float
    """How long they waited for it together."""
    refused: int
    """Calls that were spared it."""
    recovery_s: float | None
    """From the end of the outage to the first success after the last refusal of the last worker."""


@dataclass(frozen=True, slots=True)
class Tallied:
    """Outcomes of one kind, as the two sides saw them."""

    kind: str
    issued: int
    """Summed from the workers' own files."""
    counted: int
    """Said by `supervisorctl stats --json`."""
    in_flight: int
    """Issued by a killed worker without a mark that it reached the ring: may be counted or not."""

    @property
    def exact(self) -> bool:
        """Whether every outcome is accounted for, but for those in flight in the instant of a kill."""
        return self.issued - self.in_flight <= self.counted <= self.issued


@dataclass(frozen=True, slots=True)
class Kills:
    """What was killed with kill -9, and how it went on."""

    worker: int
    worker_pid: int
    daemon_pid: int
    new_daemon_pid: int
    back_s: float
    """From the daemon's death to the first answer of its successor."""


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that the demo claims."""

    workers: int
    outage_s: float
    alone: OutageFigures
    together: OutageFigures
    kills: Kills
    tallies: tuple[Tallied, ...]
    refused: Tallied
    """Calls that the breaker refused; they are no outcomes, but exact as well."""
    lost: tuple[tuple[str, int], ...]
    """What the supervisor itself says that it lost; empty = nothing."""
    stuck: int
    """Outcomes in flight of workers that ended in order: must be 0."""
    took_s: float

    @property
    def exact(self) -> bool:
        """Whether issued = counted, to the last outcome and refusal."""
        outcomes = not self.lost and not self.stuck and all(tally.exact for tally in self.tallies)
        # A worker notes a refusal after its breaker did: the killed one may have had no time to.
        return outcomes and 0 <= self.refused.counted - self.refused.issued <= 1


def outage_figures(counts: Iterable[Counts], released_ns: int) -> OutageFigures:
    """What the ledgers say about the outage that ended at `released_ns`."""
    seen = list(counts)
    failures = [one.first_failure for one in seen if one.first_failure]
    everywhere = (max(one.first_refusal for one in seen) - min(failures)) * NS if failures else None
    recovered = (max(one.back for one in seen) - released_ns) * NS
    return OutageFigures(
        everywhere_s=everywhere if all(one.first_refusal for one in seen) else None,
        hits=sum(one.hits for one in seen),
        waited_s=sum(one.waited_ns for one in seen) * NS,
        refused=sum(one.refused for one in seen),
        recovery_s=recovered if all(is_back(one, released_ns) for one in seen) else None,
    )


def is_back(one: Counts, released_ns: int) -> bool:
    """Whether this worker reaches the database again."""
    return released_ns > 0 and one.back > max(one.last_refusal, released_ns)


def tally(
    left: Iterable[Counts], killed: Counts, answer: dict[str, Any]
) -> tuple[tuple[Tallied, ...], Tallied]:
    """Issued beside counted, by kind, and the refusals; `answer` is that of `supervisorctl stats --json`."""
    everybody = [*left, killed]
    totals = answer["totals"]
    outcomes = dict(totals["outcomes"])
    success, failure = killed.in_flight
    tallies = [
        Tallied("success", sum(one.issued_success for one in everybody), outcomes.pop("success", 0), success),
        Tallied("failure", sum(one.issued_failure for one in everybody), outcomes.pop("failure", 0), failure),
    ]
    # No call of the demo ends in any other way: whatever is counted there was never issued.
    tallies += [Tallied(kind, 0, count, 0) for kind, count in sorted(outcomes.items()) if count]
    said = totals["rejected"] + totals["permit_timeout"] + totals["ramped"]
    return tuple(tallies), Tallied("refused", sum(one.refused for one in everybody), said, 0)


def lost(answer: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """What the supervisor says that it lost."""
    return tuple((what, count) for what, count in sorted(answer["lost"].items()) if count)


def stuck(left: Iterable[Counts]) -> int:
    """Outcomes that workers issued and never marked as done, although they ended in order."""
    return sum(abs(part) for one in left for part in one.in_flight)


# --- as text ----------------------------------------------------------------------------------------

LABEL: Final = 36
COLUMN: Final = 12


def summary(figures: OutageFigures) -> str:
    """One outage in one line."""
    when = _time(figures.everywhere_s)
    return f"{figures.hits:,} calls hit the dead database, refused everywhere after {when}"


def report(account: Account) -> list[str]:
    """The account as lines of text, 80 columns at most."""
    alone, together = account.alone, account.together
    rows = [
        ("", "in-process", "host-wide"),
        ("first failure -> refused everywhere", *_times(alone.everywhere_s, together.everywhere_s)),
        ("calls that hit the dead database", f"{alone.hits:,}", f"{together.hits:,}"),
        ("time that callers waited on it", f"{alone.waited_s:.1f} s", f"{together.waited_s:.1f} s"),
        ("calls refused at once instead", f"{alone.refused:,}", f"{together.refused:,}"),
        ("database back -> everybody served", *_times(alone.recovery_s, together.recovery_s)),
    ]
    lines = [f"One outage of {account.outage_s:g} s, {account.workers} workers"]
    lines += [_row(*row) for row in rows]
    kills = account.kills
    lines += [
        "",
        f"kill -9 of worker {kills.worker} (pid {kills.worker_pid}) and of daemon {kills.daemon_pid};",
        f"its successor {kills.new_daemon_pid} answered {kills.back_s:.2f} s later",
        "",
        _row("Outcomes, host-wide", "issued", "counted"),
    ]
    lines += [_row(one.kind, f"{one.issued:,}", f"{one.counted:,}", _verdict(one)) for one in account.tallies]
    refused = account.refused
    off = refused.counted - refused.issued
    verdict = "  exact" if not off else f"  off by {off:+,}"
    lines += [_row("refused (no outcomes)", f"{refused.issued:,}", f"{refused.counted:,}", verdict)]
    return lines + _conclusion(account)


def _conclusion(account: Account) -> list[str]:
    """Whether the books balance, and what is wrong where they do not."""
    issued = sum(one.issued for one in account.tallies)
    counted = sum(one.counted for one in account.tallies)
    flying = sum(one.in_flight for one in account.tallies)
    fate = f"{flying} outcome in flight: {_fate(issued - counted)}" if flying else "no outcome in flight"
    lines = ["", f"worker {account.kills.worker} was killed with {fate}"]
    lines += [f"lost, says the supervisor: {count:,} {what}" for what, count in account.lost]
    if account.stuck:
        lines.append(f"{account.stuck:,} outcomes of workers that ended in order were never put")
    if account.exact:
        lines.append(f"EXACT: {issued:,} outcomes issued = {counted:,} counted{_less(issued - counted)}")
    else:
        lines.append(f"NOT EXACT: {issued:,} outcomes issued, {counted:,} counted; see above")
    lines.append(f"took {account.took_s:.1f} s")
    return lines


def _fate(missing: int) -> str:
    """What became of the outcome in flight."""
    return "it had not reached the ring" if missing else "it had reached the ring and is counted"


def _less(missing: int) -> str:
    """The in-flight outcome that is missing, as part of the sum."""
    return f" + {missing} in flight at the kill" if missing else ""


def _verdict(one: Tallied) -> str:
    """Exact or by how much not."""
    if not one.exact:
        return f"  off by {one.counted - one.issued:+,}"
    return "  exact" if one.counted == one.issued else "  exact, 1 in flight"


def _times(alone: float | None, together: float | None) -> tuple[str, str]:
    """Two durations, readable at their size."""
    return _time(alone), _time(together)


def _time(seconds: float | None) -> str:
    """A duration, or that it never came to that."""
    if seconds is None:
        return "never"
    return f"{seconds * 1000.0:.0f} ms" if seconds < 1.0 else f"{seconds:.2f} s"


def _row(label: str, first: str, second: str, rest: str = "") -> str:
    """One line of the table."""
    return f"  {label:<{LABEL}}{first:>{COLUMN}}{second:>{COLUMN}}{rest}".rstrip()
