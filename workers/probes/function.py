"""Asks by calling a Python function in the prober: it fails by raising or by returning False.

It is imported once for each life of the prober. One that hangs takes the prober with it, which is what
probers are for. Neighbours: `question`, `prober`. Knows no driver.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from workers.probes.question import Ask, CannotAsk, Passed, ProbeFailed, Question
from workers.redact import describe


def prepare(question: Question) -> Ask:
    """Imports it."""
    module, _, path = question.target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:  # whatever somebody's module raises when it is imported
        raise CannotAsk(f"{question.target} cannot be imported: {describe(error)}") from error
    if not callable(found) or asyncio.iscoroutinefunction(found):
        raise CannotAsk(f"{question.target} is not a function that can be called")
    return partial(_call, found)


def _call(target: Callable[[], object]) -> Passed:
    try:
        said = target()
    except (Exception, SystemExit) as error:  # the function's way to say no
        raise ProbeFailed(describe(error)) from error
    if said is False:
        raise ProbeFailed("it returned False")
    return Passed("it returned")
