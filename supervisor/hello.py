"""A worker's hello: who it is, whether it may, and which segment it gets.

The client makes the nonce, so a hello whose answer was lost can be said again and gets the same segment.
Nothing of a hello is believed that the kernel can tell better: the uid comes from the socket, the process
from the pidfd. Room is checked before anything is deposited; the deposit comes before the commit, the
commit before the answer. Neighbours: `control_server` (which asks), `attachments` (which keeps).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ipc import layout as at
from ipc.errors import SegmentError, SettingsError
from ipc.segment import Segment
from ipc.vocabulary import PROTOCOL_VERSION, check_name
from supervisor import descriptors
from supervisor.attachments import Attached, Attachments
from supervisor.connections import Peer, Request
from supervisor.descriptor_closer import Discard, close_now, is_memory_file
from supervisor.descriptors import Held
from supervisor.doorbells import Doorbells
from supervisor.messages import WorkerJoined
from supervisor.mind import Mind
from supervisor.process_identity import ProcessIdentity, has_run_since, may_be_user, start_tick
from supervisor.settings import SupervisorSettings
from supervisor.user_database import Account
from supervisor.worker import Worker

log = logging.getLogger("breakerd.hello")

SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What may be there again in a moment."""
WORKERS_MAX: Final = 4096
WORKERS_PER_UID_MAX: Final = 2048
"""Workers of one user; root and the supervisor's own user may have them all."""
WORKERS_RESERVED: Final = 256
"""The last places are for users who have fewer than WORKERS_FEW workers."""
WORKERS_FEW: Final = 32
WORKERS_PER_PROCESS_MAX: Final = 128
"""Attachments of one process: one for each program that it executes, and for clients made by hand."""
CLOCK_AHEAD_NS: Final = 50_000_000
"""A worker whose clock is this far ahead of ours lives in another time namespace."""
TEXT_MAX: Final = 64
USERS_SHOWN: Final = 8
"""Users that the refusal of a namespace names."""
TOML_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class HelloRefused(Exception):
    """This hello is not accepted; `code` is a fixed short word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a hello, and the descriptors that go with it."""

    value: dict[str, Any]
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Joining:
    """A worker that is deposited and not committed yet."""

    held: Held
    segment: Segment
    message: WorkerJoined
    handed_back: bool


class Greeter:
    """Checks hellos and makes segments."""

    def __init__(
        self,
        mind: Mind,
        attachments: Attachments,
        settings: SupervisorSettings,
        bells: Doorbells,
        boot: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self._mind = mind
        self._attachments = attachments
        self.settings = settings
        self._bells = bells
        self._boot = boot
        self._clock_ns = clock_ns
        self._joining: dict[str, Joining] = {}
        self.discard: Discard = close_now
        """Closes what a stranger sent: closing may take as long as its sender likes."""

    def greet(self, request: Request, account: Account) -> Welcome | Joining:
        """What to do about this hello of a user that the database describes as `account`.

        Raises HelloRefused; takes the request's descriptors over.
        """
        numbers = list(request.descriptors)
        try:
            return self._greet(request, account, numbers)
        except OSError as error:
            # No descriptor is free for what a hello needs: the worker says hello again later.
            text = f"the supervisor has no room for a worker at the moment ({error.strerror}); try again"
            raise HelloRefused("busy", text) from error
        finally:
            self.discard(request.peer.uid, numbers)

    def _greet(self, request: Request, account: Account, numbers: list[int]) -> Welcome | Joining:
        body = request.body
        self._check_versions(body)
        nonce = _nonce(body.get("nonce"))
        if not numbers:
            raise HelloRefused("refused", "a hello needs the pidfd of its process")
        pid = self._check_process(numbers[0], request.peer.pid)
        process = ProcessIdentity(request.peer.uid, pid, start_tick(pid), os.fstat(numbers[0]).st_ino)
        record = self._mind.engine.workers.get(nonce)
        if nonce in self._joining:
            raise HelloRefused("busy", "this worker's hello is being answered already")
        if nonce in self._mind.engine.tombs:
            raise HelloRefused("refused", "this nonce was used by a process that has ended")
        attached = self._attachments.get(nonce)
        if record is not None and not _is_same(process, record, attached):
            raise HelloRefused("refused", "this nonce belongs to another process")
        if attached is not None and record is not None:
            if not self._attachments.is_safe(nonce):
                self._attachments.deposit(attached.held)  # the answer may have been lost
                raise HelloRefused("busy", "the nursery has not stored this worker yet; try again")
            return self._again(attached.held, record, bool(body.get("have")))
        return self._join(request, account, nonce, numbers, process)

    def _check_versions(self, body: dict[str, Any]) -> None:
        """Refuse what speaks or lays out its words otherwise."""
        if body.get("version") != PROTOCOL_VERSION:
            text = f"this supervisor speaks protocol {PROTOCOL_VERSION}, not {body.get('version')!r:.20}"
            raise HelloRefused("version", f"{text}; install the same version of breakerd on both sides")
        if body.get("layout") != at.LAYOUT_VERSION:
            text = f"this supervisor has segment layout {at.LAYOUT_VERSION}, not {body.get('layout')!r:.20}"
            raise HelloRefused("version", f"{text}; install the same version of breakerd on both sides")
        clock = body.get("clock")
        if not isinstance(clock, int) or clock > self._clock_ns() + CLOCK_AHEAD_NS:
            raise HelloRefused("clock", "the worker's monotonic clock is not ours: another time namespace")

    def _check_process(self, pidfd: int, peer_pid: int) -> int:
        """The pid to show for a pidfd, which must be a living process and the peer itself."""
        pid = descriptors.told_pid(pidfd)
        if pid is None:
            raise HelloRefused("refused", "the first descriptor of a hello must be a pidfd")
        if pid < 0 or descriptors.is_dead(pidfd):
            raise HelloRefused("refused", "the pidfd is not that of a living process")
        # In another PID namespace the kernel shows 0 for one of them: then the pidfd alone counts.
        if pid and peer_pid and pid != peer_pid:
            raise HelloRefused("refused", "the pidfd is not that of the process that sent it")
        return pid or peer_pid

    def _again(self, held: Held, who: Worker | WorkerJoined, have: bool) -> Welcome:
        """A hello that was answered before: the same segment again. Raises OSError."""
        value, bell = self._value("resumed" if have else "new", who.namespace), self._bells.of(who.uid)
        return Welcome(value, (bell,) if have else (held.memory, bell))

    def keep_bells(self) -> None:
        """Now and then: users without workers have no bell any more."""
        live = {int(one.held.about.get("uid", 0)) for one in self._attachments.all()}
        self._bells.keep(live | {joining.message.uid for joining in self._joining.values()})

    def _join(
        self, request: Request, account: Account, nonce: str, numbers: list[int], process: ProcessIdentity
    ) -> Welcome | Joining:
        """A worker that is not here: make a segment, or take back the one that it has."""
        body, uid = request.body, request.peer.uid
        name = check_name_or_refuse(body.get("name") or f"pid-{process.pid}", "name")
        user = account.name
        namespace = self._namespace(body.get("namespace"), uid, account)
        self._check_room(process)
        if body.get("have") and len(numbers) < 2:
            return Welcome(self._value("sendfd", namespace))
        self._bells.of(uid)  # before anything is deposited: there may be no descriptor for it
        segment = self._segment(nonce, numbers)
        try:
            pidfd = os.dup(numbers[0])
        except OSError:
            segment.close_fd()
            raise
        software = str(body.get("software", ""))[:TEXT_MAX]
        pid, inode = process.pid, process.inode
        message = WorkerJoined(nonce, pid, inode, uid, user, name, namespace, software)
        about = {"pid": pid, "inode": inode, "tick": process.tick, "uid": uid, "user": user, "name": name}
        about |= {"namespace": namespace, "software": software, "layout": at.LAYOUT_VERSION}
        about["image"] = str(body.get("image", ""))[:TEXT_MAX]
        held = Held(nonce, segment.fd, pidfd, about)
        if not self._attachments.deposit(held):
            os.close(pidfd)
            segment.close_fd()
            raise HelloRefused("busy", "the nursery does not take any more at the moment; try again")
        joining = Joining(held, segment, message, bool(body.get("have")))
        self._joining[nonce] = joining
        return joining

    def _check_room(self, process: ProcessIdentity) -> None:
        """Refuse a worker beyond what the host, its user or its process may have. Raises HelloRefused."""
        live = [one.held.about for one in self._attachments.all()]
        held = live + [one.held.about for one in self._joining.values()]
        if len(held) >= WORKERS_MAX:
            raise HelloRefused("full", f"the supervisor has its {WORKERS_MAX} workers already")
        of_user = [about for about in held if about.get("uid") == process.uid]
        scarce = len(held) >= WORKERS_MAX - WORKERS_RESERVED
        allowed = WORKERS_FEW if scarce else WORKERS_PER_UID_MAX
        if process.uid not in (0, os.getuid()) and len(of_user) >= allowed:
            raise HelloRefused(
                "full", f"uid {process.uid} has {len(of_user)} workers, and may have no more now"
            )
        of_process = sum(process.is_process_of(about) for about in of_user)
        if process.pid and of_process >= WORKERS_PER_PROCESS_MAX:
            text = f"process {process.pid} is attached {of_process} times already, which is the limit"
            raise HelloRefused("full", text)

    def _segment(self, nonce: str, numbers: list[int]) -> Segment:
        """A new segment, or the checked one that came with the hello."""
        if len(numbers) > 1:
            return self._taken_back(nonce, numbers)
        try:
            return Segment.create(at.Layout(self.settings.ring_slots), bytes.fromhex(nonce), self._boot)
        except OSError as error:
            raise HelloRefused("memory", f"no segment could be made: {error.strerror}") from error

    def _taken_back(self, nonce: str, numbers: list[int]) -> Segment:
        """The segment that a worker kept over the end of a nursery: ours in every point, or refused."""
        if not is_memory_file(numbers[1]):
            raise HelloRefused("refused", "the segment that came back cannot be used: it is no memory file")
        try:
            segment = Segment.attach(numbers[1], bytes.fromhex(nonce), self._boot)
            os.posix_fallocate(segment.fd, 0, segment.layout.size)
        except (SegmentError, OSError) as error:
            if getattr(error, "errno", None) in SHORTAGES:
                raise
            raise HelloRefused("refused", f"the segment that came back cannot be used: {error}") from error
        del numbers[1]  # the segment owns it now
        return segment

    def _namespace(self, asked: Any, uid: int, account: Account) -> str:
        """The namespace of this worker: the one that it asks for, if its user may join it."""
        user = account.name
        if asked is None:
            return _as_namespace(user)
        wanted = check_name_or_refuse(asked, "namespace")
        if uid == 0 or wanted == _as_namespace(user) or self._may_join(wanted, uid, account):
            return wanted
        raise HelloRefused("denied", self._foreign(wanted, uid, account))

    def _foreign(self, namespace: str, uid: int, account: Account) -> str:
        """Why this user may not join, and the lines of the configuration that would let it."""
        user, told = account.name, self.settings.users_of(namespace)
        others = sorted(name for other, name in self._users_of(namespace, account).items() if other != uid)
        users = [*(others if told is None else told), user][-USERS_SHOWN:]
        known = ", ".join(json.dumps(one) for one in users)
        table = namespace if TOML_BARE.fullmatch(namespace) else json.dumps(namespace)
        used = f", which {', '.join(others[:USERS_SHOWN])} uses" if others and told is None else ""
        text = f"user {user} may not join the namespace {namespace}{used}"
        return f"{text}; [namespaces.{table}] users = [{known}]"

    def _users_of(self, namespace: str, account: Account) -> dict[int, str]:
        """Who uses it now, and who used it first of those whose breakers are known: names by uid."""
        engine = self._mind.engine
        users = {one.uid: one.user for one in engine.workers.values() if one.namespace == namespace}
        owner = engine.catalogue.owner_of(namespace)
        if owner is not None and owner not in users:
            users[owner] = account.owner_name or str(owner)
        return users

    def _may_join(self, namespace: str, uid: int, account: Account) -> bool:
        """Whether the configuration, or that it is no other user's by name or by use, lets this user in."""
        users = self.settings.users_of(namespace)
        if users is not None:
            return account.name in users
        if any(other != uid for other in self._users_of(namespace, account)):
            return False
        return not account.namespace_is_user

    def is_asked_by(self, nonce: str, peer: Peer) -> bool:
        """Whether this peer is the living process of the worker with this nonce.

        While our pidfd says that the process lives, no other process can have its pid.
        """
        attached = self._attachments.get(nonce)
        if attached is None:
            return False
        about = attached.held.about
        same = about.get("pid") == peer.pid and may_be_user(peer.pid, about.get("uid", -1), peer.uid)
        return same and not descriptors.is_dead(attached.held.pidfd)

    def joined(self, joining: Joining) -> None:
        """After the commit: the worker is one of ours."""
        self._joining.pop(joining.held.nonce, None)
        self._attachments.add(joining.held, joining.segment, self._mind.engine)
        self._attachments.end_earlier_image(joining.held)
        # A segment that was handed back shows what an earlier life published: publish it all again.
        self._attachments.deliver(list(self._mind.engine.publications(joining.held.nonce)))

    def welcome(self, joining: Joining) -> Welcome | None:
        """The answer to a worker that joined; None = under systemd it must wait until the store has it.

        Raises HelloRefused if it is gone meanwhile.
        """
        attached = self._attachments.get(joining.held.nonce)
        if attached is None:
            raise HelloRefused("busy", "this worker ended before it was answered")
        if not self._attachments.is_safe(joining.held.nonce):
            return None
        try:
            return self._again(attached.held, joining.message, joining.handed_back)
        except OSError as error:
            raise HelloRefused("busy", f"no doorbell can be made ({error.strerror}); try again") from error

    def given_up(self, joining: Joining) -> None:
        """The engine did not take it: nobody keeps anything."""
        self._joining.pop(joining.held.nonce, None)
        self._attachments.drop(joining.held.nonce)
        os.close(joining.held.pidfd)
        joining.segment.close_fd()

    def _value(self, status: str, namespace: str) -> dict[str, Any]:
        return {
            "schema": 1,
            "status": status,
            "incarnation": self._mind.engine.incarnation,
            "namespace": namespace,
            "clock": self._clock_ns(),
        }


def check_name_or_refuse(value: Any, what: str) -> str:
    """A name as it must be. Raises HelloRefused."""
    try:
        return check_name(value, what)
    except SettingsError as error:
        raise HelloRefused("refused", str(error)) from error


def _nonce(value: Any) -> str:
    """The nonce of a hello. Raises HelloRefused."""
    if descriptors.is_nonce(value):
        return value
    raise HelloRefused("refused", "the nonce of a hello is 32 lower-case hex digits")


def _as_namespace(user: str) -> str:
    """A user's name as a namespace; what may not stand in one becomes a dot."""
    return "".join(letter if letter.isalnum() or letter in "_.:-" else "." for letter in user)[:128] or "."


def _is_same(process: ProcessIdentity, record: Worker, attached: Attached | None) -> bool:
    """Whether the process that says hello is the one that this record tells of."""
    if process.pid != record.pid or not may_be_user(process.pid, record.uid, process.uid):
        return False
    if attached is None and process.uid != record.uid and not has_run_since(process.pid, record.since):
        return False
    if record.inode and process.inode != record.inode:
        return False
    return attached is None or process.is_process_of(attached.held.about)
