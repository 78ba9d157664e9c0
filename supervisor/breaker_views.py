"""One breaker in full, as `breaker show` and `breakers` answer it: a pure function to JSON values.

The shape is pinned by `tests/schemas/breaker.json`. Neighbours: `views` (the other answers), `engine`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ipc.circuit import NEVER
from ipc.vocabulary import Tally
from supervisor.engine import Engine
from supervisor.facts import ProbeWait
from supervisor.host_breaker import HostBreaker


def one_breaker(
    engine: Engine, breaker: HostBreaker, waits: Mapping[str, ProbeWait], now: float
) -> dict[str, Any]:
    """Everything about one breaker; `waits` is how long probes wait for a prober, by table."""
    judge = breaker.breaker
    window = judge.totals
    return {
        "name": breaker.name,
        "namespace": breaker.namespace,
        "short": breaker.short,
        "state": breaker.state.name,
        "generation": judge.generation,
        "failure_count": judge.host_run,
        "window": {"calls": window.calls, "failures": window.failures, "slow": window.slow},
        "retry_after_s": breaker.retry_after_s("", now),
        "since_s": max(0.0, now - judge.since),
        "isolated": [_isolated(engine, breaker, party, now) for party in judge.isolated],
        "workers": len({worker for worker, _ in breaker.shown}),
        "trials": {
            "in_flight": len(judge.leases),
            "permitted": judge.settings.permitted_trials,
            "passed": judge.trials_passed,
        },
        "manual": _manual(breaker, now),
        "settings": judge.settings.to_json(),
        "conflicts": [
            {"settings": settings.to_json(), "workers": [_title(engine, worker) for worker in workers]}
            for settings, workers in breaker.conflicts().items()
        ],
        "critical": breaker.critical,
        "opened_total": judge.opened_total,
        "would_open_total": judge.would_open_total,
        "probe": _probe(engine, breaker, waits, now),
        "ramp": _ramp(breaker, now),
        "ramped_total": breaker.metrics.tallies[Tally.RAMPED],
    }


def _probe(
    engine: Engine, breaker: HostBreaker, waits: Mapping[str, ProbeWait], now: float
) -> dict[str, Any] | None:
    """What the probe that speaks for the breaker said last; None = it has none."""
    watch = engine.catalogue.watch_of(breaker)
    if watch is None:
        return None
    said = watch.ended > NEVER
    wait = waits.get(watch.rule.table, ProbeWait())
    return {
        "table": watch.rule.table,
        "verdict": watch.verdict or None,
        "text": watch.text,
        "took_s": watch.took_s if said else None,
        "age_s": max(0.0, now - watch.ended) if said else None,
        "run": watch.run,
        "rise": watch.rule.rise,
        "fall": watch.rule.fall,
        "preventive": watch.rule.preventive,
        "holds": breaker.breaker.host.held(now),
        "wait_last_s": wait.last_s,
        "wait_max_s": wait.max_s,
    }


def _ramp(breaker: HostBreaker, now: float) -> dict[str, float] | None:
    """How long the share of calls that are let in still grows; None = all are, or none."""
    ramp = breaker.breaker.ramp
    return {"ends_in_s": ramp[0] - now, "length_s": ramp[1]} if ramp and ramp[0] > now else None


def _isolated(engine: Engine, breaker: HostBreaker, party: str, now: float) -> dict[str, Any]:
    worker = engine.workers.get(party)
    return {
        "id": party[:8],
        "name": worker.name if worker is not None else "",
        "pid": worker.pid if worker is not None else 0,
        "state": breaker.breaker.state_of(party).name,
        "retry_after_s": breaker.retry_after_s(party, now),
    }


def _manual(breaker: HostBreaker, now: float) -> dict[str, Any] | None:
    """Who put the breaker into the state that it is in by hand."""
    manual = breaker.breaker.manual
    if manual is None:
        return None
    uid, _, user = manual.who.partition(":")
    expires = None if math.isinf(manual.until) else max(0.0, manual.until - now)
    return {"uid": int(uid), "user": user, "reason": manual.reason, "expires_in_s": expires}


def _title(engine: Engine, worker: str) -> str:
    found = engine.workers.get(worker)
    return found.title if found is not None else worker[:8]
