"""The verbs that show what the supervisor knows: each an answer of the control socket made into a page.

Pure: answer in, page out. Neighbours: `main` asks and shows; `breaker` and `health` have files of their own.
"""

from __future__ import annotations

from typing import Any, Final

from supervisor.ctl.page import DAY_S, HOUR_S, MINUTE_S, Page, Table, Verdict, span
from supervisor.ctl.parse import Request

EVENTS_MAX: Final = 1000
"""Events that the supervisor keeps."""
EVENTS_SHOWN: Final = 50
STEP_S: Final = 4e-6
"""Durations are measured in steps of this."""
MIB: Final = 1 << 20
NAME_WIDTH: Final = 33
STATE_WIDTH: Final = 10
"""Least widths of Supervisor's own `status`, so that what parses that parses this."""


def status(answer: Any, _request: Request) -> Page:
    """Name, state, description: the columns of Supervisor's status, with its exit code 3."""
    rows = tuple((str(item["name"]), str(item["state"]), _process(item)) for item in answer["processes"])
    well = rows and all(row[1] == "RUNNING" for row in rows)
    table = Table(("NAME", "STATE", "DESCRIPTION"), rows, header=False, widths=(NAME_WIDTH, STATE_WIDTH))
    return Page(answer, (table,), Verdict.OK if well else Verdict.FAIL)


def status_fields(request: Request) -> dict[str, Any]:
    """What to ask for `status`: what processes cost is shown in JSON only."""
    return {"wide": True} if request.json else {}


def _process(item: dict[str, Any]) -> str:
    """What Supervisor says about a process: `pid 123, uptime 0:01:02`; else what there is to know."""
    if item["state"] != "RUNNING":
        pid = f"pid {item['pid']}" if item["pid"] and "managed" in item else ""
        return ", ".join(part for part in (pid, str(item["description"])) if part)
    days, rest = divmod(int(item["uptime_s"]), DAY_S)
    hours, rest = divmod(rest, HOUR_S)
    before = f"{days} day{'s' if days > 1 else ''}, " if days else ""
    line = f"pid {item['pid']}, uptime {before}{hours}:{rest // MINUTE_S:02}:{rest % MINUTE_S:02}"
    managed = item.get("managed")
    if managed and managed["restarts"]:
        line += f", {item['description']}"
    return line


def workers_fields(request: Request) -> dict[str, Any]:
    """What to ask for `workers`."""
    return {"wide": True} if request.wide else {}


def workers(answer: Any, request: Request) -> Page:
    """One attached process a line; with --wide what each costs, as far as it can be known."""
    rows = tuple(
        (
            item["id"],
            str(item["pid"]),
            item["namespace"],
            item["name"],
            item["user"],
            item["state"],
            span(item["attached_s"]),
            str(item["outcomes"]),
            str(item["rejected"]),
            str(item["overflow"]),
            f"{item['ring_used']}/{item['ring_slots']}",
            *(_costs(item) if request.wide else ()),
            ",".join(item["isolated"]),
        )
        for item in answer["workers"]
    )
    wide = " RSS CPU THREADS FDS" if request.wide else ""
    names = f"ID PID NAMESPACE NAME USER STATE ATTACHED OUTCOMES REJECTED OVERFLOW RING{wide} ISOLATED"
    table = Table(tuple(names.split()), rows, right=frozenset({1, *range(6, 15 if wide else 11)}))
    shown: tuple[str | Table, ...] = (table,) if rows else ("no worker is attached",)
    return Page(answer, (*shown, *_refused(answer)))


def _refused(answer: Any) -> tuple[str | Table, ...]:
    """Who is turned away at the moment; a daemon of before says nothing of them."""
    if not answer.get("refused"):
        return ()
    rows = tuple(
        (one["user"], str(one["pid"]), str(one["count"]), span(one["age_s"]), one["reason"], one["text"])
        for one in answer["refused"]
    )
    return (
        "",
        "REFUSED",
        Table(("USER", "PID", "COUNT", "AGE", "REASON", "TEXT"), rows, frozenset({1, 2, 3})),
    )


def _costs(item: dict[str, Any]) -> tuple[str, ...]:
    """Memory, processor time, threads, descriptors; blank where they are not known."""
    rss, cpu = item.get("rss_bytes"), item.get("cpu_s")
    counts = (item.get("threads"), item.get("fds"))
    return (
        "" if rss is None else f"{rss / MIB:.1f}M",
        "" if cpu is None else f"{cpu:.2f}s",
        *("" if count is None else str(count) for count in counts),
    )


def breakers(answer: Any, _request: Request) -> Page:
    """One breaker a line."""
    rows = tuple(
        (
            item["name"],
            item["state"],
            span(item["since_s"]),
            str(item["failure_count"]),
            str(item["window"]["calls"]),
            str(item["window"]["failures"]),
            str(item["window"]["slow"]),
            span(item["retry_after_s"] or None),
            str(item["workers"]),
            str(len(item["isolated"])),
            _note(item),
        )
        for item in answer["breakers"]
    )
    names = "BREAKER STATE SINCE IN-A-ROW CALLS FAILED SLOW RETRY WORKERS ISOLATED NOTE"
    table = Table(tuple(names.split()), rows, right=frozenset(range(2, 10)))
    return Page(answer, (table,) if rows else ("no breaker is known yet: no worker has declared one",))


def _note(item: dict[str, Any]) -> str:
    """What else there is to know about a breaker, in words."""
    notes = []
    if item["critical"]:
        notes.append("critical")
    if item["manual"]:
        notes.append(manual(item["manual"]))
    if item["conflicts"]:
        notes.append("workers declare it differently")
    return "; ".join(notes)


def manual(state: dict[str, Any]) -> str:
    """Who put a breaker into its manual state, why and for how long."""
    left = state["expires_in_s"]
    until = "until it is changed" if left is None else f"for another {span(left)}"
    why = f": {state['reason']}" if state["reason"] else ""
    return f"by {state['user']} (uid {state['uid']}) {until}{why}"


def stats(answer: Any, _request: Request) -> Page:
    """Totals by breaker, what was lost, and the supervisor's own numbers."""
    kinds = ("success", "failure", "slow_success", "slow_failure", "ignored", "cancelled", "cancelled_late")
    refusals = ("rejected", "permit_timeout", "ramped")
    rows = [
        (
            name,
            *(str(item["outcomes"][kind]) for kind in kinds),
            *(str(item[refusal]) for refusal in refusals),
            *(_duration(item["durations"][f"{share}_s"]) for share in ("p50", "p90", "p99")),
        )
        for name, item in answer["breakers"].items()
    ]
    totals = answer["totals"]
    rows.append(
        (
            "TOTAL",
            *(str(totals["outcomes"][kind]) for kind in kinds),
            *(str(totals[refusal]) for refusal in refusals),
            *("", "", ""),
        )
    )
    names = ("BREAKER", *kinds, *refusals, "P50", "P90", "P99")
    table = Table(
        tuple(name.upper().replace("_", "-") for name in names),
        tuple(rows),
        right=frozenset(range(1, len(names))),
    )
    lost = ", ".join(f"{count} {what}" for what, count in answer["lost"].items() if count)
    own = answer["supervisor"]
    numbers = f"{own['workers']} workers, {own['batches']} batches, up {span(own['uptime_s'])}"
    return Page(
        answer,
        (
            table,
            f"lost: {lost or 'nothing'}",
            f"supervisor: {numbers}, incarnation {own['incarnation']}",
        ),
    )


def _duration(seconds: float | None) -> str:
    """A call's duration; empty when there was none."""
    if seconds is None:
        return ""
    if seconds < STEP_S:
        return f"<{STEP_S * 1e6:.0f}us"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 1.0:
        return f"{seconds * 1e3:.3g}ms"
    return f"{seconds:.3g}s"


def errors_fields(request: Request) -> dict[str, Any]:
    """What to ask for `errors`."""
    return {"breaker": request.words[0]} if request.words else {}


def errors(answer: Any, _request: Request) -> Page:
    """One exception class of one breaker a line, then one counter a line, the most frequent first."""
    rows = tuple(
        (breaker["name"], item["class"], str(item["count"]), span(item["age_s"]), item["last_seen"] or "")
        for breaker in answer["breakers"]
        for item in sorted(breaker["classes"], key=lambda item: -item["count"])
    )
    counted = tuple(
        (
            f"{item['namespace']}/{item['operation']}",
            item["kind"],
            str(item["count"]),
            span(item["age_s"]),
            item["last_seen"] or "",
        )
        for item in answer.get("counters", ())
    )
    classes = Table(("BREAKER", "CLASS", "COUNT", "AGE", "LAST-SEEN"), rows, right=frozenset({2, 3}))
    counters = Table(
        ("OPERATION", "ERROR-TYPE", "COUNT", "AGE", "LAST-SEEN"), counted, right=frozenset({2, 3})
    )
    tables = (*((classes,) if rows else ()), *((counters,) if counted else ()))
    return Page(answer, tables or ("no call has failed with an exception",))


def events_fields(_request: Request) -> dict[str, Any]:
    """What to ask for `events`: the newest that fit into an answer; the last ones are shown."""
    return {"after": 0, "limit": EVENTS_MAX, "newest": True}


def events(answer: Any, request: Request) -> Page:
    """The last events, oldest first."""
    count = int(request.words[0]) if request.words else EVENTS_SHOWN
    last = answer["events"][-count:] if count else []
    lines = tuple(map(event_line, last))
    return Page({**answer, "events": last}, lines or ("nothing has happened yet",))


def event_line(item: dict[str, Any]) -> str:
    """One event as a line: when, what kind, and the sentence, which names the breaker or worker."""
    return f"{item['at']}  {item['kind']:<10}  {item['text']}"
