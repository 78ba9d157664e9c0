"""What the daemon knows of managed processes, and has done with them: the nursery decides, this asks.

    who dies, and when                       what is left
    daemon, before the nursery has the order   nothing was done, and the asker gets no answer
    daemon, later                              it is done; the asker looks at `status` of the next daemon
    nursery                                    its workers end, and the daemon after them

The nursery sends all states to a daemon that begins to serve, then each change: nothing of them is kept
in a checkpoint. An order is answered when the nursery has accepted it; what becomes of it, the states show.
Neighbours: `control_server` (who may), `log_files` (what they logged), `facts` (what answers show).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor import descriptors, log_files
from supervisor.actor import Stage
from supervisor.connections import Connections, Request
from supervisor.facts import ManagedProcess
from supervisor.settings_workers import WorkerTable

log = logging.getLogger("breakerd.managed")

VERBS: Final = ("start", "stop", "restart")
ALL: Final = "all"
ANSWER_S: Final = 2.0
"""The nursery answers at once; whoever waited this long is told that it did not."""
ORDERS_MAX: Final = 64
"""Orders that wait for the nursery; beyond it one is refused."""
NAME_MAX: Final = 160
NAMED_MAX: Final = 40
"""Processes that a refusal lists."""
TAIL_LINES: Final = 20
"""Lines of `tail` where no number is said."""


@dataclass(frozen=True, slots=True)
class Order:
    """One of VERBS or `tail`; who asks has been checked."""

    request: Request
    user: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The nursery tells how one process is: an object as JSON."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The nursery's answer to an order: an object as JSON."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """A few times a second."""


@dataclass(frozen=True, slots=True)
class _Asker:
    request: Request
    since: float


class Managed:
    """Owns the states of all managed processes, and who waits for the nursery."""

    name = "managed"

    def __init__(
        self,
        send: Callable[[bytes, tuple[int, ...]], bool],
        runtime: str,
        tables: tuple[WorkerTable, ...],
        clock: Callable[[], float],
    ) -> None:
        self.stage: Stage
        self.connections: Connections
        self.tables = tables
        """As configured now: the daemon changes them when a reload is in force."""
        self._send = send
        self._runtime = runtime
        self._clock = clock
        self._processes: dict[str, ManagedProcess] = {}
        self._askers: dict[int, _Asker] = {}
        self._tickets = 0

    def receive(self, message: Order | State | Accepted | Look) -> None:
        """One message."""
        if isinstance(message, State):
            self._state(message)
        elif isinstance(message, Accepted):
            self._accepted(message)
        elif isinstance(message, Look):
            self._look()
        elif message.request.body.get("verb") == "tail":
            self._tail(message.request)
        else:
            self._order(message)

    def restart(self) -> None:
        """Who waits is refused. The states stay: the nursery tells changes alone."""
        askers, self._askers = self._askers, {}
        for asker in askers.values():
            self._refuse(asker.request, "busy", "the supervisor could not handle this; look at the status")

    def pids(self) -> list[int]:
        """Those that live."""
        return [one.pid for one in self._processes.values() if one.pid]

    def processes(self) -> tuple[ManagedProcess, ...]:
        """All of them, in the order of the configuration: the supervisor's own first."""
        place = {title: number for number, title in enumerate(self._titles())}
        return tuple(sorted(self._processes.values(), key=lambda one: (not one.internal, place[one.title])))

    # --- what the nursery says ------------------------------------------------------------------------

    def _state(self, message: State) -> None:
        plain = json.loads(message.data)
        if plain.pop("gone", False):
            self._processes.pop(plain["title"], None)
            return
        known = {key: plain[key] for key in ManagedProcess.__slots__ if key in plain}
        process = ManagedProcess(**known)
        self._processes[process.title] = process

    def _accepted(self, message: Accepted) -> None:
        plain = json.loads(message.data)
        asker = self._askers.pop(plain["ticket"], None)
        if asker is None:
            return
        if "accepted" not in plain:
            text = f"{plain['text']}; {self._existing()}" if plain["code"] == "unknown" else plain["text"]
            self._refuse(asker.request, plain["code"], text)
            return
        titles = self._ordered(asker.request.body["name"], plain)
        takes_s = self._takes_s(asker.request.body, titles)
        value = {"schema": 1, "verb": asker.request.body["verb"], "accepted": titles, "takes_s": takes_s}
        self.connections.answer(asker.request.connection, asker.request.number, value)

    def _ordered(self, name: str, plain: Mapping[str, Any]) -> list[str]:
        """Whom the order is for, all of them: where one message has not room for that many titles, the
        nursery says how many, and they are those of the tables.
        """
        titles = list(plain["accepted"])
        if len(titles) >= plain.get("of", 0):
            return titles
        return [title for table in self.tables if name in (ALL, table.name) for title in table.titles()]

    def _takes_s(self, body: Mapping[str, Any], titles: list[str]) -> float:
        """How long it may take at most by the tables: what is stopped all together is stopped in order."""
        tables = [table for table in self.tables if set(table.titles()) & set(titles)]
        starting = max((table.start_s for table in tables), default=0.0)
        stops = [table.stop_timeout_s for table in tables]
        if body["verb"] == "start":
            return starting + max(stops, default=0.0)  # one that is ending is started after that
        stopping = sum(stops) if body["name"] == ALL else max(stops, default=0.0)
        return stopping + (starting if body["verb"] == "restart" else 0.0)

    # --- what operators ask for -----------------------------------------------------------------------

    def _order(self, order: Order) -> None:
        body = order.request.body
        verb, name = body["verb"], body.get("name")
        if verb not in VERBS or not isinstance(name, str) or not 0 < len(name) <= NAME_MAX:
            text = f"{verb!s:.20} takes the name of a worker: NAME, NAME:2 or all"
            self._refuse(order.request, "bad", text)
            return
        if len(self._askers) >= ORDERS_MAX:
            self._refuse(order.request, "busy", "too many orders wait for the nursery already; try again")
            return
        self._tickets += 1
        told = json.dumps({"ticket": self._tickets, "verb": verb, "name": name}).encode()
        if not self._send(descriptors.COMMAND + told, ()):
            self._refuse(order.request, "busy", "the nursery does not take any more at the moment; try again")
            return
        log.info("%s %s: asked for by %s (uid %d)", verb, name, order.user, order.request.peer.uid)
        self._askers[self._tickets] = _Asker(order.request, self._clock())

    def _tail(self, request: Request) -> None:
        """The last lines of one process, or those after a position. Reads a file of the runtime directory."""
        title, lines = request.body.get("name"), request.body.get("lines", TAIL_LINES)
        after = request.body.get("after", "")
        if not isinstance(title, str) or not isinstance(lines, int) or not isinstance(after, str):
            self._refuse(request, "bad", "tail takes the name of a worker, a number of lines and a position")
            return
        several = self._titles_of(title)
        if len(several) != 1:
            text = f"there is no managed worker {title:.{NAME_MAX}}; {self._existing()}"
            if several:
                text = f"{title:.{NAME_MAX}} is {', '.join(several[:NAMED_MAX])}: say which"
            self._refuse(request, "ambiguous" if several else "unknown", text)
            return
        title = several[0]
        try:
            found = log_files.read(log_files.path_of(self._runtime, title), max(0, lines), after)
        except ValueError as error:
            self._refuse(request, "bad", str(error))
            return
        except OSError as error:
            self._refuse(request, "log", f"the log of {title} cannot be read: {error.strerror}")
            return
        value = {"schema": 1, "name": title, "lines": list(found.lines), "position": found.position}
        self.connections.answer(request.connection, request.number, {**value, "lost": found.lost})

    def _titles(self) -> list[str]:
        """Every process that is configured, or was and has not ended."""
        titles = [title for table in self.tables for title in table.titles()]
        return list(dict.fromkeys([*titles, *self._processes]))

    def _titles_of(self, name: str) -> list[str]:
        """The processes of one table; NAME:1 is the only one of NAME, too."""
        group, _, number = name.partition(":")
        titles = [table.titles() for table in self.tables if table.name == group]
        found = [*(titles[0] if titles else ())]
        found += [
            one.title for one in self._processes.values() if one.name == group and one.title not in found
        ]
        if not number:
            return found
        return [title for title in found if title == name or (number == "1" and found == [group])]

    def _existing(self) -> str:
        """What there is, for somebody who typed something else."""
        titles = self._titles()
        if not titles:
            return "none is configured: they stand in [workers.NAME]"
        more = f" and {len(titles) - NAMED_MAX} more" if len(titles) > NAMED_MAX else ""
        return f"there are {', '.join(titles[:NAMED_MAX])}{more}"

    def _look(self) -> None:
        """Nobody waits for ever."""
        late = self._clock() - ANSWER_S
        for ticket in [number for number, asker in self._askers.items() if asker.since < late]:
            text = "the nursery has not answered; whether it was done is to be seen in the status"
            self._refuse(self._askers.pop(ticket).request, "late", text)

    def _refuse(self, request: Request, code: str, text: str) -> None:
        self.connections.refuse(request.connection, request.number, code, text)
