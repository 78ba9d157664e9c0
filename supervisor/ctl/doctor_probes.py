"""The part of `doctor` that asks the dependencies: each probe once, and whether PostgreSQL takes all pools.

It is the supervisor's probers that ask, with what they have at hand: what they cannot reach, their probes
cannot reach either. Neighbours: `doctor`, `probing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from ipc.errors import BreakerdError, ControlDenied, ControlRefused
from supervisor.ctl.ask import Asker
from supervisor.ctl.finding import Finding

PROBES_MAX: Final = 20
"""Probes that are asked; the others are named."""
BESIDE_S: Final = 30.0
"""How long a probe is waited for beside its own time: for a free prober, and for its drivers."""


def dependencies(asker: Asker) -> Iterator[Finding]:
    """Every probe of the configuration in force, asked once, one after the other."""
    try:
        config = asker.look("config")["config"]
        tables = {name: table["probe"] for name, table in config["breakers"].items() if table.get("probe")}
    except (BreakerdError, LookupError, TypeError, AttributeError):
        return  # older, or gone meanwhile: the others have told
    for name, table in list(tables.items())[:PROBES_MAX]:
        try:
            answer = replace(asker, timeout_s=float(table["timeout_s"]) + BESIDE_S).command(
                "probe", name=name
            )
        except ControlDenied as error:
            action = "run doctor as root, or as one of [control] commanders"
            yield Finding("probe", "warn", f"the probes were not asked: {error}", action)
            return
        except BreakerdError as error:
            yield Finding("probe", "warn", f"{name}: {error}", _not_answered(error))
        else:
            yield probed(name, answer)
            yield from pools(name, config, answer["details"])
    if len(tables) > PROBES_MAX:
        left = ", ".join(list(tables)[PROBES_MAX:])
        yield Finding("probe", "warn", f"not asked, too many: {left}", "ask them: supervisorctl probe NAME")


def _not_answered(error: BreakerdError) -> str:
    if isinstance(error, ControlRefused) and error.code == "busy":
        return "see whether the probers run: supervisorctl status; more of them: [supervisor] probe_processes"
    return "see: supervisorctl status"


def probed(name: str, answer: Any) -> Finding:
    """What came back, and where to look."""
    text = f"{name}: {answer['verdict']} after {answer['took_s']:.3g} s: {answer['text']}"
    if answer["verdict"] == "passed":
        return Finding("probe", "pass", text)
    if answer["verdict"] == "failed":
        action = (
            f"see to what stands behind {name}; if it is well, to [breakers.{name}.probe] and the network"
        )
        return Finding("probe", "warn", text, action)
    action = f"mend [breakers.{name}.probe]: its URL, its password, its driver; until then it decides nothing"
    return Finding("probe", "warn", text, action)


def pools(name: str, config: Any, details: Any) -> Iterator[Finding]:
    """Whether the connections that managed workers and probers may open fit into the database's limit."""
    most = details.get("max_connections")
    if most is None:
        return
    shares = [(worker, table["count"] * table["pool_max"]) for worker, table in config["workers"].items()]
    probers = config["supervisor"]["probe_processes"]
    total = sum(share for _, share in shares) + probers
    made = [f"{worker} {share}" for worker, share in shares if share] + [f"probers {probers}"]
    text = f"{name}: managed processes may open {total} connections ({', '.join(made)})"
    text += f", the server lets {most} in and has {details.get('connections', 0)}"
    silent = [worker for worker, share in shares if not share]
    if total > most:
        action = "lower count or pool_max in [workers.*], raise max_connections, or put a pooler in front"
        yield Finding("pools", "warn", text, action)
    elif silent:
        action = (
            f"say pool_max in [workers.{silent[0]}], so that it is counted; for none: it opens no connection"
        )
        yield Finding("pools", "pass", f"{text}; not told: {', '.join(silent)}", action)
    else:
        yield Finding("pools", "pass", text)
