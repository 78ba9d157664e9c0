"""The actor that answers workers and operators: one function per verb, told apart by a table.

What changes something goes to the mind and is answered after its commit; what only asks is answered at
once from what the engine knows: no dependency is dialled but by `probe`. Asking is for whoever may open the
socket, commanding for root, the supervisor's own user and the configured commanders.
Neighbours: `connections` (bytes), `hello` (joining), `views` (answers), `mind` (changes).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from supervisor.actor import Stage
from supervisor.commanders import Impersonations, account_of, check_commander, may_command, query_for
from supervisor.commands import full_name, read_command, read_forget
from supervisor.connections import Connections, Request
from supervisor.control_messages import Greet, Resolved, Stored, Sweep, Turn
from supervisor.descriptor_closer import Discard, close_now
from supervisor.errors import BadRequest, CommandDenied, RequestRefused
from supervisor.figures import Measured, Wanted
from supervisor.hello import Greeter, HelloRefused, Joining, Welcome
from supervisor.managed import VERBS, Order
from supervisor.messages import Command, Forget, Message, PermitAsked, PermitReturned, Refused, WorkerLeft
from supervisor.mind import Mind, Tell, Told
from supervisor.probes import ProbeNow
from supervisor.refusals import Refusals
from supervisor.reload import Asked
from supervisor.request_parsing import read_permit
from supervisor.settings import SupervisorSettings
from supervisor.user_database import Account, UserDatabase
from supervisor.view_server import ViewServer

log = logging.getLogger("breakerd.control")

SAVED_TICKETS_S: Final = 5.0
"""A request that the mind never answered (it had to start anew) is refused after this long."""
SLEEP_MAX_S: Final = 10.0
HELLOS_MAX: Final = 4096
"""Hellos that wait; beyond it one is refused, and said again later."""
HELLOS_PER_TURN: Final = 8
"""Hellos carried out in one turn of the loop: a segment costs half a millisecond, and whoever else asks
never waits behind a thousand workers that start at once."""
TEST_VERBS_VARIABLE: Final = "BREAKERD_TEST_VERBS"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request whose message is with the mind."""

    request: Request
    since: float
    joining: Joining | None = None
    permit_row: int = -1


class ControlServer:
    """Owns what is being answered."""

    name = "control"

    def __init__(
        self,
        mind: Mind,
        greeter: Greeter,
        settings: SupervisorSettings,
        clock: Callable[[], float],
    ) -> None:
        self.stage: Stage
        self.connections: Connections
        self.later: Callable[[Callable[[], object]], object]
        """Asks the loop for a call in its next turn."""
        self.examine: Callable[[], dict[str, Any]]
        """What the daemon sees of itself."""
        self.users: UserDatabase
        self.views: ViewServer
        self.discard: Discard = close_now
        """Closes what a stranger sent."""
        self.settings = settings
        self._impersonations = Impersonations(clock)
        self._mind = mind
        self._greeter = greeter
        self._clock = clock
        self._waiting: dict[int, _Waiting] = {}
        self._unstored: dict[str, _Waiting] = {}
        """Workers that joined and are welcome when systemd has their descriptors."""
        self._tickets = 0
        self._hellos: deque[Request] = deque()
        self.refusals = Refusals(clock, lambda noted: self.stage.post("mind", Tell((noted,))))

    def receive(self, message: Request | Resolved | Told | Greet | Stored | Measured | Turn | Sweep) -> None:
        """One message."""
        if isinstance(message, Request):
            self._request(message)
        elif isinstance(message, Resolved):
            self._resolved(message)
        elif isinstance(message, Told):
            self._told(message)
        elif isinstance(message, Greet):
            self._greet_some()
        elif isinstance(message, Stored):
            self._stored(message)
        elif isinstance(message, Measured):
            # Answered with the figures, when the turn of this user comes.
            self.views.ask(replace(message.request, usage=message.usage))
        elif isinstance(message, Turn):
            self.views.turn()
        else:
            self._sweep()

    def restart(self) -> None:
        """The requests being answered are refused; their askers ask again."""
        for waiting in self._waiting.values():
            self._give_up(waiting)
        for waiting in self._unstored.values():
            self._refuse(waiting.request)
        self._waiting.clear()
        self._unstored.clear()
        self.views.clear()
        self._greet_later()

    def _request(self, request: Request) -> None:
        """Answer it, after the user database where the answer depends on who asks."""
        query = query_for(request, self.settings.commanders, self._owner_of)
        if query is None:
            self._handle(request)
            return

        def resolved(account: Account | None) -> None:
            if not self.stage.post(self.name, Resolved(request, account)):
                self._refuse_for_now(request, "the supervisor has too much to do; try again")

        self.users.resolve(query, resolved)

    def _owner_of(self, namespace: str) -> int | None:
        return self._mind.engine.catalogue.owner_of(namespace)

    def _resolved(self, message: Resolved) -> None:
        """The user database has answered, or does not: root and our own user may command without it."""
        request, account = message.request, message.account
        if account is None and request.body.get("verb") != "hello":
            account = Account(str(request.peer.uid))
        if account is None:
            self._refuse_for_now(request, "the user database of this host does not answer; try again")
        else:
            self._handle(replace(request, account=account))

    def _refuse_for_now(self, request: Request, text: str) -> None:
        """Keep nothing of the request."""
        self.discard(request.peer.uid, request.descriptors)
        self.connections.refuse(request.connection, request.number, "busy", text)

    def _handle(self, request: Request) -> None:
        verb = request.body.get("verb")
        handler = _VERBS.get(verb) if isinstance(verb, str) else None
        try:
            if handler is None:
                raise RequestRefused("verb", f"unknown verb {verb!r:.60}")
            value = handler(self, request)
        except BadRequest as error:
            self.connections.refuse(request.connection, request.number, error.code, str(error))
            return
        except OSError as error:
            # No descriptor or no memory is free for what the answer needs: said, not left to a time-out.
            log.warning("a request for %s failed: %s", verb, error.strerror)
            text = f"the supervisor could not do this at the moment ({error.strerror}); try again"
            self.connections.refuse(request.connection, request.number, "busy", text)
            return
        if value is not None:
            self.connections.answer(request.connection, request.number, value)

    # --- what changes something -------------------------------------------------------------------

    def _tell(self, request: Request, message: Message, **more: Any) -> None:
        """Give a message to the mind; the answer comes back as `Told`."""
        self._tickets += 1
        self._waiting[self._tickets] = _Waiting(request, self._clock(), **more)
        if not self.stage.post("mind", Tell((message,), self.name, self._tickets)):
            self._give_up(self._waiting.pop(self._tickets))

    def _told(self, told: Told) -> None:
        """The message is committed: now its answer may leave."""
        waiting = self._waiting.pop(told.ticket, None)
        if waiting is None:
            return
        request, answer = waiting.request, told.answer
        if isinstance(answer, Refused):
            if waiting.joining is not None:
                self._greeter.given_up(waiting.joining)
                self._turn_away(request, answer.code, answer.text)
            else:
                self.connections.refuse(request.connection, request.number, answer.code, answer.text)
        elif waiting.joining is not None:
            self._greeter.joined(waiting.joining)
            if not self._admit(request, waiting.joining):
                self._unstored[waiting.joining.held.nonce] = waiting
        else:
            value = dict(answer.value) if answer is not None else {}
            taken = self.connections.answer(request.connection, request.number, {"schema": 1, **value})
            if not taken and value.get("permit") is not None:
                # Nobody holds this permit: it is free again at once.
                returned = PermitReturned(request.body["nonce"], waiting.permit_row, value["permit"])
                self.stage.post("mind", Tell((returned,)))

    def _admit(self, request: Request, joining: Joining) -> bool:
        """Welcome a worker that joined, or refuse it; False = it must wait."""
        try:
            welcome = self._greeter.welcome(joining)
        except HelloRefused as error:
            self._turn_away(request, error.code, str(error))
            return True
        if welcome is not None:
            self._welcome(request, welcome)
        return welcome is not None

    def _turn_away(self, request: Request, code: str, text: str) -> None:
        """Refuse a hello, and let those who look after the host see it."""
        self.connections.refuse(request.connection, request.number, code, text)
        peer, namespace = request.peer, request.body.get("namespace")
        asked = namespace if isinstance(namespace, str) else ""
        self.refusals.hello(peer.uid, account_of(request).name, peer.pid, (code, text), asked)

    def _stored(self, message: Stored) -> None:
        """Whatever dies now, this worker's segment outlives it."""
        waiting = self._unstored.pop(message.worker, None)
        if waiting is not None and waiting.joining is not None:
            self._admit(waiting.request, waiting.joining)

    def _welcome(self, request: Request, welcome: Welcome) -> None:
        self.connections.answer(request.connection, request.number, welcome.value, welcome.descriptors)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting.joining is not None:
            self._greeter.given_up(waiting.joining)
            # Its message may lie with the mind still: then the worker leaves right after it has joined.
            self.stage.post("mind", Tell((WorkerLeft(waiting.joining.held.nonce),)))
        self._refuse(waiting.request)

    def _refuse(self, request: Request) -> None:
        text = "the supervisor could not handle this; try again"
        self.connections.refuse(request.connection, request.number, "busy", text)

    def _sweep(self) -> None:
        """Refuse what was never answered, and drop connections past their deadlines."""
        late = self._clock() - SAVED_TICKETS_S
        self._greet_later()
        self.views.sweep()
        self.users.sweep()
        for ticket in [number for number, waiting in self._waiting.items() if waiting.since < late]:
            self._give_up(self._waiting.pop(ticket))
        for worker in [name for name, waiting in self._unstored.items() if waiting.since < late]:
            self._refuse(self._unstored.pop(worker).request)  # it has joined, and says hello again
        self.connections.sweep()
        self.refusals.look()

    def _hello(self, request: Request) -> None:
        if len(self._hellos) >= HELLOS_MAX:
            self.discard(request.peer.uid, request.descriptors)
            raise RequestRefused("busy", "too many workers say hello at once; try again")
        self._hellos.append(request)
        if len(self._hellos) == 1:
            self._greet_later()

    def _greet_later(self) -> None:
        """In the next turn of the loop; asked for again by every sweep, so that none is forgotten."""
        if self._hellos:
            self.later(lambda: self.stage.post(self.name, Greet()))

    def _greet_some(self) -> None:
        for _ in range(min(HELLOS_PER_TURN, len(self._hellos))):
            request = self._hellos.popleft()
            try:
                greeted = self._greeter.greet(request, account_of(request))
            except HelloRefused as error:
                self._turn_away(request, error.code, str(error))
                continue
            if isinstance(greeted, Welcome):
                self._welcome(request, greeted)
            else:
                self._tell(request, greeted.message, joining=greeted)
        self._greet_later()

    def _permit(self, request: Request) -> None:
        nonce, row, ask = read_permit(request.body)
        worker = self._mind.engine.workers.get(nonce)
        if worker is None or not self._greeter.is_asked_by(nonce, request.peer):
            noted = self._impersonations.note(request.peer, worker) if worker is not None else None
            if noted is not None:
                self.stage.post("mind", Tell((noted,)))
            # Nobody learns by the answer which nonces exist.
            raise RequestRefused("unknown", "this worker is not attached; say hello first")
        self._tell(request, PermitAsked(nonce, row, ask), permit_row=row)

    def _command(self, request: Request) -> None:
        wanted = read_command(request.body)
        uid, user = request.peer.uid, self._commander(request, wanted.shown)
        name = full_name(self._mind.engine, wanted)
        self._tell(request, Command(name, wanted.action, wanted.for_s, wanted.reason, uid, user))

    def _forget(self, request: Request) -> None:
        wanted = read_forget(request.body)
        uid, user = request.peer.uid, self._commander(request, wanted.shown)
        name = full_name(self._mind.engine, wanted) if wanted.breaker else ""
        self._tell(request, Forget(name, uid, user))

    def _reload(self, request: Request) -> None:
        """Answered by the actor `reload`, when the file was read and is in force or refused."""
        user = self._commander(request, "reload")
        if not self.stage.post("reload", Asked(request.peer.uid, user, request)):
            self._refuse(request)

    def _order(self, request: Request) -> None:
        """Answered by the actor `managed`, when the nursery has accepted it."""
        user = self._commander(request, f"{request.body['verb']} {request.body.get('name')!r:.60}")
        if not self.stage.post("managed", Order(request, user)):
            self._refuse(request)

    def _probe(self, request: Request) -> None:
        """Answered by the actor `probes`, when the probe has ended: it dials the dependency, so that it is a
        command.
        """
        name = request.body.get("name")
        if not isinstance(name, str):
            raise RequestRefused("bad", "name must be that of a breaker, or of a table with a probe")
        self._commander(request, f"probe {name:.60}")
        table = self._mind.engine.catalogue.probe_of(name)
        if not table:
            raise RequestRefused("unprobed", f"{name} has no probe in the configuration")
        if not self.stage.post("probes", ProbeNow(table, request)):
            self._refuse(request)

    def _tail(self, request: Request) -> None:
        """Answered by the actor `managed`: what workers log may be nobody else's business."""
        self._commander(request, f"tail {request.body.get('name')!r:.60}")
        if not self.stage.post("managed", Order(request)):
            self._refuse(request)

    def _commander(self, request: Request, what: str) -> str:
        """The user who commands. Raises CommandDenied, which is told, or RequestRefused."""
        try:
            return check_commander(request, self.settings.commanders, self._clock())
        except CommandDenied:
            peer, user = request.peer, account_of(request).name
            self.refusals.command(peer.uid, user, peer.pid, what.partition(" ")[0], what)
            raise

    # --- what only asks ---------------------------------------------------------------------------

    def _view(self, request: Request) -> None:
        if request.body.get("wide") is not True:
            self.views.ask(request)
        elif not self.stage.post("figures", Wanted(request)):
            # What processes cost is asked from the kernel, in a thread; it could not take the question.
            self._refuse(request)

    def _configuration(self, request: Request) -> dict[str, Any]:
        full = may_command(request.peer, account_of(request), self.settings.commanders)
        shown = self.settings.to_json() if full else self.settings.for_everybody()
        return {"schema": 1, "file": self.settings.file or None, "config": shown}

    def _doctor(self, _request: Request) -> dict[str, Any]:
        return self.examine()

    def _sleep(self, request: Request) -> dict[str, Any]:
        """Test verb: stop the whole loop for a while, as a bug would."""
        if os.environ.get(TEST_VERBS_VARIABLE) != "1":
            raise RequestRefused("verb", "unknown verb 'sleep'")
        time.sleep(min(SLEEP_MAX_S, float(request.body.get("seconds", 0.0))))
        return {"schema": 1}


_Handler = Callable[[ControlServer, Request], dict[str, Any] | None]
_VERBS: Final[Mapping[str, _Handler]] = {
    "hello": ControlServer._hello,
    "permit": ControlServer._permit,
    "command": ControlServer._command,
    "forget": ControlServer._forget,
    "reload": ControlServer._reload,
    "probe": ControlServer._probe,
    **dict.fromkeys(VERBS, ControlServer._order),
    "tail": ControlServer._tail,
    "config": ControlServer._configuration,
    "doctor": ControlServer._doctor,
    "sleep": ControlServer._sleep,
    **dict.fromkeys(
        ("health", "stats", "breakers", "breaker", "workers", "status", "events", "errors", "version"),
        ControlServer._view,
    ),
}
