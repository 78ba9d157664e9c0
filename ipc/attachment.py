"""How a process gets and keeps its attachment to the supervisor: one machine, moved by steps.

`_step` says hello or looks for its answer. Whoever drives it decides how to wait between two steps: `client`
sleeps, or awaits on an event loop. The machine makes the nonce, so a hello whose answer was lost is said
again and gets the same segment. A forked child begins again with a nonce of its own. Neighbours: `control`
(the exchange), `link` (what is attached). Knows no breaker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from ipc import control, forks
from ipc import layout as at
from ipc.errors import BreakerdError, ControlDenied, ControlRefused, SegmentError, SupervisorUnavailable
from ipc.gate import Gate
from ipc.link import Link
from ipc.logbook import inform, warn
from ipc.segment import Segment, boot_id
from ipc.vocabulary import FOREVER, NAME_PATTERN, PROTOCOL_VERSION, check_name

NAMESPACE_VARIABLE: Final = "BREAKERD_NAMESPACE"
NAME_VARIABLE: Final = "BREAKERD_NAME"  # what a process is called that says nothing; of managed workers
SOFTWARE: Final = "breakerd 0.1.0"
ANSWER_WAIT_S: Final = 2.0
"""A hello that is not answered by then is given up and said again later."""
POLL_S: Final = 0.002
"""How often a hello on its way is looked after."""
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
REFUSED_RETRY_S: Final = 30.0
"""After an answer that a retry does not change: denied, another version, another clock."""
_PASSING: Final = ("busy", "full", "memory")
"""Refusals that a retry may change."""
CLOCK_APART_S: Final = 0.05
"""Clocks further apart are those of two time namespaces."""


def chance() -> float:
    """A random share in [0, 1). Not the `random` module's: it costs 4 ms to import."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def _called() -> str:
    """The name that the environment gives this process; empty = none that can be used."""
    told = os.environ.get(NAME_VARIABLE, "")
    return told if NAME_PATTERN.fullmatch(told) else ""


class Attachment:
    """One attachment of this process. `socket` is a path, "off" to stay alone, None for BREAKERD_SOCKET and
    the default places.
    """

    def __init__(
        self,
        socket: str | None = None,
        name: str | None = None,
        namespace: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = chance,
    ) -> None:
        self.clock, self.chance = clock, chance
        self.due = FOREVER
        """When the next step towards being attached is due, s: what the link reads."""
        self.namespace_given: str | None = None
        self.link = Link(clock, chance, self)
        self._turn = Gate()
        self._warned: set[str] = set()
        self._name: str | None = None
        self._socket: str | None = None
        self._exchange: control.Exchange | None = None
        self._fresh()
        self.configure(socket, name, namespace)

    def configure(self, socket: str | None, name: str | None, namespace: str | None) -> None:
        """Say where and as what to attach, before it happens. Raises SettingsError."""
        wanted = (
            socket if socket is not None else self._socket,
            check_name(name) if name is not None else self._name,
            check_name(namespace, "namespace") if namespace is not None else self.namespace_given,
        )
        if wanted == (self._socket, self._name, self.namespace_given):
            return  # the hello under way is still the right one: another nonce would be another worker
        self._drop_exchange()
        self._socket, self._name, self.namespace_given = wanted
        self._fresh()

    def differs(self, name: str | None, namespace: str | None) -> str:
        """Which of these an attachment that stands already does not have; "" = none."""
        if name is not None and name != (self._name or f"pid-{os.getpid()}"):
            return f"name {name!r}"
        if namespace is not None and namespace not in (self.namespace, self.namespace_given):
            return f"namespace {namespace!r}"
        return ""

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _fresh(self) -> None:
        self.nonce = os.urandom(16)
        self.path: str | None = None
        self.namespace = ""
        """As the supervisor knows us; "" = not attached yet."""
        self.untried = True
        """Nothing was sent yet: the first call may wait a little."""
        self._exchange = None
        self._asked_at = 0.0
        self._failures = 0
        self._won: tuple[Segment, int] | None = None
        """What a hello gave us and the link has not taken yet."""
        self.due = FOREVER

    def forked(self) -> None:
        """This is a child: what is on its way is the parent's, and we are somebody else."""
        self._drop_exchange()
        self._turn = Gate()
        if self._name is not None:
            self._name = f"{self._name.partition('.pid-')[0][:110]}.pid-{os.getpid()}"
        self._fresh()

    @property
    def attached(self) -> bool:
        """True if a supervisor gave us a segment, whether it is awake or not."""
        self.link.awake()
        return self.link.attached

    @property
    def supervised(self) -> bool:
        """True if a supervisor decides at the moment."""
        return not self.link.local

    def introduce(self) -> None:
        """Before the first guarded call of the process; whoever drives the steps says how to wait."""
        raise NotImplementedError

    def attend(self, now: float) -> None:
        """One step that does not wait; the link calls it when `due`."""
        if self.link.attached and not self.link.local:
            self.due = FOREVER
        elif self._start(now):
            self._step(0.0)

    def lost(self, now: float) -> None:
        """The supervisor is away; it may come back by itself, or as another that must be told of us."""
        if self.path is not None:
            self.due = now + RETRY_MIN_S + RETRY_MAX_S * 0.25 * self.chance()

    def _start(self, now: float | None) -> bool:
        """Make sure that there is a way to go; False = never attach."""
        if self.path is None:
            if not hasattr(os, "pidfd_open"):
                self._say_once("system", inform, "breakers are local on this system")
                return False
            self.path = control.socket_path(self._socket)
        if self.path is None:
            return False
        if self.due == FOREVER:
            self.due = self.clock() if now is None else now
        return True

    def _step(self, wait_s: float) -> bool:
        """Say hello or look for its answer; True = attached. One thread at a time, the others go on."""
        return bool(self._turn.run_within(max(0.0, wait_s), self._take_turn, wait_s))

    def _take_turn(self, wait_s: float) -> bool:
        try:
            return (self.link.attached and not self.link.local) or self._attempt(wait_s)
        except (BreakerdError, OSError) as error:
            self._failed(error)
            return False

    def _attempt(self, wait_s: float) -> bool:
        deadline = time.monotonic() + max(0.0, wait_s)
        if self._won is None and self._exchange is None:
            self._say_hello((), self.link.attached)
        while self._won is None:
            exchange = self._exchange
            if exchange is None:
                return False
            if exchange.receive():
                self._answered(exchange)
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not control.wait_readable(exchange.connection, left):
                break
        if self._won is not None:
            return self._take(*self._won)
        if time.monotonic() - self._asked_at > ANSWER_WAIT_S:
            raise control.no_answer(self.path or "", ANSWER_WAIT_S)
        self.due = self.clock() + POLL_S
        return False

    def _say_hello(self, more: tuple[int, ...], have: bool) -> None:
        assert self.path is not None
        exchange = control.Exchange(self.path)
        try:
            pidfd = os.pidfd_open(os.getpid())
            try:
                exchange.send("hello", (pidfd, *more), **self._hello(have))
            finally:
                os.close(pidfd)
        except BaseException:
            exchange.close()
            raise
        self._exchange, self._asked_at = exchange, time.monotonic()

    def _hello(self, have: bool) -> dict[str, Any]:
        return {
            "version": PROTOCOL_VERSION,
            "nonce": self.nonce.hex(),
            "pid": os.getpid(),
            "name": self._name or _called() or f"pid-{os.getpid()}",
            "namespace": self.namespace_given or os.environ.get(NAMESPACE_VARIABLE) or None,
            "clock": time.monotonic_ns(),
            "have": have,
            "layout": at.LAYOUT_VERSION,
            "software": SOFTWARE,
            "image": forks.image(),
        }

    def _answered(self, exchange: control.Exchange) -> None:
        """Read a whole answer. Raises BreakerdError."""
        value, now = exchange.value(), time.monotonic()
        self._exchange = None
        try:
            if not self._asked_at - CLOCK_APART_S <= int(value["clock"]) * 1e-9 <= now + CLOCK_APART_S:
                raise ControlRefused("the supervisor's monotonic clock is another: stay local", "clock")
            status = value["status"]
            if status == "sendfd" and self.link.attached:
                # Whose descriptors were closed by the application takes a new segment: no stranger's is sent.
                have = self.link.segment.is_ours()
                self._say_hello((self.link.segment.fd,) if have else (), have)
                return
            numbers = exchange.take_descriptors()
            self.namespace = str(value["namespace"])
            if status == "resumed" and len(numbers) == 1:
                self._won = self.link.segment, numbers[0]
            elif status == "new" and len(numbers) == 2:
                self._won = self._attached_to(*numbers)
            else:
                raise ControlRefused(f"an answer to a hello that nobody understands: {status!r}", "protocol")
        except (KeyError, TypeError, ValueError) as error:
            raise ControlRefused(f"an answer to a hello lacks {error}", "protocol") from error
        finally:
            exchange.close()

    def _attached_to(self, memory: int, bell: int) -> tuple[Segment, int]:
        """The segment and the bell that came with an answer. Raises SegmentError and keeps neither."""
        try:
            return Segment.attach(memory, self.nonce, boot_id()), bell
        except BaseException:
            os.close(memory)
            os.close(bell)
            raise

    def _take(self, segment: Segment, bell: int) -> bool:
        """Put the link on its segment; False = not yet. Until it is done, each further step does it again."""
        if segment is self.link.segment:
            self.link.hear(bell)
        elif not self.link.attach(segment, bell, self.clock()):
            self.due = self.clock() + POLL_S
            return False
        self._won, self._failures, self.due = None, 0, FOREVER
        return True

    def _failed(self, error: BreakerdError | OSError) -> None:
        """Say what must be said once, and decide when to try again."""
        self._drop_exchange()
        self._failures += 1
        pause = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(self._failures, 10)) * self.chance()
        lasting = isinstance(error, ControlDenied | SegmentError) or getattr(error, "reason", "") == "denied"
        if lasting or (isinstance(error, ControlRefused) and error.code not in _PASSING):
            pause = REFUSED_RETRY_S
            self._warn_once(type(error).__name__, "breakers stay in this process: %s", error)
        elif isinstance(error, OSError) and not isinstance(error, SupervisorUnavailable):
            self._warn_once("OSError", "breakers stay in this process: %s", error)
        self.due = self.clock() + max(pause, RETRY_MIN_S / 10)

    def _warn_once(self, about: str, text: str, *args: object) -> None:
        self._say_once(about, warn, text, *args)

    def _say_once(self, about: str, say: Callable[..., None], text: str, *args: object) -> None:
        if about not in self._warned:
            self._warned.add(about)
            say(text, *args)

    def close(self) -> None:
        """Let go of the supervisor and stay alone, for tests and for processes that become something else."""
        self._drop_exchange()
        self._fresh()
        self._socket = "off"
        self.link.detach()
