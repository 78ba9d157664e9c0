"""The prober: a managed process that asks one probe at a time for the supervisor and says what came back.

    <- {"number", "probe": {table}, "details"}   ask this; without "probe": are you there
    -> {"number", "begun": true}                 drivers are loaded: from now on its time runs
    -> {"number", "group"}                       a program was started in this process group
    -> {"number", "verdict": passed | failed | error, "text", "took_s", "details"}

Each is one message over a SOCK_SEQPACKET pair, whose other ends the daemon and the nursery hold: it ends
when both are gone. Dying at any point leaves a question unanswered, which the daemon asks again, and a
group that it was told of. Neighbours: `probes.*` (how to ask). Knows no breaker, and keeps no connection.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from workers.classify import classify
from workers.kinds import ErrorType, Origin
from workers.probes.question import Ask, CannotAsk, Late, ProbeFailed, Question, without
from workers.redact import describe

log = logging.getLogger("breakerd.prober")

MESSAGE_MAX: Final = 8192
AGAIN_S: Final = 0.1
"""An alarm that fell where no exception may be raised (in a destructor) comes again after this long."""
KINDS: Final = {
    "sqlalchemy": ("database", "prepare"),
    "redis": ("redis", "prepare"),
    "tcp": ("network", "prepare_tcp"),
    "http": ("network", "prepare_http"),
    "exec": ("program", "prepare"),
    "python": ("function", "prepare"),
}
"""The file in `probes` and the function in it, loaded when the first such probe is asked."""
NOT_LET_IN: Final = (ErrorType.CONFIGURATION, ErrorType.DATABASE_CONNECTION, ErrorType.CACHE_CONNECTION)
MAY_NOT: Final = frozenset({"sqlstate 42501", "redis NOPERM", "class redis.exceptions.NoPermissionError"})
MISTYPED: Final = "sqlstate 42601"


class Stop(BaseException):
    """SIGTERM: end now, wherever it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    verdict: str
    text: str
    took_s: float = 0.0
    details: Mapping[str, int] | None = None


class Alarm:
    """Raises Late in the main thread when the time is over, and again while nobody has noticed."""

    def __init__(self) -> None:
        self._armed = False
        signal.signal(signal.SIGALRM, self._rings)

    def _rings(self, _number: int, _frame: object) -> None:
        if self._armed:
            raise Late

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Late is raised inside, if it takes longer."""
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)


class Prober:
    """One life of a prober."""

    def __init__(self, talk: socket.socket) -> None:
        self._talk = talk
        self._alarm = Alarm()

    def run(self) -> None:
        """Answer until nobody is left who could ask."""
        while data := self._talk.recv(MESSAGE_MAX):
            told = json.loads(data)
            number = told["number"]
            answer = Answer("passed", "here")
            if "probe" in told:
                answer = self._answer(number, told["probe"], bool(told.get("details")))
            self._say(number, verdict=answer.verdict, text=answer.text, took_s=answer.took_s,
                      details=dict(answer.details or {}))  # fmt: skip

    def _say(self, number: int, **said: Any) -> None:
        self._talk.send(json.dumps({"number": number, **said}).encode())

    def _answer(self, number: int, table: dict[str, Any], details: bool) -> Answer:
        url = str(table.get("url", ""))
        began = time.monotonic()
        try:
            question = Question.read(table, details)
            ask = self._prepared(number, question)
            self._say(number, begun=True)
            began = time.monotonic()
            with self._alarm.within(question.timeout_s):
                passed = ask()
        except Late:
            text = f"no answer within {table['timeout_s']:g} s"
            return Answer("failed", text, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 (whatever a driver or a bug raises, the daemon is told)
            answer = _bad(error)
        else:
            answer = Answer("passed", passed.text, details=passed.details)
        return replace(answer, text=without(answer.text, url), took_s=time.monotonic() - began)

    def _prepared(self, number: int, question: Question) -> Ask:
        if question.kind not in KINDS:
            raise CannotAsk(f"this prober is of another version: it does not know {question.kind}")
        file, function = KINDS[question.kind]
        try:
            prepare = getattr(importlib.import_module(f"workers.probes.{file}"), function)
        except ImportError as error:
            raise CannotAsk(f"a package that this kind of probe needs: {describe(error)}") from error
        if question.kind == "exec":
            ask: Ask = prepare(question, lambda group: self._say(number, group=group))
        else:
            ask = prepare(question)
        return ask


def _bad(error: Exception) -> Answer:
    """What an error of the asking says of the dependency; its text is not yet redacted."""
    driver = getattr(error, "orig", None)
    error = driver if isinstance(driver, Exception) else error
    text = str(error)
    if isinstance(error, ProbeFailed | CannotAsk):
        return Answer("error" if isinstance(error, CannotAsk) else "failed", text)
    text = f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__
    return Answer("error" if _not_asked(error) else "failed", text)


def _not_asked(error: Exception) -> bool:
    """A password that is refused proves that the server lives, and not that it serves; nor does a statement
    that is mistyped, or a driver that is not there.
    """
    found = classify(error, ErrorType.DATABASE_CONNECTION)
    if found.code in MAY_NOT or found.code == MISTYPED:
        return True
    return found.origin is Origin.CONFIGURATION and found.error_type in NOT_LET_IN


def main(talk: socket.socket) -> None:
    """Serve the supervisor at the other end of this socket until it and its nursery are gone."""

    def stop(_number: int, _frame: object) -> None:
        raise Stop

    signal.signal(signal.SIGTERM, stop)
    talk.set_inheritable(False)
    try:
        with talk:
            Prober(talk).run()
    except Stop:
        log.info("asked to end")
    except ConnectionError:
        log.info("nobody is left who asks")
