"""Which handlers have counted an exception: remembered by the exception object itself.

So an error is counted once, however many layers see it pass. Neighbours: `handler` (the only user).
"""

from __future__ import annotations

from typing import Final

NAME: Final = "__counted_by__"
"""The attribute of the exception."""


class _Marks(set[int]):
    """Numbers of handlers. They mean nothing in another process: a pickled set arrives empty."""

    def __reduce__(self) -> tuple[type[_Marks], tuple[()]]:
        return _Marks, ()


def marks(error: BaseException) -> set[int]:
    """The marks of an exception object, to look at and to add to."""
    there = error.__dict__.get(NAME)
    if not isinstance(there, _Marks):
        there = error.__dict__[NAME] = _Marks()
    return there
