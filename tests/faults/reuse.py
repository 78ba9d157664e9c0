"""A program that has a process id reused: `unshare -pf --mount-proc python -m tests.faults.reuse`.

It runs a whole house inside a PID namespace of its own, where it may choose the next process id: a worker
holds the only permit and is killed, and the next worker gets its id. What it saw it prints as one JSON
line, for the test outside to judge. Needs root.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from tests.faults.judge import judge
from tests.live.hand import Hand
from tests.live.house import House, wait_for

LAST_PID: Final = Path("/proc/sys/kernel/ns_last_pid")
TRIES: Final = 50
SETTINGS: Final[dict[str, Any]] = {
    "failure_threshold": 3, "failure_rate": None, "recovery_timeout": 0.2, "recovery_jitter": 0.0,
    "permitted_trials": 1, "successes_to_close": 1, "trial_timeout": 30.0,
}  # fmt: skip


def again(house: House, pid: int) -> Hand:
    """A worker with exactly that process id; other processes may take it first, so it is tried again."""
    for number in range(TRIES):
        LAST_PID.write_text(str(pid - 1))
        hand = house.hand(f"second{number}", wait=False)
        if hand.pid == pid:
            hand.hear("up", 20.0)
            return hand
        hand.kill()
    raise AssertionError(f"the kernel did not give {pid} again in {TRIES} tries")


def main() -> int:
    """Have an id reused, and tell what became of the first owner's attachment and permit."""
    with House().start() as house:
        first = house.hand("first")
        first.order("guard", breaker="database", **SETTINGS)
        first.order("call", breaker="database", how="fail", times=3)
        wait_for("half-open", lambda: house.breaker("database")["state"] == "HALF_OPEN", 5.0)
        first.order("hold", breaker="database", number=1)
        first.hear("inside", number=1)
        was = house.worker(first.pid)
        old = os.pidfd_open(first.pid)
        first.kill()
        second = again(house, first.pid)
        now = wait_for(
            "the second is attached",
            lambda: next((one for one in house.workers() if one["name"].startswith("second")), None),
            5.0,
        )
        try:
            os.pidfd_open(first.pid)
            alive = (
                not os.path.exists(f"/proc/self/fdinfo/{old}")
                or "Pid:\t-1" in Path(f"/proc/self/fdinfo/{old}").read_text()
            )
        finally:
            os.close(old)
        second.order("guard", breaker="database", **SETTINGS)
        free = wait_for("the permit is back", lambda: _is_free(house), 3.0)
        trial = second.order("call_until", breaker="database", result="ok")
        left = second.leave()
        judge(house)
        seen = {
            "was": was,
            "now": now,
            "old_is_dead": alive,
            "free": free,
            "trial": trial,
            "left": left,
            "workers": [one["name"] for one in house.workers()],
        }
    print(json.dumps(seen), flush=True)
    return 0


def _is_free(house: House) -> bool:
    return not house.breaker("database")["trials"]["in_flight"]


if __name__ == "__main__":
    sys.exit(main())
