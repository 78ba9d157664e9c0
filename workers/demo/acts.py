"""The play: the same outage twice, with a breaker in each process and with one for the host, then two kills.

Every figure comes from the ledgers or from the supervisor's own answers, none from when a frame was drawn.
Neighbours: `stage` (waiting and showing), `account` (what the figures become).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import ipc
from workers.demo.account import (
    Account,
    Kills,
    OutageFigures,
    is_back,
    lost,
    outage_figures,
    stuck,
    summary,
    tally,
)
from workers.demo.ledger import Counts, Cues, Phase
from workers.demo.processes import Running, environment
from workers.demo.scene import ACTS
from workers.demo.shop import Shop
from workers.demo.stage import DemoFailed, Member, Stage, fell
from workers.demo.tap import Tap

EXPECTED_S: Final = 13.0
"""What it takes beside the outages, on an ordinary machine."""
BREAKERD: Final = "breakerd"
"""What the supervisor's process is called, and its log file."""
ALONE: Final = 0
TOGETHER: Final = 1
START_LIMIT_S: Final = 12.0
STEADY_S: Final = 1.5
LOCK_LIMIT_S: Final = 6.0
RECOVERY_LIMIT_S: Final = 8.0
CALM_S: Final = 0.4
"""Nobody was refused for this long: everybody is back."""
AFTER_KILL_S: Final = 1.2
RESTART_LIMIT_S: Final = 8.0
STOP_LIMIT_S: Final = 4.0
FOLD_LIMIT_S: Final = 5.0
"""How long the supervisor may take to fold the last ring of the last worker."""
QUICK_FRAME_S: Final = 0.02
ANSWER_S: Final = 0.2
"""How long a question may hold up a frame."""
STATS_S: Final = 5.0
VICTIM: Final = 2
"""The worker that is killed; the demo has at least two."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user chose."""

    workers: int
    outage_s: float


def perform(stage: Stage, plan: Plan) -> Account:
    """Play it all. Raises DemoFailed and Asked."""
    stage.expected_s = EXPECTED_S + len(ACTS) * plan.outage_s
    alone = _alone(stage, plan)
    path = _supervise(stage)
    together = _outage(stage, plan, TOGETHER, {"BREAKERD_SOCKET": path})
    kills, killed = _kills(stage, path)
    stage.play(STEADY_S)
    left = _stop(stage)
    answer = _counted(stage, path)
    tallies, refused = tally(left, killed, answer)
    stage.dismiss()
    return Account(
        workers=plan.workers,
        outage_s=plan.outage_s,
        alone=alone,
        together=together,
        kills=kills,
        tallies=tallies,
        refused=refused,
        lost=lost(answer),
        stuck=stuck(left),
        took_s=stage.elapsed(),
    )


def _alone(stage: Stage, plan: Plan) -> OutageFigures:
    """The first act: nobody knows what the others know."""
    figures = _outage(stage, plan, ALONE, {"BREAKERD_SOCKET": "off"})
    stage.result = summary(figures)
    _stop(stage)
    stage.dismiss()
    return figures


def _supervise(stage: Stage) -> str:
    """Start breakerd in a place of its own; its socket, once it is ready."""
    stage.act = TOGETHER
    stage.enter("starting breakerd")
    runtime, state, config = (f"{stage.directory}/{name}" for name in ("run", "state", "breakerd.toml"))
    with open(config, "w", encoding="utf-8") as file:
        file.write("# The demo runs on defaults, whatever this machine has in /etc.\n")
    arguments = ["--config", config, "--runtime-dir", runtime, "--state-dir", state]
    leash = ["-m", "workers.demo.leash", str(os.getpid()), "supervisor.main", "run", *arguments]
    stage.troupe.start(BREAKERD, leash, {})
    path = f"{runtime}/breakerd.sock"
    stage.until(lambda: _ready(path), START_LIMIT_S, "breakerd is ready")
    stage.tap = Tap(path)
    return path


def _ready(path: str) -> bool:
    """Whether the supervisor at `path` says that it is ready."""
    try:
        return bool(ipc.query_health("ready", socket=path, timeout=ANSWER_S)["status"] != "fail")
    except ipc.ControlError:
        return False


def _outage(stage: Stage, plan: Plan, act: int, environ: dict[str, str]) -> OutageFigures:
    """Put a crew to work, take the database away for a while, and wait until everybody is back."""
    database = f"{stage.directory}/act-{act}.db"
    shop = Shop(database)
    shop.create()
    shop.close()
    stage.assemble(act, plan.workers, environ)
    stage.enter("workers start")
    stage.until(
        _all(stage, lambda one: one.phase is Phase.WORKING and one.done_success > 0),
        START_LIMIT_S,
        "workers work",
    )
    stage.enter("all is well")
    stage.play(STEADY_S)
    cues = _cues(stage)
    stage.enter("outage")
    arguments = [
        "-m",
        "workers.demo.outage",
        str(os.getpid()),
        database,
        f"{stage.place}/cues",
        f"{plan.outage_s:g}",
    ]
    outage = stage.troupe.start(f"act-{act}-outage", arguments, {})
    stage.until(lambda: cues.locked_ns > 0, LOCK_LIMIT_S, "another process locks the database")
    stage.say(f"process {outage.pid} took the exclusive lock of the database")
    # From here on its end is what the play waits for; a failure shows as a lock that is never released.
    outage.ends = True
    stage.until(
        lambda: _released(cues, outage), plan.outage_s + LOCK_LIMIT_S, "the outage ends", QUICK_FRAME_S
    )
    stage.say("the database is free again")
    stage.enter("recovery")
    stage.until(lambda: _recovered(stage, cues), RECOVERY_LIMIT_S, "every worker is back")
    stage.say("every worker reaches the database again")
    figures = outage_figures(stage.counts(), cues.released_ns)
    stage.say(f"{ACTS[act]}: {summary(figures)}")
    return figures


def _cues(stage: Stage) -> Cues:
    """The cues of the act on the stage."""
    if stage.cues is None:
        raise DemoFailed("there is no crew on the stage")
    return stage.cues


def _all(stage: Stage, condition: Callable[[Counts], bool]) -> Callable[[], bool]:
    """Whether every ledger fulfils the condition."""
    return lambda: all(condition(one) for one in stage.counts())


def _released(cues: Cues, outage: Running) -> bool:
    """Whether the outage is over. Raises DemoFailed when it ended by an accident."""
    if cues.released_ns:
        return True
    if outage.code is not None and not cues.released_ns:
        raise fell(outage)
    return False


def _recovered(stage: Stage, cues: Cues) -> bool:
    """Whether everybody reaches the database and nobody was refused lately."""
    calm = time.monotonic_ns() - int(CALM_S * 1e9)
    return all(is_back(one, cues.released_ns) and one.last_refusal < calm for one in stage.counts())


def _kills(stage: Stage, path: str) -> tuple[Kills, Counts]:
    """Send kill -9 to one worker at work, then to the daemon; what was killed, and the worker's ledger."""
    tap = stage.tap
    if tap is None:
        raise DemoFailed("there is no supervisor")
    stage.until(
        lambda: tap.answers and tap.daemon_pid > 0, RESTART_LIMIT_S, "the supervisor names its daemon"
    )
    stage.enter("kill -9 of a worker")
    victim = next(member for member in stage.members if member.number == VICTIM)
    _kill(victim)
    stage.say(f"kill -9 of worker {victim.number} (pid {victim.running.pid}) in the middle of its work")
    stage.play(AFTER_KILL_S)
    killed = victim.ledger.read()
    daemon = tap.daemon_pid
    stage.enter("kill -9 of the daemon")
    # The daemon is a process that this demo started (by way of its nursery), named by the supervisor itself.
    os.kill(daemon, 9)
    died = time.monotonic()
    stage.say(f"kill -9 of the daemon (pid {daemon}); the workers go on")
    tap.answers = False
    stage.until(lambda: _ready(path), RESTART_LIMIT_S, "the daemon is back", QUICK_FRAME_S)
    back_s = time.monotonic() - died
    stage.until(
        lambda: tap.answers and tap.daemon_pid not in (0, daemon), RESTART_LIMIT_S, "a new daemon answers"
    )
    stage.say(f"a new daemon (pid {tap.daemon_pid}) answered after {back_s:.2f} s")
    return Kills(victim.number, victim.running.pid, daemon, tap.daemon_pid, back_s), killed


def _kill(victim: Member) -> None:
    """Send kill -9, and wait until the kernel has taken it: its ledger does not change any more."""
    victim.running.kill()
    victim.running.process.wait()
    victim.killed = True


def _stop(stage: Stage) -> list[Counts]:
    """Every living worker ends its last call and leaves; what their ledgers say then."""
    stage.enter("workers leave")
    left = [member for member in stage.members if not member.killed]
    for member in left:
        member.running.ends = True
    _cues(stage).say_stop()
    stage.until(lambda: all(one.running.code is not None for one in left), STOP_LIMIT_S, "workers leave")
    for member in left:
        if member.running.code != 0:
            raise fell(member.running)
    return [member.ledger.read() for member in left]


def _counted(stage: Stage, path: str) -> dict[str, Any]:
    """What `supervisorctl stats --json` says once the supervisor has folded every worker that left."""
    stage.enter("the account")
    deadline = time.monotonic() + FOLD_LIMIT_S
    answer = _stats(path)
    while answer["supervisor"]["workers"] and time.monotonic() < deadline:
        stage.frame()
        answer = _stats(path)
    return answer


def _stats(path: str) -> dict[str, Any]:
    """The answer of `supervisorctl stats --json`, asked as an operator would. Raises DemoFailed."""
    command = [sys.executable, "-P", "-m", "supervisor.ctl.main", "stats", "--json", "--socket", path]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=STATS_S, env=environment({}))
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise DemoFailed(f"supervisorctl stats --json did not answer: {error}") from error
    return answer
