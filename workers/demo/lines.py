"""The demo where there is no terminal: a line per event, per phase, and per `EVERY_S` of work."""

from __future__ import annotations

from typing import Final, TextIO

from workers.demo.scene import ACTS, Scene

EVERY_S: Final = 1.0
"""How often the rates are printed within a phase."""


class Lines:
    """An audience that reads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._events = 0
        self._phase: tuple[int, str] = (-1, "")
        self._next_s = 0.0

    def show(self, scene: Scene) -> None:
        """Print what is new."""
        for event in scene.events[self._events :]:
            self._print(event.at_s, f"{event.source}: {event.text}")
        self._events = len(scene.events)
        if (scene.act, scene.phase) != self._phase:
            self._phase = (scene.act, scene.phase)
            self._print(scene.at_s, f"== {ACTS[scene.act]}: {scene.phase}")
            self._next_s = scene.at_s + EVERY_S
        elif scene.at_s >= self._next_s:
            self._print(scene.at_s, status(scene))
            self._next_s = scene.at_s + EVERY_S

    def close(self) -> None:
        """There is nothing to undo."""
        self._out.flush()

    def _print(self, at_s: float, text: str) -> None:
        print(f"{at_s:6.2f} s  {text}", file=self._out, flush=True)


def status(scene: Scene) -> str:
    """The rates and the breakers in one line."""
    rates = scene.rates
    parts = [f"{rates.succeeded:.0f} ok/s", f"{rates.failed:.0f} failed/s", f"{rates.refused:.0f} refused/s"]
    return f"   {', '.join(parts)}; database {scene.database}; {_breaker(scene)}"


def _breaker(scene: Scene) -> str:
    """The host's breaker, or everybody's own."""
    if scene.supervisor is None:
        return f"breakers {own_breakers(scene)}"
    if not scene.supervisor.answers:
        return "breaker unknown: the supervisor is away"
    if scene.breaker is None:
        return "breaker not yet used"
    return f"breaker {scene.breaker.state}, generation {scene.breaker.generation}"


def own_breakers(scene: Scene) -> str:
    """How many workers see their breaker in which state."""
    states = [worker.sees.name for worker in scene.workers if worker.sees is not None]
    counted = (f"{states.count(name)} {name}" for name in sorted(set(states)))
    return ", ".join(counted) or "not yet used"
