"""A ramp that the configuration orders, in a real worker, over the death of the daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

from ipc import CircuitBreaker, CircuitOpenError, Client
from ipc.process import set_default
from ipc.vocabulary import BreakerState
from tests.live.house import House, wait_for

CONFIG = """
[breakers.database]
failure_threshold = 2
recovery_timeout = 0.1
successes_to_close = 1
ramp_s = 4.0
"""
RAMP_S, PARTS = 4.0, 4


def refused(breaker: CircuitBreaker) -> bool:
    """One call; was it refused by a ramp?"""
    try:
        breaker.call(int)
    except CircuitOpenError as refusal:
        return refusal.state is BreakerState.CLOSED
    return False


def fail() -> None:
    """The dependency is down."""
    raise ConnectionError


def recover(breaker: CircuitBreaker) -> int:
    """Open it, and let calls try it until it is closed; how many of them its ramp has refused already."""
    while not breaker.state.is_open:
        with contextlib.suppress(ConnectionError, CircuitOpenError):
            breaker.call(fail)
    wait_for("half-open", lambda: breaker.state.value is BreakerState.HALF_OPEN, 5.0)
    ramped = 0
    while breaker.state.value is not BreakerState.CLOSED:
        ramped += refused(breaker)
    return ramped


def test_a_ramp_goes_on_over_the_death_of_the_daemon(build: Callable[..., House]) -> None:
    """The worker, which declared none, lets in more and more; each call that was not is counted once."""
    house = build(CONFIG).start()
    client = Client(house.socket, name="ramp")
    before = set_default(client)
    try:
        breaker = CircuitBreaker("database")
        assert client.connect()
        refused(breaker)
        wait_for("the configuration", lambda: house.breaker("database")["settings"]["ramp_s"] == 4.0, 5.0)
        early = recover(breaker)
        began, daemon, killed = time.monotonic(), house.daemon_pid, False
        assert 3.0 < house.breaker("database")["ramp"]["ends_in_s"] <= 4.0
        tried, turned_down = Counter[int](), Counter[int]()
        while (part := int((time.monotonic() - began) * PARTS / RAMP_S)) <= PARTS:
            if part == 1 and not killed:
                os.kill(daemon, signal.SIGKILL)
                killed = True
            tried[part] += 1
            turned_down[part] += refused(breaker)
            time.sleep(0.001)
        wait_for("the end of the ramp", lambda: house.breaker("database")["ramp"] is None, 5.0)
        assert tried[PARTS] > 20
        assert not any(refused(breaker) for _ in range(200))
        for part in range(PARTS):
            let_in = 1.0 - turned_down[part] / tried[part]
            middle = 0.1 + 0.9 * (part + 0.5) / PARTS
            assert abs(let_in - middle) < 0.12, (part, let_in, tried[part])
        assert house.incarnation == 2
        total = early + sum(turned_down.values())
        wait_for("all of them", lambda: house.stats()["totals"]["ramped"] >= total, 5.0)
        assert house.breaker("database")["ramped_total"] == house.stats()["totals"]["ramped"] == total
    finally:
        set_default(before)
        client.close()
