"""The answers of every verb that only asks: pure functions from the engine to JSON values.

Shapes are pinned by `tests/schemas`. Times inside are monotonic; `wall` (s since 1970) turns the ones
that people read into dates. Neighbours: `control_server` (calls `answer`), `engine`, `health`, `facts`.
Knows no socket.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ipc.layout import LAYOUT_VERSION
from ipc.vocabulary import PROTOCOL_VERSION
from supervisor import health, processes
from supervisor.breaker_views import one_breaker
from supervisor.chronicle import EVENTS_MAX, KINDS
from supervisor.engine import Engine
from supervisor.errors import BadRequest, BreakerNotFound
from supervisor.facts import Facts, Refusal
from supervisor.host_breaker import HostBreaker
from supervisor.messages import Happened
from supervisor.metrics import KIND_NAMES, TALLY_NAMES, BreakerMetrics, percentile_s
from supervisor.worker import Worker

__all__ = ["Facts", "Question", "answer", "counts"]

ID_DIGITS: Final = 8
"""Digits of a nonce that are shown: who knows a nonce knows more than others should."""
PERCENTILES: Final = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99}


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, of whom and when: one instant on both clocks."""

    engine: Engine
    body: dict[str, Any]
    """The request as it came: hostile."""
    facts: Facts
    now: float
    """s of CLOCK_MONOTONIC."""
    wall: float
    """s since 1970."""

    def date(self, at: float | None) -> str | None:
        """A monotonic time as ISO 8601 in UTC."""
        if at is None:
            return None
        then = datetime.fromtimestamp(self.wall - (self.now - at), tz=UTC)
        return then.isoformat(timespec="milliseconds")


def answer(engine: Engine, body: dict[str, Any], facts: Facts, now: float, wall: float) -> dict[str, Any]:
    """The answer to a request that only asks. Raises BadRequest and BreakerNotFound."""
    verb = body.get("verb")
    view = _VIEWS.get(verb) if isinstance(verb, str) else None
    if view is None:
        raise BadRequest(f"no answer is known to {verb!r:.40}")
    return {"schema": 1, **view(Question(engine, body, facts, now, wall))}


def _health(asked: Question) -> dict[str, Any]:
    level = asked.body.get("level") or "full"
    if level not in health.LEVELS:
        raise BadRequest(f"level must be one of {', '.join(health.LEVELS)}, got {level!r:.40}")
    return health.report(asked.engine, asked.facts, level, asked.now)


# --- counts -------------------------------------------------------------------------------------------


def _stats(asked: Question) -> dict[str, Any]:
    breakers = {one.name: counts(one.metrics) for one in asked.engine.catalogue.numbered}
    totals: dict[str, Any] = {"outcomes": dict.fromkeys(KIND_NAMES.values(), 0)}
    totals |= dict.fromkeys(TALLY_NAMES.values(), 0)
    for counted in (*breakers.values(), counts(asked.engine.catalogue.forgotten)):
        for name, count in counted["outcomes"].items():
            totals["outcomes"][name] += count
        for name in TALLY_NAMES.values():
            totals[name] += counted[name]
    lost = asked.engine.counting.lost
    return {
        "totals": totals,
        "breakers": breakers,
        "lost": {
            "ring_gap": lost.ring_gap,
            "ring_invalid": lost.ring_invalid,
            "segment_lost": lost.segment_lost,
            "unknown_row": lost.unknown_row,
            "refused_row": lost.refused_row,
            "checkpoint_lost": lost.checkpoint_lost,
        },
        "supervisor": {
            "incarnation": asked.engine.incarnation,
            "workers": len(asked.engine.workers),
            "batches": asked.engine.counting.batches,
            "uptime_s": asked.now - asked.facts.started_at,
            "accept_full": asked.facts.accept_full,
            "accept_emfile": asked.facts.accept_emfile,
            "refused_hellos": asked.facts.refused_hellos,
            "denied_commands": asked.facts.denied_commands,
            "breakers_forgotten": asked.engine.catalogue.forgotten_count,
        },
    }


def counts(metrics: BreakerMetrics) -> dict[str, Any]:
    """What was counted of one breaker; `outcomes` include those that overflowed."""
    return {
        "outcomes": {name: metrics.outcomes[kind] for kind, name in KIND_NAMES.items()},
        **{name: metrics.tallies[tally] for tally, name in TALLY_NAMES.items()},
        "local": metrics.local,
        "overflow": sum(metrics.overflow),
        "durations": {name: percentile_s(metrics.durations, share) for name, share in PERCENTILES.items()},
    }


def _errors(asked: Question) -> dict[str, Any]:
    if asked.body.get("breaker") is not None:
        chosen = [_named(asked.engine, asked.body["breaker"], "errors")]
    else:
        chosen = list(asked.engine.catalogue.numbered)
    return {
        "counters": _counters(asked),
        "breakers": [
            {
                "name": breaker.name,
                "classes": [
                    {
                        "class": name,
                        "count": counted.count,
                        "last_seen": asked.date(counted.last_seen),
                        "age_s": None if counted.last_seen is None else asked.now - counted.last_seen,
                    }
                    for name, counted in sorted(
                        breaker.metrics.classes.items(), key=lambda item: (-item[1].count, item[0])
                    )
                ],
            }
            for breaker in chosen
        ],
    }


def _counters(asked: Question) -> list[dict[str, Any]]:
    """What workers count beside calls, most frequent first; none where one breaker was asked for.

    A request's `counters` names the one namespace that is wanted.
    """
    if asked.body.get("breaker") is not None:
        return []
    wanted = asked.body.get("counters")
    if wanted is not None and not isinstance(wanted, str):
        raise BadRequest(f"counters must be the name of a namespace, got {wanted!r:.40}")
    counters = asked.engine.counting.counters.items()
    return [
        {
            "namespace": namespace,
            "kind": kind,
            "operation": operation,
            "count": counted.count,
            "last_seen": asked.date(counted.last_seen),
            "age_s": None if counted.last_seen is None else asked.now - counted.last_seen,
        }
        for (namespace, kind, operation), counted in sorted(
            counters, key=lambda item: (-item[1].count, item[0])
        )
        if wanted in (None, namespace)
    ]


# --- breakers -----------------------------------------------------------------------------------------


def _breakers(asked: Question) -> dict[str, Any]:
    engine = asked.engine
    waits = asked.facts.probe_waits
    return {"breakers": [one_breaker(engine, one, waits, asked.now) for one in engine.catalogue.numbered]}


def _breaker(asked: Question) -> dict[str, Any]:
    breaker = _named(asked.engine, asked.body.get("name"), "breaker show")
    shown = one_breaker(asked.engine, breaker, asked.facts.probe_waits, asked.now)
    changes = asked.engine.chronicle.of(breaker.name)
    return {"breaker": shown, "changes": [_event(asked, at, event) for at, event in changes]}


def _named(engine: Engine, name: Any, command: str = "") -> HostBreaker:
    """The breaker that somebody typed the name of. Raises BadRequest and BreakerNotFound."""
    if not isinstance(name, str) or not name:
        raise BadRequest("the name of a breaker is missing")
    try:
        return engine.catalogue.named[engine.resolve(name)]
    except BreakerNotFound as error:
        raise error.of(command) from None


# --- workers and processes ----------------------------------------------------------------------------


def _workers(asked: Question) -> dict[str, Any]:
    shown = [_worker(worker, asked.facts, asked.now) for worker in asked.engine.workers.values()]
    return {"workers": shown, "refused": [_refusal(asked, one) for one in asked.facts.refusals]}


def _refusal(asked: Question, one: Refusal) -> dict[str, Any]:
    """Who is turned away at the moment, why, and how often."""
    return {
        "kind": one.kind,
        "uid": one.uid,
        "user": one.user,
        "pid": one.pid,
        "reason": one.reason,
        "text": one.text,
        "count": one.count,
        "first": asked.date(one.first),
        "last": asked.date(one.last),
        "age_s": max(0.0, asked.now - one.last),
    }


def _worker(worker: Worker, facts: Facts, now: float) -> dict[str, Any]:
    used, slots = facts.ring_used.get(worker.nonce, (0, 0))
    shown = {
        "id": worker.nonce[:ID_DIGITS],
        "pid": worker.pid,
        "name": worker.name,
        "namespace": worker.namespace,
        "user": worker.user,
        "uid": worker.uid,
        "attached_s": max(0.0, now - worker.since),
        "state": "quarantined" if worker.quarantine else "attached",
        "outcomes": worker.outcomes,
        "rejected": worker.rejected,
        "overflow": worker.overflow,
        "ring_used": used,
        "ring_slots": slots,
        "isolated": [
            breaker.name for breaker in worker.breakers().values() if worker.nonce in breaker.breaker.isolated
        ],
        "software": worker.software,
    }
    return shown | processes.figures(facts.usage.get(worker.pid))


def _status(asked: Question) -> dict[str, Any]:
    attached = f"incarnation {asked.engine.incarnation}, {len(asked.engine.workers)} attached"
    return {"processes": processes.listed(asked.facts, attached, asked.now)}


def _events(asked: Question) -> dict[str, Any]:
    chronicle, limit = asked.engine.chronicle, _whole(asked, "limit", EVENTS_MAX)
    # A number that was never given comes from before a checkpoint was lost: go on from the last one.
    after = min(_whole(asked, "after", 0), chronicle.following - 1)
    breaker, kind = asked.body.get("breaker"), asked.body.get("kind") or ""
    if kind not in ("", *KINDS):
        raise BadRequest(f"kind must be one of {', '.join(KINDS)}, got {kind!r:.40}")
    full = _named(asked.engine, breaker).name if breaker else ""
    if asked.body.get("newest"):
        found = chronicle.last(min(limit, EVENTS_MAX), full, kind)
    else:
        found = chronicle.after(after, min(limit, EVENTS_MAX), full, kind)
    return {
        "events": [_event(asked, at, event) for at, event in found],
        "next": found[-1][1].number if found else after,
    }


def _event(asked: Question, at: float, event: Happened) -> dict[str, Any]:
    return {
        "number": event.number,
        "at": asked.date(at),
        "kind": event.kind,
        "text": event.text,
        "breaker": event.breaker,
        "worker": event.worker[:ID_DIGITS],
        "fields": dict(event.fields),
    }


def _whole(asked: Question, key: str, default: int) -> int:
    """A whole number of a request. Raises BadRequest."""
    value = asked.body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"{key} must be a whole number of at least 0, got {value!r:.40}")
    return value


def _version(asked: Question) -> dict[str, Any]:
    return {
        "version": asked.facts.software,
        "protocol": PROTOCOL_VERSION,
        "layout": LAYOUT_VERSION,
        "python": platform.python_version(),
        "pid": asked.facts.pid,
        "nursery_pid": asked.facts.nursery_pid,
    }


_View = Callable[[Question], dict[str, Any]]
_VIEWS: Final[dict[str, _View]] = {
    "health": _health,
    "stats": _stats,
    "errors": _errors,
    "breakers": _breakers,
    "breaker": _breaker,
    "workers": _workers,
    "status": _status,
    "events": _events,
    "version": _version,
}
