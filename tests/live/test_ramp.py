"""A ramp that the configuration orders, in a real worker, over the death of the daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

from ipc import CircuitBreaker, CircuitOpenError, Client
from ipc.process import set_default
from ipc.vocabulary import BreakerState
from tests.conftest import could_not_run
from tests.live.house import ROOT, House, wait_for

CONFIG = """
[breakers.database]
failure_threshold = 2
recovery_timeout = 0.1
successes_to_close = 1
ramp_s = 4.0
"""
RAMP_S, PARTS = 4.0, 4
NO_SYSTEM_CALLS = """
import contextlib, ctypes, os, struct, sys, time
import ipc
from ipc.vocabulary import BreakerState

def alone():
    # From here on the kernel kills whoever does more than write(2): not even an exit is possible.
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 1), (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x80000000)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = struct.pack("HxxxxxxQ", 4, ctypes.addressof(text))
    prctl = ctypes.CDLL(None).prctl
    if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.c_char_p(program), 0, 0):
        sys.exit(3)

def down():
    raise ConnectionError

def let_in(times):
    number = 0
    for _ in range(times):
        try:
            breaker.call(int)
        except ipc.CircuitOpenError:
            pass
        else:
            number += 1
    return number

if sys.argv[1] == "the clock":
    alone()
    times = [time.monotonic() for _ in range(1000)]
    os.write(1, b"read")
    os._exit(0)
breaker = ipc.CircuitBreaker("database")
assert ipc.connect(name="still")
while not breaker.state.is_open:
    with contextlib.suppress(ConnectionError, ipc.CircuitOpenError):
        breaker.call(down)
while breaker.state.value is not BreakerState.CLOSED:
    let_in(1)
    time.sleep(0.001)
let_in(500)
alone()
os.write(1, str(let_in(2000)).encode())
os._exit(0)
"""


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


def still(house: House, what: str) -> str:
    """What a program said that was killed at its first system call after that but for writing."""
    line = [sys.executable, "-c", NO_SYSTEM_CALLS, what]
    ran = subprocess.run(
        line, env=house.surroundings(), cwd=ROOT, capture_output=True, text=True, timeout=30.0, check=False
    )
    if ran.returncode == 3:
        could_not_run("ramp-without-system-calls", "no filter of system calls here")
    assert ran.returncode == -signal.SIGSYS, ran.stderr
    return ran.stdout


def test_a_ramp_lets_in_and_refuses_without_a_system_call(build: Callable[..., House]) -> None:
    """Of 2,000 calls at the beginning of a long ramp about a tenth is let in; the kernel sees none of it."""
    if os.uname().machine != "x86_64":
        could_not_run("ramp-without-system-calls", "the numbers of system calls are those of x86_64")
    house = build(CONFIG.replace("ramp_s = 4.0", "ramp_s = 3600.0")).start()
    if still(house, "the clock") != "read":
        could_not_run("ramp-without-system-calls", "reading the clock is one here")
    assert 150 < int(still(house, "a ramp") or "0") < 260
    wait_for("the refused are counted", lambda: house.stats()["totals"]["ramped"] > 2000, 5.0)
