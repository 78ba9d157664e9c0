"""`version`: of this command and of the supervisor. Loaded only for this verb: the metadata takes 20 ms."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from supervisor.ctl.page import Page, Table, facts
from supervisor.ctl.parse import Request


def installed() -> str:
    """The version of breakerd in this environment."""
    try:
        return metadata.version("breakerd")
    except metadata.PackageNotFoundError:
        return "0+source"


def local() -> Page:
    """This command's version alone."""
    version = installed()
    return Page({"schema": 1, "version": version}, (version,))


def page(answer: Any, _request: Request) -> Page:
    """Both versions, and a word where they differ."""
    here = installed()
    pairs = [("supervisorctl", here), ("supervisor", str(answer["version"]))]
    pairs.extend((key, str(answer[key])) for key in ("protocol", "layout", "python", "pid", "nursery_pid"))
    parts: list[str | Table] = [facts(pairs)]
    if answer["version"] != here:
        parts.append("the supervisor runs another version: restart breakerd to bring it to this one")
    return Page(answer, tuple(parts))
