"""Snapshots that older versions of the engine wrote, as one of today. Knows the shapes, not what is in them.

Neighbours: `engine`, which reads what comes out of here and writes none but the newest version.
"""

from __future__ import annotations

from typing import Any

from supervisor.metrics import BreakerMetrics


def as_of_today(plain: Any) -> Any:
    """The snapshot in its present shape, one version after the other; what is none is left as it is."""
    if isinstance(plain, dict) and plain.get("version") == 1:
        plain = _from_version_1(plain)
    if isinstance(plain, dict) and plain.get("version") == 2:
        plain = _from_version_2(plain)
    if isinstance(plain, dict) and plain.get("version") == 3:
        # Of before equal declarations were written once, and before breakers had events of their own:
        # what is not there is read as none.
        plain = {**plain, "version": 4}
    if isinstance(plain, dict) and plain.get("version") == 4:
        plain = _from_version_4(plain)
    return plain


def _from_version_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Of before there were counters."""
    workers, tombs = plain["roster"]
    roster = [[[*worker, []] for worker in workers], tombs]
    return {**plain, "version": 2, "roster": roster, "counting": [*plain["counting"], []]}


def _from_version_2(plain: dict[str, Any]) -> dict[str, Any]:
    """Of before there were probes and ramps: no circuit waits for one, none climbs."""
    breakers, configured = plain["catalogue"]
    catalogue = [[_breaker_of_version_2(breaker) for breaker in breakers], configured, []]
    return {**plain, "version": 3, "catalogue": catalogue}


def _breaker_of_version_2(plain: list[Any]) -> list[Any]:
    namespace, short, settings, (now, circuits, *judged), *rest = plain
    host, isolated, *counts = circuits
    isolated = [[party, _circuit_of_version_2(circuit)] for party, circuit in isolated]
    circuits = [_circuit_of_version_2(host), isolated, *counts]
    return [namespace, short, settings, [now, circuits, *judged], *rest]


def _circuit_of_version_2(plain: list[Any]) -> list[Any]:
    return [*plain, None, None, 0.0, 0.0]


def _from_version_4(plain: dict[str, Any]) -> dict[str, Any]:
    """Of before breakers and counters had owners and were forgotten: the user of a worker that has one is
    its owner, and what no worker has is unused since it last did something.
    """
    workers = plain["roster"][0]
    uids = {worker[0]: worker[3] for worker in workers}
    breakers, configured, watches = plain["catalogue"]
    owned, idle = [], []
    for number, breaker in enumerate(breakers):
        shown = breaker[9]
        owner = next((uids[worker] for worker, _ in shown if worker in uids), -1)
        owned.append([*breaker, number, owner])
        if not shown:
            idle.append([number, owner, breaker[3][0]])
    idle.sort(key=lambda one: one[2])
    none = BreakerMetrics().to_plain()
    catalogue = [owned, configured, watches, [len(breakers), -1, 0, none], idle]
    *counts, counters = plain["counting"]
    owners = {tuple(key): worker[3] for worker in workers for _, *key in worker[17]}
    counted = [[*counter, owners.get(tuple(counter[:3]), -1)] for counter in counters]
    resting = [[one[:3], -1, one[4] or 0.0] for one in counted if tuple(one[:3]) not in owners]
    resting.sort(key=lambda one: one[2])
    return {**plain, "version": 5, "catalogue": catalogue, "counting": [*counts, counted, -1, resting]}
