"""Where pages go: a terminal, a pipe or JSON. The only file of supervisorctl that writes.

Neighbours: `page` (plain columns) and `colour` (rich, loaded for a terminal only); `main` decides.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any, TextIO

from ipc.errors import BreakerdError
from supervisor.ctl import page as pages
from supervisor.ctl.page import Page, Verdict


@dataclass(frozen=True, slots=True)
class Screen:
    """Standard output and error of one run."""

    out: TextIO
    err: TextIO
    program: str
    json: bool = False
    colour: bool = False

    def show(self, page: Page, clear: bool = False, compact: bool = False) -> None:
        """One page; `compact` is for JSON that comes line by line."""
        if self.json:
            self._document(page.answer, compact)
        elif self.colour and self._rich(page, clear):
            pass
        else:
            self.out.write(pages.plain(page))
        self.out.flush()

    def trouble(self, error: BreakerdError, path: str, verb: str, commanding: bool = False) -> Verdict:
        """What went wrong and what to do, on standard error (and as JSON on standard output if asked for)."""
        found = importlib.import_module("supervisor.ctl.trouble").explain(error, path, commanding)
        if self.json:
            self._document(found.document(verb), compact=False)
            self.out.flush()
        self.err.write(
            f"{self.program}: {pages.clean(found.text)}\n  what to do: {pages.clean(found.action)}\n"
        )
        self.err.flush()
        verdict: Verdict = found.verdict
        return verdict

    def _document(self, value: Any, compact: bool) -> None:
        # In ASCII: it passes every locale, and no name or line in it can move a terminal's cursor.
        self.out.write(json.dumps(value, indent=None if compact else 2) + "\n")

    def _rich(self, page: Page, clear: bool) -> bool:
        """Show it in colour; False where rich is not installed."""
        try:
            colour = importlib.import_module("supervisor.ctl.colour")
        except ImportError:
            return False
        colour.show(page, self.out, clear)
        return True
