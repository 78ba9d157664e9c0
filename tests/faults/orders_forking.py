"""Orders that fork in the middle of a guarded call, in every way that Python programs fork.

The parent's call goes on in two processes: the parent's is the one that counts. The child then makes
calls of its own, kept in its own ledger. Neighbours: `crew` (who obeys).
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ipc
from ipc.vocabulary import OutcomeKind
from tests.faults.body import body
from tests.faults.oracle import Ledger

if TYPE_CHECKING:
    from tests.faults.crew import Crew

CHILD_S: Final = 20.0


def fork_inside(
    crew: Crew, breaker: str, how: str = "os", early: bool = False, calls: int = 10, mine: str = "child"
) -> dict[str, Any]:
    """Fork inside a guarded call, which both processes then finish; the child makes `calls` more.

    `how` is os, libc or multiprocessing. `early`: the child attaches before it finishes the inherited
    call, so that its own ring is there to receive what it must not receive. `mine` is the breaker of the
    child's own calls.
    """
    parent = os.getpid()
    ledger = crew.ledger(breaker)
    if mine not in crew.guarded:
        crew.guard(mine, failure_threshold=None, failure_rate=None)
    children: list[Callable[[], int]] = []

    def forks() -> str:
        children.append(_ways[how](lambda: _life(crew, mine, calls, early)))
        if os.getpid() != parent:
            if early:
                ipc.connect(name="child")
            return "inherited"
        return body("ok", ledger)

    result = crew.breakers[breaker](forks)()
    if os.getpid() != parent:
        code = 1
        with contextlib.suppress(BaseException):
            code = _life(crew, mine, calls, early)
        os._exit(code)
    ledger.done(OutcomeKind.SUCCESS)
    return {"result": result, "status": children[0]()}


def _life(crew: Crew, breaker: str, calls: int, early: bool) -> int:
    """What a child does on its own; 0 = as it should be."""
    if not early:
        ipc.connect(name="child")
    ledger = Ledger(crew.options["ledgers"], breaker, "child")
    guarded = crew.breakers[breaker](body)
    for _ in range(calls):
        guarded("ok", ledger)
        ledger.done(OutcomeKind.SUCCESS)
    ledger.left()
    return 0


def _os_fork(_: Callable[[], int]) -> Callable[[], int]:
    """os.fork: the child goes on where the parent is."""
    return _waiter(os.fork())


def _libc_fork(_: Callable[[], int]) -> Callable[[], int]:
    """fork() called by C code: no Python hook runs in the child."""
    return _waiter(ctypes.PyDLL(None).fork())


def _multiprocessing(life: Callable[[], int]) -> Callable[[], int]:
    """The fork of multiprocessing: the child runs its target and never returns into the call."""
    process = multiprocessing.get_context("fork").Process(target=_exit_with, args=(life,))
    process.start()

    def wait() -> int:
        process.join(CHILD_S)
        return -1 if process.exitcode is None else process.exitcode

    return wait


def _subprocess(_: Callable[[], int]) -> Callable[[], int]:
    """A command run from inside the call: it must not even notice."""
    return lambda: subprocess.run([sys.executable, "-c", "pass"], check=False).returncode


def _exit_with(life: Callable[[], int]) -> None:
    sys.exit(life())


def _waiter(pid: int) -> Callable[[], int]:
    def wait() -> int:
        deadline = time.monotonic() + CHILD_S
        while time.monotonic() < deadline:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return status
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return -1

    return wait


_ways: Final = {
    "os": _os_fork, "libc": _libc_fork, "multiprocessing": _multiprocessing, "subprocess": _subprocess,
}  # fmt: skip

ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"fork_inside": fork_inside}
