"""A program under gevent's monkey patches: greenlets instead of threads, around one guarded function."""

from __future__ import annotations

import sys

if sys.argv[1] == "patched-first":
    from gevent import monkey

    monkey.patch_all()

import ipc

if sys.argv[1] == "patched-last":
    from gevent import monkey

    monkey.patch_all()

import json
import os
import time

import gevent

CALLS = 300
breaker = ipc.CircuitBreaker("database", failure_threshold=None, failure_rate=None)


@breaker
def query() -> None:
    """The dependency: it waits, and other greenlets run meanwhile."""
    time.sleep(0.001)


def block() -> None:
    """The same, as a block."""
    with breaker:
        time.sleep(0.001)


if __name__ == "__main__":
    greenlets = [gevent.spawn(query if number % 2 else block) for number in range(CALLS)]
    gevent.joinall(greenlets, raise_error=True)
    print(json.dumps({"calls": CALLS, "pids": [os.getpid()]}), flush=True)
    sys.stdin.read()
