"""Exceptions between any two instructions of a guarded call: nothing stays held, nothing is doubled."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from ipc import CircuitOpenError, OutcomeKind
from ipc import layout as at
from ipc.client import Client
from ipc.guard import make
from ipc.ring import Reader, slices
from ipc.testing import MovableClock
from ipc.verdict import Verdict
from ipc.vocabulary import BreakerSettings
from tests.ipc.calls import Down

KINDS = [kind for kind in OutcomeKind if kind is not OutcomeKind.COUNT]


class Interrupt:
    """Raises KeyboardInterrupt at the n-th instruction of our own code, as a signal handler would."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        """A trace function."""
        if f"{os.sep}ipc{os.sep}" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="could not run B9: instructions are traced otherwise")
@pytest.mark.parametrize("way", ["success", "failure", "slow", "refused", "trial", "block", "new block"])
def test_interrupted_at_every_instruction(way: str) -> None:
    """At the n-th instruction of our code: no lock stays held, at most this outcome is missing."""
    # In a thread of its own: once interrupted in a handler, CPython may chain all that it raises later to
    # what was handled there.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(interrupt_everywhere, way).result()


def interrupt_everywhere(way: str) -> None:
    """At each of the first instructions, and at a sample of the others."""
    counting = Interrupt(1 << 60)
    Scene(way).call(counting)
    total = (1 << 60) - counting.left
    assert total > 10
    # Each of the first hundreds, where our locks and stores are, and a sample of what follows.
    for number in (*range(1, min(total, 600)), *range(600, total + 1, max(1, total // 200))):
        scene = Scene(way)
        interrupt = Interrupt(number)
        ended = scene.call(interrupt)
        assert not scene.link._gate.held, f"the gate is held after instruction {number}"
        # One more, too: a call that was admitted and interrupted before its function began is cancelled.
        assert scene.missing() in ((0,) if ended else (-1, 0, 1)), f"after instruction {number}"


class Scene:
    """A breaker on its own, brought to where one call of this way does what is to be interrupted."""

    def __init__(self, way: str) -> None:
        self._way, self.clock = way, MovableClock()
        client = Client("off", clock=self.clock, chance=lambda: 0.0)
        settings = BreakerSettings(failure_threshold=2, slow_call_s=1.0)
        self._breaker = make("database", settings, Verdict(), client)
        self.link, self.issued = client.link, 0
        self._guarded = self._breaker(self._body)
        self._raises = False
        self._guarded()
        if way in ("refused", "trial"):
            self._fail()
            self._fail()
        if way == "trial":
            self.clock.move(31.0)
        if way == "new block":
            for _ in range(at.BLOCK - 2):
                self._guarded()
        self._raises = way == "failure"

    def _body(self) -> None:
        self.issued += 1
        if self._raises:
            raise Down
        if self._way == "slow":
            self.clock.move(2.0)

    def _fail(self) -> None:
        self._raises = True
        with pytest.raises(Down):
            self._guarded()
        self._raises = False

    def call(self, interrupt: Interrupt) -> bool:
        """The call that is interrupted; True = it ended by itself."""
        guarded = self._guarded
        sys.settrace(interrupt)
        try:
            if self._way == "block":
                with self._breaker:
                    self.issued += 1
            else:
                guarded()
            ended = True
        except (Down, CircuitOpenError):
            ended = True
        except KeyboardInterrupt:
            ended = False
        finally:
            sys.settrace(None)
        return ended

    def missing(self) -> int:
        """After one more call: outcomes that were issued and stand neither in the ring nor in the tallies."""
        self._raises = False
        self._breaker.reset()
        self._guarded()
        link, row = self.link, 0
        reader = Reader(link.words, link.segment.layout)
        words = [word for part in reader.read(1024) for _, listed in slices(part) for word in listed]
        if reader.look_for_holes() or reader.look_for_holes():
            words += [word for part in reader.read(1024) for _, listed in slices(part) for word in listed]
        ring = sum(at.CODES[word >> at.CODE_SHIFT] is not None for word in words)
        return self.issued - ring - sum(link.words[link.tallies + at.TALLIES * row + kind] for kind in KINDS)
