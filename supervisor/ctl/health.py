"""`health`: the supervisor's own judgement, as one line and a table of checks."""

from __future__ import annotations

from typing import Any, Final

from supervisor.ctl.page import Page, Table, Verdict
from supervisor.ctl.parse import Request

_VERDICTS: Final = {"pass": Verdict.OK, "warn": Verdict.WARN, "fail": Verdict.FAIL}
_MEANING: Final = {
    "live": "the supervisor is at work",
    "ready": "the supervisor is at work and keeps what it is told",
    "full": "everything is well",
}


def fields(request: Request) -> dict[str, Any]:
    """What to ask."""
    return {"level": request.words[0] if request.words else "full"}


def page(answer: Any, request: Request) -> Page:
    """The answer as it is shown; a status that is not known counts as a failure."""
    status = str(answer["status"])
    verdict = _VERDICTS.get(status, Verdict.FAIL)
    if verdict is Verdict.WARN and request.fail_on_warn:
        verdict = Verdict.FAIL
    rows = tuple(_rows(answer.get("checks", {})))
    level = fields(request)["level"]
    summary = answer.get("output") or _summary(rows) or _MEANING[level]
    parts: tuple[str | Table, ...] = (f"{status}: {summary}",)
    if rows and (level == "full" or verdict is not Verdict.OK):
        parts += (Table(("CHECK", "STATUS", "OBSERVED", "OUTPUT"), rows),)
    return Page(answer, parts, verdict)


def _rows(checks: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a check, the worst first."""
    order = {"fail": 0, "warn": 1}
    rows = [
        (name, str(check["status"]), _observed(check.get("observedValue")), str(check.get("output") or ""))
        for name, found in checks.items()
        for check in found
    ]
    return sorted(rows, key=lambda row: order.get(row[1], 2))


def _observed(value: Any) -> str:
    return "" if value is None else str(value).replace(" ", "_")


def _summary(rows: tuple[tuple[str, ...], ...]) -> str:
    """The checks that are not well, in a sentence."""
    bad = [f"{row[0]} {row[3] or row[2]}".strip() for row in rows if row[1] != "pass"]
    more = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
    return "; ".join(bad[:3]) + more
