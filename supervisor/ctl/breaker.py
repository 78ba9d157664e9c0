"""`breaker`: one breaker in full, and commands to it."""

from __future__ import annotations

import math
from typing import Any, Final

from supervisor.ctl.ask import Asker
from supervisor.ctl.listings import event_line, manual
from supervisor.ctl.page import Page, Table, facts, span
from supervisor.ctl.parse import COMMANDS, LASTING, Request

WAIT_SHOWN_S: Final = 0.5
"""A shorter wait for a prober is no news."""


def fields(request: Request) -> dict[str, Any]:
    """What to ask for `breaker show`."""
    return {"name": request.words[1]}


def page(answer: Any, _request: Request) -> Page:
    """Everything about one breaker: facts, then isolated workers, settings and conflicts."""
    item = answer["breaker"]
    parts: list[str | Table] = [facts(_facts(item))]
    if item["isolated"]:
        rows = tuple(
            (one["id"], str(one["pid"]), one["name"], one["state"], span(one["retry_after_s"]))
            for one in item["isolated"]
        )
        parts += ["", "isolated workers:", Table(("WORKER", "PID", "NAME", "STATE", "RETRY"), rows)]
    parts += ["", "settings:", facts((f"  {key}", _value(value)) for key, value in item["settings"].items())]
    for conflict in item["conflicts"]:
        differing = ", ".join(
            f"{key} = {_value(value)}"
            for key, value in conflict["settings"].items()
            if value != item["settings"].get(key)
        )
        parts += ["", f"declared differently by {', '.join(conflict['workers'])}: {differing}"]
    # A daemon of before breakers had events of their own says nothing of them.
    if changes := answer.get("changes"):
        parts += ["", "last changes:", *(f"  {event_line(change)}" for change in changes)]
    return Page(answer, tuple(parts))


def _facts(item: dict[str, Any]) -> list[tuple[str, str]]:
    window = item["window"]
    trials = item["trials"]
    pairs = [
        ("breaker", item["name"]),
        ("state", item["state"]),
        ("since", span(item["since_s"])),
        ("retry after", span(item["retry_after_s"] or None)),
        ("failures in a row", str(item["failure_count"])),
        ("window", f"{window['calls']} calls, {window['failures']} failed, {window['slow']} slow"),
        ("trials", f"{trials['in_flight']} of {trials['permitted']} in flight, {trials['passed']} passed"),
        ("workers", str(item["workers"])),
        ("generation", str(item["generation"])),
        ("times opened", str(item["opened_total"])),
        ("would have opened", f"{item['would_open_total']} (while metrics-only)"),
        ("critical", "yes: health fails while it is open" if item["critical"] else "no"),
    ]
    # A daemon of before ramps and probes says nothing of them.
    if ramp := item.get("ramp"):
        pairs.insert(2, ("ramp", f"more and more calls are let in, for {span(ramp['ends_in_s'])} still"))
    pairs.append(("refused by ramps", str(item.get("ramped_total") or "")))
    if probe := item.get("probe"):
        pairs.append(("probe", _probe(probe)))
    if item["manual"]:
        pairs.insert(2, ("set by hand", manual(item["manual"])))
    return [(key, value) for key, value in pairs if value]


def _probe(probe: dict[str, Any]) -> str:
    """What it said last, how often, when, and whether the breaker waits for it."""
    if probe["verdict"] is None:
        return f"{probe['table']}: not asked yet"
    times = f", {probe['run']} in a row" if probe["verdict"] != "error" and probe["run"] > 1 else ""
    said = f"{probe['verdict']}{times}, {span(probe['age_s'])} ago, after {probe['took_s']:.3g} s"
    said += f": {probe['text']}" if probe["text"] else ""
    waited = probe.get("wait_max_s", 0.0)
    said += f"; waited {span(probe['wait_last_s'])} for a prober" if waited >= WAIT_SHOWN_S else ""
    said += f" ({span(waited)} at most)" if waited >= WAIT_SHOWN_S else ""
    return f"{probe['table']}: {said}{'; the breaker waits for it' if probe['holds'] else ''}"


def _value(value: Any) -> str:
    """A setting as it stands in the configuration file."""
    if value is None:
        return "off"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def command(request: Request, asker: Asker, program: str) -> Page:
    """Tell the breaker, and say what it is now and until when. Raises ControlError."""
    if request.words[0] == "forget":
        return _forget(request, asker)
    action, name = request.words
    verb = COMMANDS[action]
    told: dict[str, Any] = {"breaker": name, "action": verb, "reason": request.reason}
    if verb in LASTING:
        told["for_s"] = None if math.isinf(request.for_s) else request.for_s
    answer = asker.command("command", **told)
    line = f"{answer['breaker']} is {answer['state']}"
    if verb in LASTING:
        left = answer["expires_in_s"]
        until = "until it is changed" if left is None else f"for {span(left)}"
        line += f" {until}; to end it: {program} breaker enable {answer['breaker']}"
    return Page(answer, (line,))


def _forget(request: Request, asker: Asker) -> Page:
    """One breaker that no worker has, or all of them. Raises ControlError."""
    fields: dict[str, Any] = {"unused": True} if request.unused else {"breaker": request.words[1]}
    answer = asker.command("forget", **fields)
    names, count = answer["names"], answer["forgotten"]
    more = (f"and {count - len(names)} more",) if count > len(names) else ()
    lines = (*(f"{name} is forgotten" for name in names), *more)
    return Page(answer, lines or ("no breaker is unused",))
