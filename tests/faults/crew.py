"""An obedient worker process: `python -m tests.faults.crew OPTIONS`, then one JSON order per line of stdin.

It is an ordinary user of `ipc` with guarded functions, whose calls succeed, fail or hang as they are told;
what it issues it keeps in ledgers. Each order is a method or a function of a row in `ORDERS`; its answer is
one JSON line. Neighbours: `tests.live.hand` (the other end), `oracle` (the ledgers), `orders_*` (the
orders that do one fault's work). Options: name, namespace, ledgers, connect, uid, groups, count_connects.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import ipc
from ipc.vocabulary import OutcomeKind, window_from_json
from tests.faults import (
    orders_forking,
    orders_holes,
    orders_lives,
    orders_modes,
    orders_permits,
    orders_swarm,
    orders_sweeps,
)
from tests.faults.body import RAISES, Broken, Strange, body
from tests.faults.oracle import Ledger

clock = time.monotonic
log = logging.getLogger("crew")
CATCH_UP_MAX: Final = 2000
"""Calls that a load which fell behind makes up for at most."""
HOLD_S: Final = 5.0
"""How long a call that is to be held may be refused before it is given up."""
SLOW_S: Final = 0.005
MORE_ORDERS: Final = (
    orders_forking, orders_holes, orders_lives, orders_modes, orders_permits, orders_sweeps, orders_swarm,
)  # fmt: skip


class Crew:
    """Everything the worker has: its guarded functions, its ledgers, its threads."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.breakers: dict[str, ipc.CircuitBreaker] = {}
        self.guarded: dict[str, Callable[..., Any]] = {}
        self.held: dict[int, Held] = {}
        self.loads: list[Load] = []
        self.connects = 0
        self._ledgers: dict[tuple[str, int], Ledger] = {}
        self._out = threading.Lock()

    def say(self, said: str, **facts: Any) -> None:
        """One line to the test."""
        line = json.dumps({"said": said, **facts}) + "\n"
        with self._out:
            os.write(1, line.encode())

    def ledger(self, breaker: str) -> Ledger:
        """This thread's ledger of that breaker."""
        key = (breaker, threading.get_ident())
        if key not in self._ledgers:
            label = f"{self.options['name']}.{threading.get_native_id()}.{len(self._ledgers)}"
            self._ledgers[key] = Ledger(self.options["ledgers"], breaker, label)
        return self._ledgers[key]

    def close_ledgers(self) -> None:
        """Nothing is in flight any more."""
        for ledger in self._ledgers.values():
            ledger.left()

    def guard(self, breaker: str, **settings: Any) -> dict[str, Any]:
        """Make a guarded function of the breaker with that name."""
        if "window" in settings:
            settings["window"] = window_from_json(settings["window"])
        made = ipc.CircuitBreaker(breaker, expected_exception=(Broken,), **settings)
        self.breakers[breaker] = made
        self.guarded[breaker] = made(body)
        return {}

    def guard_many(self, breaker: str, count: int, **settings: Any) -> dict[str, Any]:
        """Make that many breakers, `BREAKER.N`, and call each once."""
        for number in range(count):
            self.guard(f"{breaker}.{number}", **settings)
            self.call_once(f"{breaker}.{number}", "ok")
        return {}

    def call_once(self, breaker: str, how: str) -> str:
        """One guarded call: `ok`, what it raised, or `refused`; the done mark is set after it."""
        ledger = self.ledger(breaker)
        raised, kind = RAISES[how]
        result = "ok"
        try:
            self.guarded[breaker](how, ledger)
        except ipc.CircuitOpenError:
            ledger.refused()
            return "refused"
        except BaseException as error:
            if type(error) is not raised:
                raise AssertionError(f"{error!r} came out, {raised} was raised") from error
            result = how
        ledger.done(kind)
        return result

    def call(self, breaker: str, how: str = "ok", times: int = 1, pause_s: float = 0.0) -> dict[str, Any]:
        """Guarded calls one after the other: how many ended how, and the slowest one's seconds."""
        ended: dict[str, int] = {"ok": 0, "refused": 0}
        slowest = 0.0
        for _ in range(times):
            start = clock()
            result = self.call_once(breaker, how)
            slowest = max(slowest, clock() - start)
            ended[result] = ended.get(result, 0) + 1
            if pause_s:
                time.sleep(pause_s)
        return {**ended, "slowest_s": slowest, "at": clock()}

    def call_until(self, breaker: str, result: str, how: str = "ok", seconds: float = 10.0) -> dict[str, Any]:
        """Guarded calls every 2 ms until one ends with `result`; how many it took, and when it was."""
        deadline = clock() + seconds
        made = 0
        while True:
            made += 1
            if self.call_once(breaker, how) == result:
                return {"made": made, "at": clock()}
            if clock() > deadline:
                raise TimeoutError(f"{breaker}: no {result} in {made} calls")
            time.sleep(0.002)

    def hold(self, breaker: str, number: int) -> dict[str, Any]:
        """Start a guarded call in a thread, which stays inside until it is released."""
        self.held[number] = Held(self, breaker, number)
        return {}

    def release(self, number: int, how: str = "ok") -> dict[str, Any]:
        """Let the held call end as told; says `finished` with its result."""
        self.held.pop(number).end(how)
        return {}

    def state(self, breaker: str) -> dict[str, Any]:
        """The live view of the breaker."""
        view = self.breakers[breaker].state
        return {
            "value": view.value.name,
            "is_open": view.is_open,
            "failure_count": view.failure_count,
            "generation": view.generation,
            "retry_after_s": view.retry_after_s,
        }

    def command(self, breaker: str, verb: str, **fields: Any) -> dict[str, Any]:
        """Call the breaker's method of that name; an error is its class and text."""
        start = clock()
        try:
            getattr(self.breakers[breaker], verb)(**fields)
        except ipc.ControlError as error:
            return {"error": type(error).__name__, "text": str(error), "took_s": clock() - start}
        return {"error": None, "took_s": clock() - start}

    def connect(self) -> dict[str, Any]:
        """Attach now."""
        named = {key: self.options[key] for key in ("name", "namespace") if self.options.get(key)}
        ipc.connect(**named)
        return {"at": clock()}

    def load(self, breaker: str, threads: int = 1, **how: Any) -> dict[str, Any]:
        """Start threads that call all the time, each its own breaker `BREAKER.N` unless `shared`."""
        settings = how.pop("settings", {"failure_threshold": None, "failure_rate": None})
        shared = how.pop("shared", False)
        for number in range(threads):
            name = breaker if shared else f"{breaker}.{number}"
            if name not in self.guarded:
                self.guard(name, **settings)
            self.loads.append(Load(self, name, **how))
        return {"at": clock()}

    def unload(self) -> dict[str, Any]:
        """End the load; what its threads did together."""
        for load in self.loads:
            load.stop.set()
        for load in self.loads:
            load.thread.join(10.0)
        total = {
            "calls": sum(load.calls for load in self.loads),
            "refused": sum(load.refused for load in self.loads),
            "slow": sum(load.slow for load in self.loads),
            "slowest_s": max((load.slowest_s for load in self.loads), default=0.0),
            "failed": [load.error for load in self.loads if load.error],
        }
        self.loads.clear()
        return total

    def attempts(self) -> dict[str, Any]:
        """How often this process has called connect() so far (with the option `count_connects`)."""
        return {"connects": self.connects}

    def count_connects(self) -> None:
        """From now on count every connect() of this process."""

        def heard(event: str, _: Any) -> None:
            if event == "socket.connect":
                self.connects += 1

        sys.addaudithook(heard)


class Held:
    """One guarded call in its own thread that stays inside the guard until it is told how to end."""

    def __init__(self, crew: Crew, breaker: str, number: int) -> None:
        self._crew, self._breaker, self._number = crew, breaker, number
        self._how = "ok"
        self._told = threading.Event()
        self._function = crew.breakers[breaker](self._inside)
        threading.Thread(target=self._run, daemon=True).start()

    def _inside(self, ledger: Ledger) -> str:
        self._crew.say("inside", number=self._number, at=clock())
        self._told.wait()
        return body(self._how, ledger)

    def end(self, how: str) -> None:
        """Let it end."""
        self._how = how
        self._told.set()

    def _run(self) -> None:
        ledger = self._crew.ledger(self._breaker)
        result = "ok"
        deadline = clock() + HOLD_S
        while True:
            try:
                self._function(ledger)
            except ipc.CircuitOpenError:
                # Whoever failed last waits for the others' trials: it is asked again.
                ledger.refused()
                if clock() > deadline:
                    self._crew.say("shut out", number=self._number)
                    ledger.left()
                    return
                time.sleep(0.005)
                continue
            except (Broken, Strange, KeyboardInterrupt):
                result = self._how
            break
        ledger.done(RAISES[self._how][1])
        ledger.left()
        self._crew.say("finished", number=self._number, result=result, at=clock())


class Load:
    """One thread that calls one breaker all the time, `per_s` times a second (0 = as fast as it can).

    A call fails if the shared `weather` word is not 0, or if it is the `failing_every`th.
    Says `turned` with `to` = refused or admitted whenever that changes.
    """

    def __init__(
        self, crew: Crew, breaker: str, per_s: float = 0.0, failing_every: int = 0, weather: str = ""
    ) -> None:
        self.stop = threading.Event()
        self.calls = self.refused = self.slow = 0
        self.slowest_s = 0.0
        self.error = ""
        self._crew, self._breaker, self._per_s, self._failing_every = crew, breaker, per_s, failing_every
        self._weather = memoryview(b"\0" * 8).cast("Q") if not weather else _map(weather)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        ledger = self._crew.ledger(self._breaker)
        try:
            self._loop(ledger)
        except BaseException as error:
            # Whatever comes out of a guarded call that was not put into it is what these tests look for.
            self.error = repr(error)
            raise
        ledger.left()

    def _loop(self, ledger: Ledger) -> None:
        start = clock()
        made = 0
        turned = False
        while not self.stop.is_set():
            due = int((clock() - start) * self._per_s) if self._per_s else made + 256
            made = max(made, due - CATCH_UP_MAX)
            if made >= due:
                time.sleep(0.001)
            for _ in range(min(due - made, 512)):
                made += 1
                refused = self._one(ledger)
                if refused is not turned:
                    turned = refused
                    self._crew.say("turned", breaker=self._breaker, to="refused" if turned else "admitted",
                                   at=clock(), calls=self.calls)  # fmt: skip

    def _one(self, ledger: Ledger) -> bool:
        """One call; True = refused."""
        every = self._failing_every
        fails = self._weather[0] or (every and self.calls % every == every - 1)
        self.calls += 1
        kind = OutcomeKind.FAILURE if fails else OutcomeKind.SUCCESS
        start = clock()
        try:
            self._crew.guarded[self._breaker]("fail" if fails else "ok", ledger)
        except Broken:
            pass
        except ipc.CircuitOpenError:
            ledger.refused()
            self.refused += 1
            return True
        finally:
            took = clock() - start
        ledger.done(kind)
        self.slow += took > SLOW_S
        self.slowest_s = max(self.slowest_s, took)
        return False


def _map(path: str) -> memoryview[int]:
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")


def orders() -> dict[str, Callable[..., dict[str, Any]]]:
    """Every order by its word; each takes the crew first."""
    words = "guard guard_many call call_until hold release state command connect load unload attempts"
    own = {name: getattr(Crew, name) for name in words.split()}
    for more in MORE_ORDERS:
        own.update(more.ORDERS)
    return own


def main() -> int:
    """Read the options, say `up`, obey until `stop` or the end of stdin."""
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    crew = Crew(options)
    known = orders()
    if options.get("count_connects"):
        crew.count_connects()
    if "uid" in options:
        orders_lives.become(crew, options["uid"], options.get("groups", []))
    if options.get("connect", True):
        crew.connect()
    crew.say("up", pid=os.getpid())
    for line in sys.stdin:
        order = json.loads(line)
        word = order.pop("do")
        if word == "stop":
            break
        try:
            answer = known[word](crew, **order)
        except Exception as error:
            log.exception("order %s", word)
            answer = {"raised": repr(error)}
        crew.say(f"did {word}", **answer)
    crew.unload()
    crew.close_ledgers()
    return 0


if __name__ == "__main__":
    sys.exit(main())
