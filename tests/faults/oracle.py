"""The oracle for lost and doubled outcomes: what was issued, kept by the issuers themselves.

Every thread of a worker has its own ledger, a file mapped shared, which survives kill -9. Words of a page:

    0..15   intended, by OutcomeKind: bumped inside the guarded function, before the ring store can happen
    16..31  done, by OutcomeKind: bumped when the guarded call is over, after the ring store
    32      refused calls, bumped when CircuitOpenError was caught
    33      1 = the thread left its loop by itself: nothing of it can be in flight

The breaker's name is the file name's first part. The judge: counted = intended for threads that left,
and done <= counted <= intended for killed ones, which is one outcome per killed thread at most.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ipc.vocabulary import OutcomeKind

SIZE: Final = 4096
DONE: Final = 16
REFUSED: Final = 32
LEFT: Final = 33
SUFFIX: Final = ".ledger"
KINDS: Final = tuple(kind for kind in OutcomeKind if kind is not OutcomeKind.COUNT)


class Ledger:
    """The issuing side: one thread's own page. Never used by two threads, nor by a forked child."""

    __slots__ = ("words",)

    def __init__(self, directory: str | Path, breaker: str, label: str) -> None:
        path = Path(directory) / f"{breaker}@{label}-{os.getpid()}{SUFFIX}"
        with path.open("x+b") as file:
            file.truncate(SIZE)
            self.words = memoryview(mmap.mmap(file.fileno(), SIZE)).cast("Q")

    def intend(self, kind: int) -> None:
        """The outcome of this kind is about to be put."""
        self.words[kind] += 1

    def done(self, kind: int) -> None:
        """The guarded call is over."""
        self.words[DONE + kind] += 1

    def refused(self) -> None:
        """The call was refused."""
        self.words[REFUSED] += 1

    def left(self) -> None:
        """Nothing more comes, and nothing is in flight."""
        self.words[LEFT] = 1


@dataclass(slots=True)
class Account:
    """What all ledgers of one breaker say together."""

    intended: dict[OutcomeKind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    done: dict[OutcomeKind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    refused: int = 0
    killed: int = 0
    """Threads that did not leave by themselves: each may have one outcome and one refusal in flight."""


def accounts(directory: str | Path) -> dict[str, Account]:
    """Breaker name (short) -> its account, read from the files."""
    found: dict[str, Account] = {}
    for path in sorted(Path(directory).glob(f"*{SUFFIX}")):
        data = path.read_bytes()
        if len(data) < SIZE:
            continue  # killed between making the file and giving it its size: nothing was issued
        words = memoryview(data).cast("Q")
        account = found.setdefault(path.name.partition("@")[0], Account())
        for kind in KINDS:
            account.intended[kind] += words[kind]
            account.done[kind] += words[DONE + kind]
        account.refused += words[REFUSED]
        account.killed += 0 if words[LEFT] else 1
    return found


def issued(directory: str | Path) -> int:
    """How many outcomes were intended in all."""
    return sum(sum(account.intended.values()) for account in accounts(directory).values())


def counted(stats: Any, breaker: str) -> Any:
    """The supervisor's figures of the breaker with that short name, over all namespaces; None = unknown."""
    named = [value for name, value in stats["breakers"].items() if name.rpartition("/")[2] == breaker]
    assert len(named) <= 1, f"{breaker} is counted under more than one namespace"
    return named[0] if named else None


def differences(stats: Any, directory: str | Path, forgive: Iterable[str] = ()) -> list[str]:
    """Every way in which the supervisor's figures differ from what was issued, as sentences; [] = exact.

    `forgive` names figures of `lost` that may be other than 0.
    """
    found: list[str] = []
    for name, account in accounts(directory).items():
        figures = counted(stats, name)
        if figures is None:
            if sum(account.done.values()):
                found.append(f"{name}: {sum(account.done.values())} issued, the supervisor does not know it")
            continue
        in_flight = 0
        for kind in KINDS:
            done, intended = account.done[kind], account.intended[kind]
            seen = figures["outcomes"][kind.name.lower()]
            in_flight += intended - seen
            if not done <= seen <= intended:
                found.append(f"{name}: {kind.name} counted {seen}, done {done}, intended {intended}")
        if in_flight > account.killed:
            found.append(f"{name}: {in_flight} missing, {account.killed} may be in flight")
        refused = figures["rejected"] + figures["ramped"] + figures["permit_timeout"]
        if not account.refused <= refused <= account.refused + account.killed:
            found.append(f"{name}: refused {account.refused}, counted {refused}")
    lost = {key: value for key, value in stats["lost"].items() if value and key not in set(forgive)}
    if lost:
        found.append(f"lost: {lost}")
    return found


def too_many(stats: Any, directory: str | Path) -> list[str]:
    """At any instant: nothing is counted that was not intended. `stats` must be older than this call."""
    found: list[str] = []
    for name, account in accounts(directory).items():
        figures = counted(stats, name)
        seen = figures["outcomes"] if figures else {}
        found += [
            f"{name}: {kind.name} counted {seen[kind.name.lower()]} of {account.intended[kind]}"
            for kind in KINDS
            if seen and seen[kind.name.lower()] > account.intended[kind]
        ]
    return found
