"""What one decorated no-op costs in one thread: attached to a running supervisor, against its rivals.

All rivals take turns in one process, a few hundred calls each, and a figure is the median of the ratios
of single rounds, so that the machine's speed and mood cancel out. Neighbours: `threads`, `startup`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import circuitbreaker
import interlock
import pybreaker

import ipc
from benchmarks.figures import Figure, main
from benchmarks.supervised import supervisor

CALLS: Final = 200
"""Calls of one rival in one round."""
ROUNDS: Final = 250
SLOW: Final = ("pybreaker", "interlock-cb")
"""Rivals that need not run in every round."""
PAUSE_S: Final = 0.0005
"""Between two rounds of failing calls the daemon catches up: it shall be awake, not run over."""
NEVER: Final = 10**9

Function = Callable[..., Any]
Run = Callable[[Function, int], float]


class Down(ConnectionError):
    """The dependency is down."""


def succeed() -> None:
    """The dependency: nothing at all."""


def fail() -> None:
    """The dependency, down."""
    raise Down


async def succeed_async() -> None:
    """The dependency: nothing at all."""


async def fail_async() -> None:
    """The dependency, down."""
    raise Down


def bare(function: Function) -> Function:
    """The least that a decorator can cost."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


def bare_async(function: Function) -> Function:
    """The same for a coroutine function."""

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapped


def run(function: Function, calls: int) -> float:
    """Seconds for so many calls that succeed."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def run_failing(function: Function, calls: int) -> float:
    """Seconds for so many calls that raise."""
    start = time.perf_counter()
    for _ in range(calls):
        try:
            function()
        except Exception:  # whatever a library raises for a failing or refused call is what is timed
            pass
    return time.perf_counter() - start


async def _await(function: Function, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        await function()
    return time.perf_counter() - start


async def _await_failing(function: Function, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        try:
            await function()
        except Exception:  # whatever a library raises for a failing or refused call is what is timed
            pass
    return time.perf_counter() - start


def on(loop: asyncio.AbstractEventLoop, work: Callable[[Function, int], Coroutine[Any, Any, float]]) -> Run:
    """Run coroutines of the rivals on one loop."""
    return lambda function, calls: loop.run_until_complete(work(function, calls))


def opened(guarded: Function, run_one: Run) -> Function:
    """A rival's function whose breaker was opened by one failure."""
    run_one(guarded, 1)
    return guarded


def compare(
    what: str, target: float, rivals: dict[str, Function], run_one: Run, pause_s: float = 0.0
) -> Figure:
    """One row: ours against circuitbreaker's, with the others beside it."""
    took: dict[str, list[float]] = {name: [] for name in rivals}
    for guarded in rivals.values():
        run_one(guarded, CALLS)
    gc.collect()
    for number in range(ROUNDS):
        for name, guarded in rivals.items():
            if name not in SLOW or not number % 10:
                took[name].append(run_one(guarded, CALLS))
        if pause_s:
            time.sleep(pause_s)
    ratio = statistics.median(map(_share, took["breakerd"], took["circuitbreaker"]))
    middle = {name: statistics.median(times) / CALLS * 1e9 for name, times in took.items()}
    beside = [f"{middle['breakerd'] / middle['bare']:.1f} x a bare wrapper"]
    beside += [f"{middle['breakerd'] / middle[name]:.2f} x {name}" for name in SLOW if name in rivals]
    return Figure(
        what,
        f"{middle['breakerd']:.0f} ns",
        f"**{ratio:.2f} x circuitbreaker** ({', '.join(beside)})",
        f"<= {target:g} x circuitbreaker",
        ratio <= target,
    )


def _share(ours: float, theirs: float) -> float:
    return ours / theirs


def _sync() -> list[Figure]:
    """The rows of plain functions."""
    never = ipc.CircuitBreaker("calls", failure_threshold=None, failure_rate=None)
    shut = ipc.CircuitBreaker("shut", failure_threshold=None, failure_rate=None)
    shut.force_open(reason="benchmark")
    patient = circuitbreaker.CircuitBreaker(failure_threshold=NEVER)
    once = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=NEVER)
    succeeding = {
        "bare": bare(succeed),
        "circuitbreaker": patient(succeed),
        "breakerd": never(succeed),
        "pybreaker": pybreaker.CircuitBreaker()(succeed),
        "interlock-cb": interlock.CircuitBreaker(name="calls")(succeed),
    }
    failing = {"bare": bare(fail), "circuitbreaker": patient(fail), "breakerd": never(fail)}
    failing["pybreaker"] = pybreaker.CircuitBreaker(fail_max=NEVER)(fail)
    refused = {"bare": bare(fail), "circuitbreaker": opened(once(fail), run_failing), "breakerd": shut(fail)}
    refused["pybreaker"] = opened(
        pybreaker.CircuitBreaker(fail_max=1, reset_timeout=NEVER)(fail), run_failing
    )
    return [
        compare("decorated call, closed, success", 0.85, succeeding, run),
        compare("decorated call, failing", 1.0, failing, run_failing, PAUSE_S),
        compare("decorated call, refused", 1.0, refused, run_failing),
    ]


def _async() -> list[Figure]:
    """The rows of coroutine functions."""
    never = ipc.CircuitBreaker("calls", failure_threshold=None, failure_rate=None)
    shut = ipc.CircuitBreaker("shut", failure_threshold=None, failure_rate=None)
    patient = circuitbreaker.CircuitBreaker(failure_threshold=NEVER)
    once = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=NEVER)
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        good, bad = on(loop, _await), on(loop, _await_failing)
        succeeding = {
            "bare": bare_async(succeed_async),
            "circuitbreaker": patient(succeed_async),
            "breakerd": never(succeed_async),
        }
        failing = {
            "bare": bare_async(fail_async),
            "circuitbreaker": patient(fail_async),
            "breakerd": never(fail_async),
        }
        refused = {
            "bare": bare_async(fail_async),
            "circuitbreaker": opened(once(fail_async), bad),
            "breakerd": shut(fail_async),
        }
        return [
            compare("the same, async, success", 1.0, succeeding, good),
            compare("the same, async, failing", 1.0, failing, bad, PAUSE_S),
            compare("the same, async, refused", 1.0, refused, bad),
        ]


def measure() -> list[Figure]:
    """Six rows: success, failure and refusal, sync and async."""
    with supervisor() as running:
        if not ipc.connect(running.socket, name="calls"):
            raise RuntimeError("not attached")
        run(ipc.CircuitBreaker("calls", failure_threshold=None, failure_rate=None)(succeed), 1)
        time.sleep(0.5)  # the quick path opens a quarter of a second after attaching
        return _sync() + _async()


if __name__ == "__main__":
    sys.exit(main(measure))
