"""`reload`: have the configuration file read again, and say what is different, or what is wrong with it."""

from __future__ import annotations

from typing import Any

from ipc.errors import ProtocolError
from supervisor.ctl.ask import Asker
from supervisor.ctl.page import Page, Verdict


def command(asker: Asker) -> Page:
    """Reload; every mistake a line, as `config check` prints it. Raises ControlError."""
    answer = asker.command("reload")
    try:
        return page(answer)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the supervisor's answer to reload cannot be read: {error!r}") from error


def page(answer: Any) -> Page:
    """The answer as it is shown."""
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
