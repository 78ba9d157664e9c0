"""Counts that are no calls: errors by type and operation, exact host-wide over the death of any process.

A counter is a row whose cumulative word this process raises; the supervisor adds up what all processes of a
namespace counted. Neighbours: `client` (attaches), `link` (rows and words), `process` (whose client it is).
Knows no breaker. Without a supervisor there are no totals.

    the word     written by this process, read by the supervisor; it is absolute, so whoever dies between
                 writing and reading changes nothing
"""

from __future__ import annotations

import json
from typing import Final

from ipc import control
from ipc.client import Client
from ipc.errors import BreakerdError
from ipc.forks import remember
from ipc.process import default_client
from ipc.rows import printable
from ipc.vocabulary import COUNTERS_PER_PROCESS, OutcomeKind

OTHER: Final = "other"
KINDS_RESERVED: Final = 16
"""Of the rows of a process, those kept for the `other` operation of a kind."""
TOTALS_S: Final = 1.0
"""Totals that were asked for less than this ago are not asked for again."""
ASK_S: Final = 0.25
"""How long asking for them may take."""

Totals = dict[tuple[str, str], int]


class Counters:
    """The counters of this process, on one client (None = the process's default, whichever it is)."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client
        self._rows: dict[tuple[str, str], int] = {}
        self._of: Client | None = None
        """Whose rows these are."""
        self._totals: tuple[float, Totals | None] | None = None
        remember(self)

    def after_fork(self) -> None:
        """A child has the same rows, with counts of its own, and asks for itself."""
        self._totals = None

    @property
    def client(self) -> Client:
        """The client whose rows these are now."""
        client = self._client or default_client()
        if client is not self._of:
            self._of, self._rows, self._totals = client, {}, None
        return client

    def add(self, kind: str, operation: str) -> None:
        """One more `kind` of error in `operation`. Beyond 256 a process, `operation` becomes `other`."""
        client = self.client
        link = client.link
        link.awake()
        if client.untried:
            client.introduce()
        row = self._row(client, printable(kind), printable(operation))
        if row is not None:
            link.tally(row, OutcomeKind.COUNT)
        now = link.clock()
        if now >= link.fresh_until:
            link.look(now)

    def _row(self, client: Client, kind: str, operation: str) -> int | None:
        """The row of a counter, declared on first sight; None = there is no room for one more."""
        rows, key = self._rows, (kind, operation)
        if key not in rows and len(rows) >= COUNTERS_PER_PROCESS - KINDS_RESERVED:
            key = (kind, OTHER)
        if key not in rows and len(rows) >= COUNTERS_PER_PROCESS:
            return None
        if key not in rows:
            record = b'"counter":%s}' % json.dumps(list(key)).encode()
            row = client.link.add_class(record)
            if row is None:
                return None
            # Two threads may both get here: the second row stays unused.
            rows.setdefault(key, row)
        return rows[key]

    def totals(self) -> Totals | None:
        """What all processes of this namespace on this host have ever counted, by (kind, operation).

        From the supervisor, up to 1 s old; None where none decides or it does not answer within 250 ms.
        """
        client = self.client
        link, now = client.link, client.link.clock()
        link.awake()
        if now >= link.fresh_until:
            link.look(now)
        if not client.supervised or client.path is None:
            return None
        if self._totals is None or not 0.0 <= now - self._totals[0] < TOTALS_S:
            self._totals = now, _ask(client.path, client.namespace)
        return self._totals[1]


def _ask(path: str, namespace: str) -> Totals | None:
    try:
        answer = control.ask(path, "errors", ASK_S, counters=namespace)
        return {
            (str(one["kind"]), str(one["operation"])): int(one["count"])
            for one in answer["counters"]
            if one["namespace"] == namespace
        }
    except (BreakerdError, OSError, KeyError, TypeError, ValueError):
        return None


_process: Final[list[Counters]] = []


def process_counters() -> Counters:
    """The counters of this process, made on first use."""
    if not _process:
        _process.append(Counters())
    return _process[0]
