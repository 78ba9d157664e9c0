"""The reference model's list of everything that was told, and what its rules read from it, each time anew."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ipc.vocabulary import FOREVER, BreakerSettings, CountWindow, TimeWindow

LONG_AGO = -FOREVER


@dataclass(frozen=True)
class Note:
    """One line of the list: a call, a trial, or the moment at which something was forgotten."""

    what: str
    """call, trial; window (emptied), closed (window and host run), all; and of one party: party (set apart,
    out of window and host run), well (succeeded while it was), left."""
    party: str = ""
    failed: bool = False
    slow: bool = False
    end: float = 0.0


class Notebook:
    """The list, and the three questions that rules ask about it."""

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self.settings = settings
        self.now = now
        self.notes: list[Note] = []

    def window(self) -> list[Note]:
        """The calls that are inside the window now."""
        kept: list[Note] = []
        for note in self.notes:
            if note.what == "call":
                kept.append(note)
                if isinstance(self.settings.window, CountWindow):
                    kept = kept[-self.settings.window.calls :]
            elif note.what in {"window", "closed", "all"}:
                kept = []
            elif note.what == "party":
                kept = [old for old in kept if old.party != note.party]
        return [note for note in kept if self.inside(note.end)]

    def inside(self, end: float) -> bool:
        """True if a call that ended then is young enough for the window."""
        window = self.settings.window
        if not isinstance(window, TimeWindow):
            return True
        width = max(0.125, math.ceil(window.seconds / 64 / 0.125) * 0.125)
        return end // width > self.now // width - math.ceil(window.seconds / width)

    def host_run(self) -> list[Note]:
        """The failures since the last success of anybody, by the eighths of a second of their ends."""
        run: list[Note] = []
        newest = LONG_AGO
        for note in self.notes:
            if note.what in {"call", "trial"}:
                if note.failed:
                    if run and note.end // 0.125 - max(old.end // 0.125 for old in run) > 8 * 300:
                        run = []
                    run += [note] if newest == LONG_AGO or note.end // 0.125 >= newest // 0.125 else []
                else:
                    run = [old for old in run if old.end // 0.125 > note.end // 0.125]
                    newest = max(newest, note.end)
            elif note.what in {"closed", "all"}:
                run = []
                newest = LONG_AGO if note.what == "all" else newest
            elif note.what == "party":
                run = [old for old in run if old.party != note.party]
        return run

    def own_run(self, party: str) -> tuple[int, bool]:
        """The party's failures since its last success, and if a peer's success ended between two of them."""
        run: list[float] = []
        between, peers = False, LONG_AGO
        for note in self.notes:
            if note.what in {"call", "trial"} and note.party == party:
                if note.failed:
                    if run and note.end - max(run) > 300:
                        run, between = [], False
                    run.append(note.end)
                    between = between or (len(run) > 1 and min(run) < peers <= note.end)
                else:
                    run, between = [], False
            elif note.what in {"call", "trial"} and not note.failed:
                peers = max(peers, note.end)
            elif note.what == "all":
                run, between, peers = [], False, LONG_AGO
            elif note.what in {"well", "left"} and note.party == party:
                run, between = [], False
        return len(run), between
