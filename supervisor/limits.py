"""Limits in seconds that are in force, where a worker has declared others: its outcomes are told anew.

A worker calls a call slow, or cancelled too late, by its own settings; the duration in the outcome word lets
the daemon say it by those of the configuration, or of the worker that declared first.
Neighbours: `intake` (asks once per worker and second), `decode` (tells each word). Knows no segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ipc.vocabulary import BreakerSettings, OutcomeKind
from supervisor.worker import Worker

_PLAIN = {OutcomeKind.SLOW_SUCCESS: OutcomeKind.SUCCESS, OutcomeKind.SLOW_FAILURE: OutcomeKind.FAILURE}
_SLOW = {OutcomeKind.SUCCESS: OutcomeKind.SLOW_SUCCESS, OutcomeKind.FAILURE: OutcomeKind.SLOW_FAILURE}


class Limits(NamedTuple):
    """What decides about a row, and by what its worker decides; seconds, None = the rule is off."""

    slow_call_s: float | None
    cancelled_is_failure_s: float | None
    worker_cancelled_s: float | None

    def kind(self, kind: OutcomeKind, took: float) -> OutcomeKind:
        """How a call of this kind and duration (s) ended by the limits in force.

        A call that the worker would have called cancelled too late, and did not, was ended by its caller:
        that stays so.
        """
        plain = _PLAIN.get(kind, kind)
        if plain in _SLOW:
            slow = self.slow_call_s is not None and took >= self.slow_call_s
            return _SLOW[plain] if slow else plain
        if kind not in (OutcomeKind.CANCELLED, OutcomeKind.CANCELLED_LATE):
            return kind
        own, limit = self.worker_cancelled_s, self.cancelled_is_failure_s
        by_caller = kind is OutcomeKind.CANCELLED and own is not None and took >= own
        late = limit is not None and took >= limit and not by_caller
        return OutcomeKind.CANCELLED_LATE if late else OutcomeKind.CANCELLED


def limits_of(worker: Worker) -> Mapping[int, Limits]:
    """The rows of this worker for which other limits are in force than it has declared."""
    found: dict[int, Limits] = {}
    default = BreakerSettings()
    for number, row in worker.rows.items():
        wanted = row.breaker.breaker.settings
        own = row.breaker.declared.get(worker.nonce, default)
        if own is wanted or row.class_name is not None:
            continue
        limits = Limits(wanted.slow_call_s, wanted.cancelled_is_failure_s, own.cancelled_is_failure_s)
        if limits[:2] != (own.slow_call_s, own.cancelled_is_failure_s):
            found[number] = limits
    return found
