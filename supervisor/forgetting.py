"""Breakers that go: by age, or because an operator says so. For want of room `catalogue` itself lets them go.

Neighbours: `catalogue` (which breakers there are), `engine` (which calls). Knows no worker.
"""

from __future__ import annotations

from typing import Final

from supervisor.catalogue import FORGET_S, Catalogue
from supervisor.messages import Answer, Forget, Refused
from supervisor.turn import Turn

FORGOTTEN_SHOWN: Final = 100
"""Forgotten breakers that an answer names."""
NAMED_MAX: Final = 3
"""Forgotten breakers that an event names."""


def forget_old(catalogue: Catalogue, turn: Turn) -> None:
    """Forget what no worker has had for a day; what may not go is looked at again in a day."""
    gone = []
    for number in catalogue.idle.older(turn.now, FORGET_S):
        breaker = catalogue.by_number[number]
        if catalogue.dispensable(breaker):
            gone.append(breaker.name)
            catalogue.forget(breaker, turn)
        else:
            catalogue.idle.rest(number, breaker.owner, turn.now)
    if gone:
        turn.happened("breaker", f"{_named(gone)} forgotten: no worker for a day", event="forgotten")


def told_to_forget(catalogue: Catalogue, told: Forget, turn: Turn) -> None:
    """An authorised operator wants breakers to be forgotten: one, or all that nobody has set by hand."""
    chosen = [catalogue.by_number[number] for number in catalogue.idle]
    chosen = [breaker for breaker in chosen if breaker.breaker.manual is None]
    if told.breaker:
        breaker = catalogue.named.get(told.breaker)
        if breaker is None:
            turn.effects.append(Refused("unknown", f"there is no breaker {told.breaker}"))
            return
        if breaker.shown:
            count = len({worker for worker, _ in breaker.shown})
            text = f"{told.breaker} is in use by {count} worker{'s' if count > 1 else ''}"
            turn.effects.append(Refused("in-use", text))
            return
        chosen = [breaker]
    names = [breaker.name for breaker in chosen]
    for breaker in chosen:
        catalogue.forget(breaker, turn)
    turn.effects.append(Answer({"forgotten": len(names), "names": names[:FORGOTTEN_SHOWN]}))
    who = f"{told.user} (uid {told.uid})"
    facts = {"uid": str(told.uid), "user": told.user, "verb": "forget", "count": str(len(names))}
    turn.happened("command", f"{who}: forget {_named(names)}", told.breaker, **facts)


def _named(names: list[str]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"{', '.join(names[:NAMED_MAX]) or 'nothing'}{more}"
