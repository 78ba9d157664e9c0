"""One worker of the demo: `python -m workers.demo.crew PARENT NUMBER DATABASE LEDGER CUES`.

It inserts and queries all the time, each call guarded by the breaker `database`. BREAKERD_SOCKET decides
whose breaker that is: `off` = its own, in this process; a path = the host's. Nothing else differs between
the two runs. It leaves when the cue says stop; a kill -9 leaves its ledger behind.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from typing import Final

from sqlalchemy.exc import OperationalError

import ipc
from ipc import control
from workers.demo.leash import tie
from workers.demo.ledger import Cues, Ledger, Phase
from workers.demo.shop import Shop

PACE_S: Final = 0.01
"""Mean pause between two calls of one worker; each pause is drawn from half to one and a half of it."""
INSERTS: Final = 0.4
"""Share of the calls that write."""

SETTINGS: Final = ipc.BreakerSettings(
    failure_threshold=5,
    recovery_timeout=0.8,
    recovery_growth=1.5,
    recovery_timeout_max=1.5,
    trial_timeout=2.0,
)
"""Opening times of a demo, not of a production system: an outage here lasts seconds."""


class Worker:
    """The calls of one worker, written down in its ledger."""

    def __init__(self, number: int, shop: Shop, ledger: Ledger, cues: Cues) -> None:
        self._number = number
        self._shop = shop
        self._ledger = ledger
        self._cues = cues
        self._random = random.Random(number)
        self._breaker = ipc.CircuitBreaker(
            "database",
            failure_threshold=SETTINGS.failure_threshold,
            recovery_timeout=SETTINGS.recovery_timeout,
            recovery_growth=SETTINGS.recovery_growth,
            recovery_timeout_max=SETTINGS.recovery_timeout_max,
            trial_timeout=SETTINGS.trial_timeout,
            expected_exception=(OperationalError,),
        )
        self._guarded = self._breaker(self._call)

    def _call(self, body: str) -> None:
        """What the breaker guards. The ledger is written before the outcome can reach the ring."""
        try:
            if self._random.random() < INSERTS:
                self._shop.insert(self._number, body)
            else:
                self._shop.query(self._number)
        except OperationalError:
            self._ledger.issue_failure()
            raise
        self._ledger.issue_success()

    def step(self, body: str) -> None:
        """One guarded call and what came of it."""
        began = time.monotonic_ns()
        try:
            self._guarded(body)
        except ipc.CircuitOpenError:
            self._ledger.refused(time.monotonic_ns())
        except OperationalError:
            now = time.monotonic_ns()
            self._ledger.failed(now, now - began, self._cues.locked_ns != 0)
        else:
            self._ledger.succeeded(time.monotonic_ns())
        self._ledger.saw(self._breaker.state.value)

    def run(self) -> None:
        """Call until the cue to stop."""
        self._ledger.enter(Phase.WORKING)
        number = 0
        while not self._cues.stop:
            number += 1
            self.step(f"note {number} of agent {self._number}")
            time.sleep(PACE_S * (0.5 + self._random.random()))
        self._ledger.enter(Phase.STOPPED)


def main(arguments: list[str]) -> None:
    """Be one worker, from attaching to leaving."""
    parent, number, database, ledger_path, cues_path = arguments
    # Ctrl-C is the demo's to handle: it ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tie(int(parent))
    cues, ledger, shop = Cues(cues_path), Ledger(ledger_path), Shop(database)
    if not ipc.connect(name=f"agent-{number}") and control.socket_path() is not None:
        # What a worker does before it is attached nobody counts: the account could not be exact.
        sys.exit(f"worker {number} could not attach to the supervisor")
    Worker(int(number), shop, ledger, cues).run()
    shop.close()
    ledger.close()
    cues.close()


if __name__ == "__main__":
    main(sys.argv[1:])
