"""The play of `breakerd demo --memory`: agents talk, the database is killed, an agent too; nothing is lost.

What was acknowledged is known from the agents' own notes, what is there from the database itself; both are
compared line by line. Neighbours: `talker` (an agent), `talk_database` (what is killed), `processes`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workers.demo.processes import Running, Troupe
from workers.demo.stage import Asked, DemoFailed, fell
from workers.demo.talk_database import Database, database
from workers.demo.talker import STOP, memory, settings, user
from workers.memory.spool import Spool
from workers.memory.store import Store

AGENTS: Final = 4
VICTIM: Final = 2
START_LIMIT_S: Final = 15.0
CALM_S: Final = 2.0
DEATH_S: Final = 1.5
"""How long after the database an agent is killed."""
DRAIN_LIMIT_S: Final = 12.0
STOP_LIMIT_S: Final = 8.0
POLL_S: Final = 0.05
SAMPLE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Notes:
    """What one agent wrote down."""

    number: int
    said: frozenset[int]
    stored: frozenset[int]
    spooled: frozenset[int]
    rejected: frozenset[int]
    remembered: int
    forgotten: int
    unreached: int
    """Asked for when the database that has it was dead: at most the last sentence before the kill."""

    @property
    def acknowledged(self) -> frozenset[int]:
        """What the memory promised to keep."""
        return self.stored | self.spooled


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one agent's words."""

    notes: Notes
    rows: int
    lost: int
    """Acknowledged, and not in the database."""
    doubled: int
    unasked: int
    """In the database, and never acknowledged: at most the one sentence that a kill cut off."""

    @property
    def exact(self) -> bool:
        """Whether it is as promised."""
        cut_off = len(self.notes.said - self.notes.acknowledged - self.notes.rejected)
        fits = self.unasked <= min(cut_off, 1)
        remembers = not self.notes.forgotten and self.notes.unreached <= 1
        return fits and remembers and not (self.lost or self.doubled)


class Play:
    """One performance in one directory."""

    def __init__(self, place: str, troupe: Troupe, outage_s: float) -> None:
        self.place, self.troupe, self.outage_s = place, troupe, outage_s
        self.signalled = 0
        self.began = time.monotonic()
        self._database: Database = database(troupe, place)
        self._agents: list[Running] = []

    def say(self, text: str) -> None:
        """Tell the audience."""
        print(f"{time.monotonic() - self.began:6.2f} s  {text}", flush=True)

    def perform(self) -> list[Verdict]:
        """Play it. Raises DemoFailed and Asked."""
        self.say(f"{AGENTS} agents begin to talk; their memory's database is {self._database.name}")
        self._talk()
        self._database.start()
        self._until(lambda: all(one.stored for one in self._notes()), START_LIMIT_S, "every agent is heard")
        self._play(CALM_S)
        self.say(f"{self._database.kill()}; nobody tells the agents")
        self._until(lambda: any(one.spooled for one in self._notes()), START_LIMIT_S, "the spool takes over")
        self._play(DEATH_S)
        victim = self._agents[VICTIM - 1]
        victim.kill()
        victim.process.wait()
        self.say(f"kill -9 of agent {VICTIM} (pid {victim.pid}) in the middle of a sentence")
        self._play(max(0.0, self.outage_s - DEATH_S))
        self._database.start()
        self.say("the database is back")
        self._until(self._drained, DRAIN_LIMIT_S, "what was spooled is in the database")
        self.say("everything that waited on the disk is in the database")
        self._play(CALM_S / 2)
        self._stop()
        return self._verdicts()

    def _talk(self) -> None:
        for number in range(1, AGENTS + 1):
            arguments = ["-m", "workers.demo.talker", str(os.getpid()), str(number), self.place]
            changes = {"BREAKERD_SOCKET": "off"}
            self._agents.append(
                self.troupe.start(f"agent-{number}", [*arguments, self._database.url], changes)
            )

    def _notes(self) -> list[Notes]:
        return [read_notes(f"{self.place}/notes-{number}", number) for number in range(1, AGENTS + 1)]

    def _drained(self) -> bool:
        """Whether nothing waits; the living agents replay, also what the killed one left."""
        spool = Spool(f"{self.place}/spool", settings(self.place, self._database.url).spool_max_bytes)
        try:
            return not spool.next_batch(1)
        finally:
            spool.views.close()

    def _stop(self) -> None:
        """Every living agent ends its sentence and leaves; what it could not bring home is brought home."""
        living = [one for one in self._agents if not one.ends]
        for one in living:
            one.ends = True
        with open(f"{self.place}/{STOP}", "wb"):
            pass
        self._until(lambda: all(one.code is not None for one in living), STOP_LIMIT_S, "the agents leave")
        for one in living:
            if one.code:
                raise fell(one)
        with memory(self.place, self._database.url) as mind:
            if not mind.flush(DRAIN_LIMIT_S):
                raise DemoFailed("the spool could not be emptied")

    def _verdicts(self) -> list[Verdict]:
        with Store(settings(self.place, self._database.url)) as store:
            return [
                judge(one, [row.user_message for row in store.export(user(one.number))])
                for one in self._notes()
            ]

    # --- waiting --------------------------------------------------------------------------------------

    def _play(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= end, seconds + 1.0, "time passes")

    def _until(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        """Watch until the condition holds. Raises DemoFailed after `limit_s`, and Asked."""
        deadline, sampled = time.monotonic() + limit_s, time.monotonic()
        while not condition():
            if self.signalled:
                raise Asked(self.signalled)
            fallen = self.troupe.fallen()
            if fallen is not None:
                raise fell(fallen)
            now = time.monotonic()
            if now >= deadline:
                raise DemoFailed(f"{what}: not within {limit_s:g} s")
            if now - sampled >= SAMPLE_S:
                sampled = now
                self._sample()
            time.sleep(POLL_S)

    def _sample(self) -> None:
        notes = self._notes()
        stored, spooled = sum(len(one.stored) for one in notes), sum(len(one.spooled) for one in notes)
        asked = sum(one.remembered for one in notes)
        self.say(f"  said and stored {stored}, said and spooled {spooled}, remembered when asked {asked}")


def read_notes(path: str, number: int) -> Notes:
    """The notes of one agent, as far as they are written."""
    found: dict[str, set[int]] = {mark: set() for mark in (">", "stored", "spooled", "rejected")}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    asked = {"?": 0, "!": 0, "~": 0}
    for line in lines:
        mark, number_text, *outcome = line.split()
        if mark in asked:
            asked[mark] += 1
        else:
            found[outcome[0] if outcome else mark].add(int(number_text))
    said, stored, spooled, rejected = (
        frozenset(found[mark]) for mark in (">", "stored", "spooled", "rejected")
    )
    return Notes(number, said, stored, spooled, rejected, asked["?"], asked["!"], asked["~"])


def judge(notes: Notes, rows: list[str]) -> Verdict:
    """Compare what an agent was promised with the messages that the database has of it."""
    there = [int(row.removeprefix("line ").partition(":")[0]) for row in rows]
    kept = set(there)
    return Verdict(
        notes,
        rows=len(rows),
        lost=len(notes.acknowledged - kept),
        doubled=len(there) - len(kept),
        unasked=len(kept - notes.acknowledged),
    )


def report(verdicts: list[Verdict], took_s: float) -> list[str]:
    """The account, line by line."""
    lines = ["agent    said  stored  spooled  rejected  in the database  lost  doubled  asked  forgotten"]
    for one in verdicts:
        notes = one.notes
        name = f"{notes.number}{' (killed)' if notes.number == VICTIM else ''}"
        lines.append(
            f"{name:<10}{len(notes.said):>3}{len(notes.stored):>8}{len(notes.spooled):>9}"
            f"{len(notes.rejected):>10}{one.rows:>17}{one.lost:>6}{one.doubled:>9}"
            f"{notes.remembered + notes.forgotten + notes.unreached:>7}{notes.forgotten:>11}"
        )
    kept = sum(len(one.notes.acknowledged) for one in verdicts)
    lost, doubled = sum(one.lost for one in verdicts), sum(one.doubled for one in verdicts)
    if all(one.exact for one in verdicts):
        lines.append(f"{kept} sentences were acknowledged; all of them are in the database, each once.")
    else:
        lines.append(f"NOT EXACT: of {kept} acknowledged sentences {lost} are lost, {doubled} doubled.")
    lines.append(f"It took {took_s:.1f} s.")
    return lines
