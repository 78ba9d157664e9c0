"""`config`: check a file without a supervisor, print a commented one, or show the one in use.

Loaded only for this verb: it is the one that needs the settings.
"""

from __future__ import annotations

import json
from typing import Any

from supervisor.ctl.page import Page, Verdict, facts
from supervisor.ctl.parse import Request
from supervisor.errors import ConfigurationError
from supervisor.example import example
from supervisor.places import CONFIGURATION_FILE
from supervisor.settings import load


def local(request: Request) -> Page:
    """`config check` and `config example`, which ask nobody."""
    if request.words[0] == "check":
        return check(request.words[1] if len(request.words) > 1 else CONFIGURATION_FILE)
    text = example()
    return Page({"schema": 1, "example": text}, tuple(text.splitlines()))


def check(path: str) -> Page:
    """Every mistake of a file, one a line, as `breakerd run` would say it."""
    try:
        settings = load(path)
    except ConfigurationError as error:
        answer = {"schema": 1, "file": path, "ok": False, "errors": list(error.errors)}
        return Page(answer, error.errors, Verdict.FAIL)
    answer = {"schema": 1, "file": path, "ok": True, "errors": []}
    counted = ", ".join(
        f"{len(getattr(settings, kind))} {kind}" for kind in ("breakers", "namespaces", "workers")
    )
    return Page(answer, (f"{path}: good: {counted}",))


def show(answer: Any, _request: Request) -> Page:
    """The configuration in use, one `path  value` a line."""
    file = answer["file"]
    head = f"read from {file}" if file else "no configuration file: everything stands at its default"
    return Page(answer, (head, facts(_flat("", answer["config"]))))


def _flat(path: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            pair for key, inner in value.items() for pair in _flat(f"{path}.{key}" if path else key, inner)
        ]
    return [(path, json.dumps(value))]
