"""Is the host well? The tree of checks in the health+json shape, from what the supervisor knows.

    live    the loop turns, or there would be no answer
    ready   a commit is durable and answered
    full    both, and every breaker, worker and count

Pass, warn or fail; the worst check decides. A breaker that is not closed is a warning, and a failure
only where the configuration calls it critical. Neighbours: `engine`, `facts`, `views`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ipc.vocabulary import BreakerState
from supervisor.catalogue import BREAKERS_MAX, Catalogue
from supervisor.engine import Engine
from supervisor.facts import Facts, ManagedProcess
from supervisor.host_breaker import REFUSING, HostBreaker
from supervisor.probe_watch import ERROR, FAILED
from supervisor.processes import description, warning

SILENT_S: Final = 5.0
"""The nursery's loop turns each second; one that has not for so long hangs, or was stopped."""
LEVELS: Final = ("live", "ready", "full")
FRESH_S: Final = 60.0
"""For how long something lost, or an actor that failed, is a warning."""
OUTPUT_MAX: Final = 2000
"""Characters of the sentence that sums up what is not well."""
PROBE_WAIT_MAX_S: Final = 5.0
"""A probe that waits so long for a free prober is a warning."""
MAKE_ROOM: Final = "supervisorctl breaker forget --unused makes room where no worker is left"
CROWDED: Final = 0.8
"""From this part of all breakers on, those in use are a warning."""
DENIED_MANY: Final = 10
"""A user who is denied so many commands without a rest is a warning; fewer are a slip."""
NAMED_MAX: Final = 3
"""Breakers, and managed processes, that the sentence for systemd names."""
_WORST: Final = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it is, the sentence that says so, the value that was seen."""

    name: str
    status: str
    output: str = ""
    value: str | int = ""

    def to_json(self) -> dict[str, Any]:
        """As an entry under `checks`."""
        return {"status": self.status, "output": self.output, "observedValue": self.value}


def report(engine: Engine, facts: Facts, level: str, now: float) -> dict[str, Any]:
    """The health+json object of one of LEVELS at `now` (s of CLOCK_MONOTONIC)."""
    checks: list[Check] = []
    if level != "live":
        checks.append(_checkpoint(facts))
    if level == "full":
        checks += _supervisor(engine, facts, now)
        checks += _workers(engine)
        checks += _alone(engine)
        checks += _refusals(facts, now)
        checks.append(_room(engine.catalogue, now))
        for process in facts.managed:
            checks += _managed(process, now)
        for breaker in engine.catalogue.numbered:
            checks += _breaker(engine, facts, breaker, now)
    status = max((check.status for check in checks), key=_WORST.__getitem__, default="pass")
    grouped: dict[str, list[dict[str, Any]]] = {}
    for check in checks:
        grouped.setdefault(check.name, []).append(check.to_json())
    bad = sorted((check for check in checks if check.status != "pass"), key=lambda one: -_WORST[one.status])
    answer: dict[str, Any] = {
        "schema": 1,
        "status": status,
        "version": "1",
        "releaseId": facts.software,
        "serviceId": "breakerd",
        "description": "circuit breakers and metrics of the worker processes of this host",
        "checks": grouped,
        "level": level,
    }
    if bad:
        answer["output"] = "; ".join(check.output for check in bad)[:OUTPUT_MAX]
    return answer


def sentence(engine: Engine, facts: Facts) -> str:
    """How things are, in one line for `systemctl status`: what is wrong comes first. Dates no instant."""
    wrong = [
        f"{breaker.name} is {breaker.state.name}"
        for breaker in engine.catalogue.numbered
        if breaker.state is not BreakerState.CLOSED and (breaker.shown or breaker.breaker.manual is not None)
    ]
    parts = [facts.checkpoint_problem, facts.disk_problem, *facts.degraded[:1]]
    if facts.nursery_silent_s > SILENT_S:
        parts.append(nursery_hangs(facts))
    if facts.configuration_problem:
        parts.append(f"reload refused: {facts.configuration_problem}")
    fatal = [one.title for one in facts.managed if one.state == "FATAL"]
    if fatal:
        more = f" and {len(fatal) - NAMED_MAX} more" if len(fatal) > NAMED_MAX else ""
        parts.append(f"{', '.join(fatal[:NAMED_MAX])}{more} {'is' if len(fatal) == 1 else 'are'} FATAL")
    parts.append(", ".join(wrong[:NAMED_MAX]))
    if len(wrong) > NAMED_MAX:
        parts.append(f"{len(wrong) - NAMED_MAX} more are not closed")
    breakers, workers = len(engine.catalogue.numbered), len(engine.workers)
    total = f"{_count(breakers, 'breaker')}, {_count(workers, 'worker')}"
    closed = all(breaker.state is BreakerState.CLOSED for breaker in engine.catalogue.numbered)
    parts.append(f"{total}, all closed" if breakers and closed else total)
    return "; ".join(part for part in parts if part)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _probers(facts: Facts) -> Check:
    """Whether probes find a free prober: those that hang take one each, until it is killed."""
    table, wait = max(facts.probe_waits.items(), key=lambda one: one[1].last_s)
    if wait.last_s < PROBE_WAIT_MAX_S:
        return Check("supervisor:probe_wait", "pass", value=f"{wait.last_s:.2f} s")
    text = f"the probe of {table} waits {wait.last_s:.0f} s for one of {_count(len(facts.probers), 'prober')}"
    return Check("supervisor:probe_wait", "warn", text, f"{wait.last_s:.2f} s")


def _checkpoint(facts: Facts) -> Check:
    if facts.checkpoint_problem:
        text = f"the checkpoint cannot be written: {facts.checkpoint_problem}"
        return Check("supervisor:checkpoint", "fail", text, "failed")
    return Check("supervisor:checkpoint", "pass", value="written")


def _supervisor(engine: Engine, facts: Facts, now: float) -> Iterator[Check]:
    """The supervisor's own parts."""
    if facts.disk_problem:
        text = f"the copy that survives a reboot is not written: {facts.disk_problem}"
        yield Check("supervisor:state-copy", "warn", text, "failed")
    else:
        yield Check("supervisor:state-copy", "pass", value="written")
    if facts.configuration_problem:
        text = f"the configuration file could not be reloaded: {facts.configuration_problem}"
        yield Check("supervisor:configuration", "warn", text, "refused")
    else:
        yield Check("supervisor:configuration", "pass", value="in force")
    if facts.nursery_silent_s > SILENT_S:
        yield Check("supervisor:nursery", "warn", nursery_hangs(facts), f"{facts.nursery_silent_s:.0f} s")
    for sentence in facts.degraded:
        yield Check("supervisor:degraded", "warn", sentence, "degraded")
    failed_at = dict(facts.failed_at)
    for actor, restarts in facts.restarts:
        fresh = restarts > 0 and now - failed_at.get(actor, -math.inf) < FRESH_S
        text = f"the actor {actor} failed and was restarted" if fresh else ""
        yield Check(f"supervisor:actor:{actor}", "warn" if fresh else "pass", text, restarts)
    yield _connections(facts, now)
    yield _log(facts, now)
    if facts.probe_waits:
        yield _probers(facts)
    at, what = engine.counting.disorder_at, engine.counting.disorder
    if at is not None and now - at < FRESH_S:
        yield Check("supervisor:outcomes", "warn", f"{what}, {max(0.0, now - at):.0f} s ago", "disorder")
    else:
        yield Check("supervisor:outcomes", "pass", value="in order")


def _log(facts: Facts, now: float) -> Check:
    """Whether lines of the log were lost lately: whoever reads it should know that it is not whole."""
    count, at = facts.log_dropped
    if at is None or now - at >= FRESH_S:
        return Check("supervisor:log", "pass", value=count)
    return Check("supervisor:log", "warn", f"{_count(count, 'line')} of the log could not be written", count)


def _connections(facts: Facts, now: float) -> Check:
    """Whether somebody was turned away lately, for want of a descriptor or of room."""
    turned_away = facts.accept_emfile + facts.accept_full
    if facts.turned_away_at is None or now - facts.turned_away_at >= FRESH_S:
        return Check("supervisor:connections", "pass", value=turned_away)
    reason = "no free descriptor" if facts.accept_emfile else "too many connections"
    text = f"{turned_away} connections turned away: {reason}"
    return Check("supervisor:connections", "warn", text, turned_away)


def _workers(engine: Engine) -> Iterator[Check]:
    """How many are attached, and who of them is not read."""
    yield Check("supervisor:workers", "pass", value=len(engine.workers))
    for worker in engine.workers.values():
        if worker.quarantine:
            text = f"worker {worker.title} is quarantined: {worker.quarantine}"
            yield Check("supervisor:workers", "warn", text, worker.nonce[:8])


def _alone(engine: Engine) -> Iterator[Check]:
    """The breakers that the host has not taken: each process protects by itself, and peers learn nothing."""
    known, alone = len(engine.catalogue.numbered), 0
    whose = []
    for worker in engine.workers.values():
        names = [name for name in worker.refused.values() if name]
        alone += len(names)
        if names:
            whose.append(f"{names[0]} of {worker.title}")
    if alone:
        more = f" and of {len(whose) - NAMED_MAX} more workers" if len(whose) > NAMED_MAX else ""
        first = ", ".join(whose[:NAMED_MAX])
        why = f" ({engine.catalogue.full})" if engine.catalogue.full else ""
        text = f"{known} of {BREAKERS_MAX} breakers; new ones are refused{why}, their workers decide alone"
        text = f"{text} about {_count(alone, 'breaker')}: {first}{more}"
        yield Check("supervisor:alone", "warn", text, alone)


def _refusals(facts: Facts, now: float) -> Iterator[Check]:
    """Who is turned away: a refused worker is alone for as long as nobody does something about it."""
    if not facts.refusals:
        yield Check("supervisor:refusals", "pass", value=facts.refused_hellos)
    for one in facts.refusals:
        times = "once" if one.count == 1 else f"{one.count} times in {max(0.0, now - one.first):.0f} s"
        text = f"user {one.user} is {one.kind} {times}, last pid {one.pid}: {one.text}"
        slip = one.kind == "denied" and one.count < DENIED_MANY
        yield Check("supervisor:refusals", "pass" if slip else "warn", text, one.count)


def _managed(process: ManagedProcess, now: float) -> Iterator[Check]:
    """One managed process: given up or failing is a warning; lines of its log that are lost are shown."""
    name, why = f"managed:{process.title}", warning(process)
    if why is None:
        yield Check(name, "pass", value=process.state)
    else:
        text = f"{process.title} is {process.state} since {max(0.0, now - process.since):.1f} s: it {why}"
        yield Check(name, "warn", ", ".join(filter(None, (text, description(process)))), process.state)
    if process.log_gaps:
        text = (
            f"{_count(process.log_gaps, 'line')} of its log {'is' if process.log_gaps == 1 else 'are'} lost"
        )
        yield Check(f"{name}:log", "pass", text, process.log_gaps)


def _room(catalogue: Catalogue, now: float) -> Check:
    """Whether breakers are refused, or will be soon: those that no worker has make room by themselves."""
    count, used = len(catalogue.numbered), len(catalogue.numbered) - len(catalogue.idle)
    if catalogue.full_at is not None and now - catalogue.full_at < FRESH_S:
        text = f"new breakers are refused: {catalogue.full}; {MAKE_ROOM}"
    elif used >= CROWDED * BREAKERS_MAX:
        text = f"{used} of {BREAKERS_MAX} breakers are in use"
    else:
        return Check("supervisor:breakers", "pass", value=count)
    return Check("supervisor:breakers", "warn", text, count)


def _is_critical(engine: Engine, facts: Facts, breaker: HostBreaker) -> bool:
    """Whether it fails the host while it refuses: by a table of its own, or by that of its short name.

    The table of a short name speaks for breakers with workers alone, of namespaces that the configuration
    names, and of root and the supervisor's own user: no other user makes the host fail by a name.
    """
    catalogue = engine.catalogue
    if not breaker.critical or breaker.name in catalogue.configured:
        return breaker.critical
    known = breaker.namespace in facts.namespaces or breaker.owner in (0, catalogue.own)
    return bool(breaker.shown) and (known or catalogue.own < 0)


def _breaker(engine: Engine, facts: Facts, breaker: HostBreaker, now: float) -> Iterator[Check]:
    """One breaker: its state, who is isolated from it, and whether its workers agree on its settings."""
    name, state = f"breaker:{breaker.name}", breaker.state
    if state is BreakerState.CLOSED:
        yield Check(name, "pass", value=state.name)
    elif _is_critical(engine, facts, breaker) and state in REFUSING:
        yield Check(name, "fail", _breaker_sentence(breaker, now), state.name)
    elif not breaker.shown and breaker.breaker.manual is None:
        # No call can end its state, and none is refused.
        yield Check(name, "pass", f"{_breaker_sentence(breaker, now)}; no worker has it", state.name)
    else:
        yield Check(name, "warn", _breaker_sentence(breaker, now), state.name)
    for party in breaker.breaker.isolated:
        worker = engine.workers.get(party)
        who = worker.title if worker is not None else party[:8]
        isolated = breaker.breaker.state_of(party).name
        yield Check(name, "warn", f"{breaker.name} is {isolated} for worker {who} alone", isolated)
    yield from _probe(engine, breaker, now)
    if breaker.conflicting:
        text = f"{breaker.conflicting} of the workers of {breaker.name} declare other settings"
        yield Check(name, "warn", text, "conflict")


def _breaker_sentence(breaker: HostBreaker, now: float) -> str:
    """What a breaker that is not closed does, since when and until when."""
    since = max(0.0, now - breaker.breaker.since)
    text = f"{breaker.name} is {breaker.state.name} since {since:.1f} s"
    manual = breaker.breaker.manual
    if manual is not None:
        text += f" by uid {manual.who.partition(':')[0]}"
        text += f" ({manual.reason})" if manual.reason else ""
    elif breaker.state is BreakerState.OPEN:
        text += f", trials in {max(0.0, breaker.breaker.until - now):.1f} s"
        text += " at the latest, its probe decides" if breaker.breaker.host.held(now) else ""
    return text


def _probe(engine: Engine, breaker: HostBreaker, now: float) -> Iterator[Check]:
    """What its probe said last. It waits for no other: asking for health never dials a dependency."""
    watch = engine.catalogue.watch_of(breaker)
    if watch is None:
        return
    name = f"breaker:{breaker.name}:probe"
    if watch.verdict in (FAILED, ERROR):
        how = "fails" if watch.verdict == FAILED else "could not be asked"
        yield Check(name, "warn", f"the probe of {breaker.name} {how}: {watch.text}", watch.verdict)
    elif watch.verdict and now > watch.ended + watch.rule.patience_s:
        text = f"the probe of {breaker.name} has said nothing for {now - watch.ended:.0f} s"
        yield Check(name, "warn", text, "silent")
    else:
        yield Check(name, "pass", value=watch.verdict or "not asked yet")


def nursery_hangs(facts: Facts) -> str:
    """What a silent nursery means, and what to do."""
    since = f"the nursery (pid {facts.nursery_pid}) gave no sign for {facts.nursery_silent_s:.0f} s"
    lost = "managed workers are not looked after, and a daemon that ends does not come back"
    return f"{since}: {lost}; see what stops it (kill -CONT), or restart breakerd"
