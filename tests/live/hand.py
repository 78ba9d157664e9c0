"""One worker process that does what a test tells it: an order is a JSON line in, its answer a JSON line out.

Whatever the process says by itself carries the word under which it can be heard (`hear`). Everything it
writes to stderr is kept, for the tests that count warnings. Neighbours: `house` (who starts and ends it),
`tests.faults.crew` (the other end of the line).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ORDER_S = 15.0
"""How long an order may take when the test does not say."""


class Hand:
    """The test's end of the line to one worker process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._kept: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        options: dict[str, Any],
        surroundings: dict[str, str],
        log: Path,
        folder: Path | None = None,
    ) -> Hand:
        """Start the process, in that folder, with its options as one JSON argument."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*command, json.dumps(options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=surroundings,
                cwd=folder,
            )  # fmt: skip
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                with contextlib.suppress(ValueError):
                    self._said.put(json.loads(line))
        self._said.put(None)

    def hear(self, word: str, seconds: float = ORDER_S, **facts: Any) -> dict[str, Any]:
        """The next line that says `word` (and has these facts); other lines wait to be heard later."""
        for index, said in enumerate(self._kept):
            if _fits(said, word, facts):
                return self._kept.pop(index)
        while True:
            try:
                said_now = self._said.get(timeout=seconds)
            except queue.Empty:
                late = f"worker {self.pid} did not say {word} in {seconds:g} s"
                raise AssertionError(f"{late}:\n{self._stacks()}") from None
            if said_now is None:
                self._said.put(None)
                ended = f"worker {self.pid} ended ({self.process.poll()})"
                raise AssertionError(f"{ended}:\n{self.wrote()[-3000:]}")
            if _fits(said_now, word, facts):
                return said_now
            self._kept.append(said_now)

    def _stacks(self) -> str:
        """Where its threads are: a worker dumps them when it is asked by SIGUSR1."""
        before = len(self.wrote())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
            deadline = time.monotonic() + 1.0
            while len(self.wrote()) == before and time.monotonic() < deadline:
                time.sleep(0.02)
        return self.wrote()[before:][-3000:]

    def tell(self, do: str, **fields: Any) -> None:
        """Give an order and wait for nothing."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def order(self, do: str, seconds: float = ORDER_S, **fields: Any) -> dict[str, Any]:
        """Give an order and return its answer; what it raised over there is raised here as AssertionError."""
        self.tell(do, **fields)
        answer = self.hear(f"did {do}", seconds)
        assert "raised" not in answer, f"worker {self.pid}, order {do}: {answer['raised']}"
        return answer

    def wrote(self) -> str:
        """Everything the process wrote to stderr."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10.0)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def freeze(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def leave(self, seconds: float = ORDER_S) -> int:
        """Ask it to finish; its exit code."""
        with contextlib.suppress(BrokenPipeError):
            self.tell("stop")
        return self.process.wait(seconds)


def leave(hands: Sequence[Hand]) -> list[dict[str, Any]]:
    """End the load and the workers; what they did."""
    done = [hand.order("unload") for hand in hands]
    for hand, figures in zip(hands, done, strict=True):
        assert figures["failed"] == []
        assert hand.leave() == 0
    return done


def _fits(said: dict[str, Any], word: str, facts: dict[str, Any]) -> bool:
    return said.get("said") == word and all(said.get(key) == value for key, value in facts.items())
