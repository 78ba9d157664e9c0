"""How the tests of classification say what they expect: a row of the table, in few letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workers.classify import Classification, classify, counts_as_failure
from workers.kinds import ErrorType, Origin

ORIGINS = {
    "D": Origin.DEPENDENCY,
    "L": Origin.LOCAL,
    "C": Origin.CALLER,
    "S": Origin.CONFIGURATION,
}


def facts(flags: str, error_type: ErrorType, code: str) -> Classification:
    """A classification by its letters: whose fault, `r`etried or -, `c`ounts or -."""
    origin, retried, counts = tuple(flags)
    return Classification(error_type, ORIGINS[origin], retried == "r", counts == "c", code)


def provoked(act: Callable[[], Any]) -> Exception:
    """What `act` raises."""
    with pytest.raises(Exception) as caught:
        act()
    assert isinstance(caught.value, Exception)
    return caught.value


def check(error: BaseException, flags: str, error_type: ErrorType, code: str) -> None:
    """The error is classified so, whatever was being done, and a breaker counts it or not accordingly."""
    wanted = facts(flags, error_type, code)
    assert classify(error) == wanted, repr(error)
    assert classify(error, ErrorType.CONTEXT_RETRIEVAL) == wanted
    assert counts_as_failure(error) is wanted.counts
