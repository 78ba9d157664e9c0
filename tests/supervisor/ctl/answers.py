"""Answers of a supervisor as the control socket gives them, each true to the schema of its verb."""

from __future__ import annotations

from typing import Any

from ipc.vocabulary import BreakerSettings

KINDS = ("success", "failure", "slow_success", "slow_failure", "ignored", "cancelled", "cancelled_late")


def breaker(**changes: Any) -> dict[str, Any]:
    """One breaker: open, with one isolated worker."""
    settings = BreakerSettings().to_json()
    found: dict[str, Any] = {
        "name": "shop/database",
        "namespace": "shop",
        "short": "database",
        "state": "OPEN",
        "generation": 7,
        "failure_count": 5,
        "window": {"calls": 40, "failures": 31, "slow": 2},
        "retry_after_s": 18.2,
        "since_s": 12.0,
        "isolated": [{"id": "abababab", "name": "web-1", "pid": 4711, "state": "OPEN", "retry_after_s": 3.0}],
        "workers": 4,
        "trials": {"in_flight": 1, "permitted": 3, "passed": 2},
        "manual": None,
        "settings": settings,
        "conflicts": [],
        "critical": False,
        "opened_total": 2,
        "would_open_total": 0,
        "probe": None,
        "ramp": None,
        "ramped_total": 0,
    }
    return {**found, **changes}


PROBE = {
    "table": "database",
    "verdict": "failed",
    "text": "connection refused",
    "took_s": 0.0123,
    "age_s": 2.0,
    "run": 3,
    "rise": 2,
    "fall": 3,
    "preventive": False,
    "holds": True,
    "wait_last_s": 0.01,
    "wait_max_s": 0.02,
}
MANUAL = {"uid": 1000, "user": "deploy", "reason": "migration", "expires_in_s": 540.0}


def health(status: str = "pass", level: str = "full", **checks: Any) -> dict[str, Any]:
    """A health answer; `output` and `checks` as given."""
    answer: dict[str, Any] = {
        "schema": 1,
        "status": status,
        "version": "1",
        "releaseId": "0.1.0",
        "serviceId": "breakerd",
        "description": "circuit breakers and metrics of the worker processes of this host",
        "checks": {"supervisor:checkpoint": [{"status": "pass", "output": "", "observedValue": "written"}]},
        "level": level,
    }
    return {**answer, **checks}


def stats() -> dict[str, Any]:
    """Counts of one breaker."""
    outcomes = dict(zip(KINDS, (100, 7, 0, 1, 2, 3, 4), strict=True))
    refusals = {"rejected": 55, "permit_timeout": 1, "ramped": 0}
    durations = {"p50_s": 0.0000123, "p90_s": 0.0123, "p99_s": 1.5}
    one = {"outcomes": outcomes, **refusals, "local": 2, "overflow": 0, "durations": durations}
    return {
        "schema": 1,
        "totals": {"outcomes": outcomes, **refusals},
        "breakers": {"shop/database": one},
        "lost": {
            "ring_gap": 0,
            "ring_invalid": 3,
            "segment_lost": 0,
            "unknown_row": 0,
            "refused_row": 0,
            "checkpoint_lost": 0,
        },
        "supervisor": {
            "incarnation": 2,
            "workers": 4,
            "batches": 99,
            "uptime_s": 62.0,
            "accept_full": 0,
            "accept_emfile": 0,
        },
    }


def workers() -> dict[str, Any]:
    """One worker."""
    one = {
        "id": "abababab",
        "pid": 4711,
        "name": "web-1",
        "namespace": "shop",
        "user": "deploy",
        "uid": 1000,
        "attached_s": 3725.0,
        "state": "attached",
        "outcomes": 117,
        "rejected": 55,
        "overflow": 0,
        "ring_used": 3,
        "ring_slots": 16384,
        "isolated": ["shop/database"],
        "software": "0.1.0",
    }
    return {"schema": 1, "workers": [one]}


def status(state: str = "RUNNING") -> dict[str, Any]:
    """Nursery and daemon; `state` is the daemon's."""
    return {
        "schema": 1,
        "processes": [
            {"name": "breakerd", "state": "RUNNING", "pid": 123, "uptime_s": 62.4, "description": "nursery"},
            {
                "name": "daemon",
                "state": state,
                "pid": 124,
                "uptime_s": 93784.0,
                "description": "ended with 1",
            },
        ],
    }


def managed(title: str, state: str, pid: int = 0, since: float = 10.0, **more: Any) -> dict[str, Any]:
    """One managed process of a status."""
    table, _, number = title.partition(":")
    about = {"table": table, "number": int(number or 1), "internal": False, "since": since, "since_s": 5.0}
    about |= {"restarts": 0, "last_exit": "", "log_gaps": 0}
    about |= {key: value for key, value in more.items() if key in about}
    row = {"name": title, "state": state, "pid": pid, "uptime_s": 62.4 if pid else 0.0}
    return {**row, "description": more.get("description", ""), "managed": about}


def status_of(*processes: dict[str, Any]) -> dict[str, Any]:
    """A status with these managed processes."""
    answer = status()
    return {**answer, "processes": [*answer["processes"], *processes]}


def tail(*lines: str, position: str = "7:1:100", lost: bool = False) -> dict[str, Any]:
    """Lines of a log."""
    return {"schema": 1, "name": "web:1", "lines": list(lines), "position": position, "lost": lost}


def event(number: int, text: str = "shop/database: CLOSED -> OPEN: 5 failures in a row") -> dict[str, Any]:
    """One event."""
    return {
        "number": number,
        "at": "2026-11-24T21:57:03.120+00:00",
        "kind": "breaker",
        "text": text,
        "breaker": "shop/database",
        "worker": "",
        "fields": {"old": "CLOSED", "new": "OPEN"},
    }


def events(*numbers: int, following: int | None = None) -> dict[str, Any]:
    """Events of these numbers; the next question begins after the last."""
    last = numbers[-1] if numbers else 0
    return {
        "schema": 1,
        "events": [event(number) for number in numbers],
        "next": last if following is None else following,
    }


def errors() -> dict[str, Any]:
    """Two classes of one breaker, and one counter."""
    seen = "2026-11-24T21:57:03.120+00:00"
    return {
        "schema": 1,
        "breakers": [
            {
                "name": "shop/database",
                "classes": [
                    {"class": "TimeoutError", "count": 3, "last_seen": None, "age_s": None},
                    {"class": "OperationalError", "count": 12, "last_seen": seen, "age_s": 4.25},
                ],
            }
        ],
        "counters": [
            {
                "namespace": "shop",
                "kind": "DATABASE_CONNECTION",
                "operation": "store_conversation",
                "count": 7,
                "last_seen": seen,
                "age_s": 4.25,
            }
        ],
    }


def version(**changes: Any) -> dict[str, Any]:
    """Versions of the supervisor."""
    found = {
        "version": "0.1.0",
        "protocol": 1,
        "layout": 1,
        "python": "3.11.7",
        "pid": 124,
        "nursery_pid": 123,
    }
    return {"schema": 1, **found, **changes}
