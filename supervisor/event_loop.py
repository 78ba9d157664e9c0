"""The part of an event loop that the daemon's parts need, so that tests may pretend to be one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Watcher(Protocol):
    """The part of an event loop that is needed here."""

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> object:
        """Call back when there is something to read."""

    def remove_reader(self, fd: int) -> object:
        """Stop that."""

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> object:
        """Call back when there is room to write."""

    def remove_writer(self, fd: int) -> object:
        """Stop that."""
