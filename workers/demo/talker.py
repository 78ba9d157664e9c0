"""One agent of `breakerd demo --memory`: `python -m workers.demo.talker PARENT NUMBER PLACE URL`.

It says something, notes down what the memory answered, and now and then asks what it said last. Its notes
are lines of a file, one write each, so they outlive kill -9:

    > N          it is about to say line N
    = N OUTCOME  the memory answered: stored, spooled or rejected
    ? N          it asked, and line N, acknowledged, was there
    ! N          it asked, and line N, acknowledged, was not there
    ~ N          nor was it then, but it is stored in the database, which no part of the answer came from
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Final

from ipc import CircuitBreaker
from workers.classify import counts_as_failure
from workers.demo.leash import tie
from workers.handler import MemoryErrorHandler
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Found, Source, StoreOutcome

STOP: Final = "stop"
"""The file that tells every agent to end its last sentence and leave."""
SPOOL: Final = "spool"
PACE_S: Final = 0.02
ASKS_EVERY: Final = 5
TOPICS: Final = ("breakers", "spools", "leases", "windows", "permits", "epochs")


def settings(place: str, url: str) -> MemoryConfig:
    """Short limits: an outage here lasts seconds."""
    return MemoryConfig(
        database_url=url,
        spool_directory=f"{place}/{SPOOL}",
        database_timeout_s=1.0,
        soft_age_s=1.0,
        replay_rate_per_s=2000.0,
        breaker="database",
    )


def memory(place: str, url: str) -> EnhancedMemoryLayerManager:
    """A memory whose breaker tries again soon."""
    handler = MemoryErrorHandler()
    handler.circuit_breakers["database"] = CircuitBreaker(
        "database",
        failure_threshold=3,
        recovery_timeout=0.5,
        recovery_timeout_max=1.0,
        is_failure=counts_as_failure,
    )
    return EnhancedMemoryLayerManager(settings(place, url), handler=handler)


def user(number: int) -> str:
    """With whom agent `number` talks."""
    return f"user-{number}"


def mark(answer: list[Found], line: int, outcome: StoreOutcome) -> str:
    """What the answer says of a line that was acknowledged so.

    A database that dies between a store and the question has the line, and an older page of a cache has not.
    """
    if any(one.conversation.user_message.startswith(f"line {line}:") for one in answer):
        return "?"
    away = bool(answer) and all(one.source is not Source.DATABASE for one in answer)
    return "~" if away and outcome is StoreOutcome.STORED else "!"


def main(arguments: list[str]) -> None:
    """Talk until told to stop."""
    parent, number, place, url = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tie(int(parent))
    dice = random.Random(int(number))
    notes = os.open(f"{place}/notes-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    who, line, last, outcome = user(int(number)), 0, 0, StoreOutcome.REJECTED

    def note(sign: str, *what: object) -> None:
        os.write(notes, f"{sign} {' '.join(map(str, what))}\n".encode())

    with memory(place, url) as mind:
        while not os.path.exists(f"{place}/{STOP}"):
            line += 1
            topic = dice.choice(TOPICS)
            note(">", line)
            said = mind.store_conversation(who, f"line {line}: tell me of {topic}", f"{topic}: ...", [topic])
            note("=", line, said.outcome)
            if said.outcome is not StoreOutcome.REJECTED:
                last, outcome = line, said.outcome
            if line % ASKS_EVERY == 0 and last:
                note(mark(mind.history(who, 3), last, outcome), last)
            time.sleep(PACE_S * (0.5 + dice.random()))
    os.close(notes)


if __name__ == "__main__":
    main(sys.argv[1:])
