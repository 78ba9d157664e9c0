"""`probe`: have one probe asked now, and show what came back. No secret is in it: the prober saw to that."""

from __future__ import annotations

from typing import Any, Final

from supervisor.ctl.page import Page, Verdict, facts, span
from supervisor.ctl.parse import Request

VERDICTS: Final = {"passed": Verdict.OK, "failed": Verdict.FAIL, "error": Verdict.UNAVAILABLE}
"""An error is no answer: neither that it serves, nor that it does not."""
_MEANING: Final = {
    "passed": "passed",
    "failed": "failed: the breaker's dependency does not serve",
    "error": "error: it could not be asked, which decides nothing",
}


def fields(request: Request) -> dict[str, Any]:
    """What to ask."""
    return {"name": request.words[0]}


def page(answer: Any, _request: Request) -> Page:
    """The answer as it is shown."""
    pairs = [
        ("probe", f"{answer['probe']} ({answer['kind']})"),
        ("verdict", _MEANING[answer["verdict"]]),
        ("said", answer["text"]),
        ("took", f"{answer['took_s']:.3g} s"),
        ("waited", span(answer["waited_s"]) if answer["waited_s"] >= 0.01 else ""),
        *((key.replace("_", " "), str(value)) for key, value in answer["details"].items()),
        ("asked by", answer["prober"]),
    ]
    return Page(
        answer, (facts((what, value) for what, value in pairs if value),), VERDICTS[answer["verdict"]]
    )
