"""`breakerd demo`: arguments, signals, a temporary directory, the play, the account, the exit code.

0 = every outcome is accounted for, 1 = not, or the demo could not go on, 2 = bad arguments, 128 + the signal
that ended it. Whatever happens, no process and no file of it is left.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from types import FrameType
from typing import Final

from workers.demo.account import report
from workers.demo.acts import BREAKERD, Plan, perform
from workers.demo.lines import Lines
from workers.demo.processes import Troupe, tail
from workers.demo.screen import Screen, print_account, print_events
from workers.demo.stage import Asked, Audience, DemoFailed, Stage
from workers.demo.talk import Play
from workers.demo.talk import report as talk_report

WORKERS_MIN: Final = 2
"""One is killed, and one must go on."""
WORKERS_MAX: Final = 24
OUTAGE_MIN_S: Final = 1.0
OUTAGE_MAX_S: Final = 6.0
"""Two outages of this length still fit the 40 s of the whole."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code."""
    chosen = _parser().parse_args(arguments)
    if chosen.memory:
        with tempfile.TemporaryDirectory(prefix="breakerd-demo-", ignore_cleanup_errors=True) as directory:
            return _talk(directory, chosen.outage)
    plan = Plan(workers=chosen.workers, outage_s=chosen.outage)
    live = sys.stdout.isatty() and not chosen.plain
    audience: Audience = Screen() if live else Lines(sys.stdout)
    # Whatever the play leaves behind goes with the directory; the processes in it went before.
    with tempfile.TemporaryDirectory(prefix="breakerd-demo-", ignore_cleanup_errors=True) as directory:
        return _play(directory, plan, audience, live)


def _talk(directory: str, outage_s: float) -> int:
    """Play the memory's part in that directory."""
    try:
        with Troupe(directory) as troupe:
            play = Play(directory, troupe, outage_s)
            _listen(play)
            verdicts = play.perform()
    except Asked as asked:
        return _asked(asked)
    except DemoFailed as failed:
        print(f"breakerd demo: {failed}", file=sys.stderr)
        return 1
    print("\n" + "\n".join(talk_report(verdicts, time.monotonic() - play.began)))
    return 0 if all(one.exact for one in verdicts) else 1


def _asked(asked: Asked) -> int:
    """Say that it was stopped; the exit code."""
    name = signal.Signals(asked.number).name
    print(f"breakerd demo: {name}: stopped, nothing is left", file=sys.stderr)
    return 128 + asked.number


def _play(directory: str, plan: Plan, audience: Audience, live: bool) -> int:
    """Play in that directory and end every process before leaving."""
    try:
        with Troupe(directory) as troupe:
            stage = Stage(directory, troupe, audience)
            _listen(stage)
            try:
                account = perform(stage, plan)
            finally:
                audience.close()
                stage.close()
    except Asked as asked:
        return _asked(asked)
    except DemoFailed as failed:
        if live:
            print_events(stage.events)
        print(f"breakerd demo: {failed}", file=sys.stderr)
        return 1
    if live:
        print_events(stage.events)
        print_account(account)
    else:
        print("\n" + "\n".join(report(account)))
    if account.exact:
        return 0
    print(f"\nThe end of breakerd's log:\n{tail(f'{directory}/{BREAKERD}.log')}", file=sys.stderr)
    return 1


def _listen(stage: Stage | Play) -> None:
    """Let signals ask the stage to stop: it looks at every frame."""

    def note(number: int, _frame: FrameType | None) -> None:
        stage.signalled = number

    for number in SIGNALS:
        signal.signal(number, note)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="breakerd demo",
        description="Workers on a real database, a real outage, two kills, and an exact account of it all.",
    )
    parser.add_argument(
        "--workers", type=_workers, default=6, help=f"worker processes, {WORKERS_MIN} to {WORKERS_MAX} (6)"
    )
    parser.add_argument(
        "--outage", type=_outage, default=5.0, help=f"its seconds, {OUTAGE_MIN_S:g} to {OUTAGE_MAX_S:g} (5)"
    )
    parser.add_argument(
        "--memory", action="store_true", help="agents talk while their memory's database is killed"
    )
    parser.add_argument("--plain", action="store_true", help="print lines even on a terminal")
    return parser


def _workers(text: str) -> int:
    """The number of workers."""
    value = int(text)
    if not WORKERS_MIN <= value <= WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"must be {WORKERS_MIN} to {WORKERS_MAX}, got {value}")
    return value


def _outage(text: str) -> float:
    """The length of the outage."""
    value = float(text)
    if not OUTAGE_MIN_S <= value <= OUTAGE_MAX_S:
        raise argparse.ArgumentTypeError(f"must be {OUTAGE_MIN_S:g} to {OUTAGE_MAX_S:g} seconds, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
