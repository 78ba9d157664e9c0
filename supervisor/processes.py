"""How answers show processes: breakerd's own, the managed ones, and what each costs. Facts in, JSON out.

Neighbours: `views` (which asks for it), `health` (the same sentences), `facts`.
"""

from __future__ import annotations

from typing import Any, Final

from supervisor.facts import Facts, ManagedProcess, Usage

LIVING: Final = frozenset({"RUNNING", "STARTING", "STOPPING"})
WARNING: Final = {"FATAL": "is given up", "BACKOFF": "ended and is started again"}
"""States that health warns of, in words."""


def warning(one: ManagedProcess) -> str | None:
    """What health warns of; None = nothing. One that could not be forked is STARTING until it can be."""
    if one.state == "STARTING" and not one.pid and one.last_exit.startswith("cannot be started"):
        return "waits to be started"
    return WARNING.get(one.state)


def listed(facts: Facts, attached: str, now: float) -> list[dict[str, Any]]:
    """Nursery and daemon, then every managed process; `attached` says what the daemon serves."""
    since = facts.started_at if facts.nursery_started_at is None else facts.nursery_started_at
    own = (
        ("breakerd", facts.nursery_pid, since, "nursery"),
        ("daemon", facts.pid, facts.started_at, attached),
    )
    rows = [
        {
            "name": name,
            "state": "RUNNING",
            "pid": pid,
            "uptime_s": max(0.0, now - started),
            "description": description,
            **figures(facts.usage.get(pid)),
        }
        for name, pid, started, description in own
    ]
    return rows + [_managed(one, facts, now) for one in facts.managed]


def _managed(one: ManagedProcess, facts: Facts, now: float) -> dict[str, Any]:
    lives = one.state in LIVING
    return {
        "name": one.title,
        "state": one.state,
        "pid": one.pid,
        "uptime_s": max(0.0, now - one.since) if lives else 0.0,
        "description": description(one),
        "managed": {
            "table": one.name,
            "number": one.number,
            "internal": one.internal,
            "since": one.since,
            "since_s": max(0.0, now - one.since),
            "restarts": one.restarts,
            "last_exit": one.last_exit,
            "log_gaps": one.log_gaps,
        },
        **figures(facts.usage.get(one.pid) if one.pid else None),
    }


def description(one: ManagedProcess) -> str:
    """What there is to know about a process beside its state."""
    restarts = f"restarted {one.restarts} {'time' if one.restarts == 1 else 'times'}" if one.restarts else ""
    if one.state == "STOPPED":
        return one.last_exit or "not started"
    last = f"last {one.last_exit}" if one.state in LIVING and restarts and one.last_exit else one.last_exit
    parts = [restarts, last if restarts else ""] if one.state in LIVING else [last, restarts]
    return ", ".join(part for part in parts if part)


def figures(usage: Usage | None) -> dict[str, Any]:
    """What a process costs, as fields; none where it was not asked for or cannot be known."""
    if usage is None:
        return {}
    found: dict[str, Any] = {
        "rss_bytes": usage.rss_bytes,
        "cpu_s": usage.cpu_s,
        "threads": usage.threads,
    }
    return found if usage.fds is None else {**found, "fds": usage.fds}
