"""`reload`: have the configuration file read again, and say what is different, or what is wrong with it."""

from __future__ import annotations

from typing import Any

from supervisor.ctl.page import Page, Verdict
from supervisor.ctl.parse import Request


def page(answer: Any, _request: Request) -> Page:
    """The answer as it is shown; every mistake a line, as `config check` prints it."""
    if not answer["ok"]:
        head = "not reloaded, the configuration of before stays in force:"
        return Page(answer, (head, *map(str, answer["errors"])), Verdict.REFUSED)
    lines = [line for section, what in answer["changed"].items() for line in _lines(section, what)]
    if answer["restarted"]:
        lines.append(f"restarted: {', '.join(answer['restarted'])}")
    lines += [f"not yet: {sentence}" for sentence in answer["kept"]]
    return Page(answer, (f"{answer['file']} is in force", *(lines or ["nothing is different"])))


def _lines(section: str, what: Any) -> list[str]:
    """What changed in one section: keys, or tables that are new, different and gone."""
    if isinstance(what, dict):
        return [f"{section} {how}: {', '.join(names)}" for how, names in what.items() if names]
    return [f"{section} changed: {', '.join(what)}"] if what else []
