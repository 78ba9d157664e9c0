"""A worker's hello: who it is, whether it may, and which segment it gets.

The client makes the nonce, so a hello whose answer was lost can be said again and gets the same segment.
Nothing of a hello is believed that the kernel can tell better: the uid comes from the socket, the process
from the pidfd. Room is checked before anything is deposited; the deposit comes before the commit, the
commit before the answer. Neighbours: `control_server` (which asks), `attachments` (which keeps).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import pwd
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ipc import layout as at
from ipc.errors import SegmentError, SettingsError
from ipc.segment import Segment
from ipc.vocabulary import PROTOCOL_VERSION, check_name
from supervisor import descriptors
from supervisor.attachments import Attachments
from supervisor.connections import Request
from supervisor.descriptors import Held
from supervisor.messages import WorkerJoined
from supervisor.mind import Mind
from supervisor.settings import SupervisorSettings

log = logging.getLogger("breakerd.hello")

WORKERS_MAX: Final = 4096
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


@functools.lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """The user's name; the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Greeter:
    """Checks hellos and makes segments."""

    def __init__(
        self,
        mind: Mind,
        attachments: Attachments,
        settings: SupervisorSettings,
        bell: int,
        boot: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self._mind = mind
        self._attachments = attachments
        self.settings = settings
        self._bell = bell
        self._boot = boot
        self._clock_ns = clock_ns
        self._joining: set[str] = set()

    def greet(self, request: Request) -> Welcome | Joining:
        """What to do about this hello. Raises HelloRefused; takes the request's descriptors over."""
        numbers = list(request.descriptors)
        try:
            return self._greet(request, numbers)
        finally:
            descriptors.close_all(numbers)

    def _greet(self, request: Request, numbers: list[int]) -> Welcome | Joining:
        body = request.body
        self._check_versions(body)
        nonce = _nonce(body.get("nonce"))
        if not numbers:
            raise HelloRefused("refused", "a hello needs the pidfd of its process")
        pid = self._check_process(numbers[0], request.peer.pid)
        inode = os.fstat(numbers[0]).st_ino
        record = self._mind.engine.workers.get(nonce)
        if nonce in self._joining:
            raise HelloRefused("busy", "this worker's hello is being answered already")
        if nonce in self._mind.engine.tombs:
            raise HelloRefused("refused", "this nonce was used by a process that has ended")
        if record is not None and record.inode and record.inode != inode:
            raise HelloRefused("refused", "this nonce belongs to another process")
        attached = self._attachments.get(nonce)
        if attached is not None and record is not None:
            if not self._attachments.is_safe(nonce):
                self._attachments.deposit(attached.held)  # the answer may have been lost
                raise HelloRefused("busy", "the nursery has not stored this worker yet; try again")
            return self._again(attached.held, record.namespace, bool(body.get("have")))
        return self._join(request, nonce, numbers, (pid, inode))

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
        if not stat.S_IFMT(os.fstat(pidfd).st_mode) == 0 and not _is_anonymous(pidfd):
            raise HelloRefused("refused", "the first descriptor of a hello must be a pidfd")
        pid = descriptors.pid_of(pidfd)
        if pid < 0 or descriptors.is_dead(pidfd):
            raise HelloRefused("refused", "the pidfd is not that of a living process")
        # In another PID namespace the kernel shows 0 for one of them: then the pidfd alone counts.
        if pid and peer_pid and pid != peer_pid:
            raise HelloRefused("refused", "the pidfd is not that of the process that sent it")
        return pid or peer_pid

    def _again(self, held: Held, namespace: str, have: bool) -> Welcome:
        """A hello that was answered before: the same segment again."""
        value = self._value("resumed" if have else "new", namespace)
        return Welcome(value, (self._bell,) if have else (held.memory, self._bell))

    def _join(
        self, request: Request, nonce: str, numbers: list[int], process: tuple[int, int]
    ) -> Welcome | Joining:
        """A worker that is not here: make a segment, or take back the one that it has."""
        body, uid = request.body, request.peer.uid
        name = check_name_or_refuse(body.get("name") or f"pid-{process[0]}", "name")
        user = user_name(uid)
        namespace = self._namespace(body.get("namespace"), uid, user)
        if len(self._attachments) + len(self._joining) >= WORKERS_MAX:
            raise HelloRefused("full", f"the supervisor has its {WORKERS_MAX} workers already")
        if body.get("have") and len(numbers) < 2:
            return Welcome(self._value("sendfd", namespace))
        segment = self._segment(nonce, numbers)
        pidfd = os.dup(numbers[0])
        os.set_inheritable(pidfd, False)
        software = str(body.get("software", ""))[:TEXT_MAX]
        pid, inode = process
        message = WorkerJoined(nonce, pid, inode, uid, user, name, namespace, software)
        about = {"pid": pid, "inode": inode, "uid": uid, "user": user, "name": name}
        about |= {"namespace": namespace, "software": software, "layout": at.LAYOUT_VERSION}
        about["image"] = str(body.get("image", ""))[:TEXT_MAX]
        held = Held(nonce, segment.fd, pidfd, about)
        if not self._attachments.deposit(held):
            os.close(pidfd)
            segment.close_fd()
            raise HelloRefused("busy", "the nursery does not take any more at the moment; try again")
        self._joining.add(nonce)
        return Joining(held, segment, message, bool(body.get("have")))

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
        try:
            segment = Segment.attach(numbers[1], bytes.fromhex(nonce), self._boot)
            os.posix_fallocate(segment.fd, 0, segment.layout.size)
        except (SegmentError, OSError) as error:
            raise HelloRefused("refused", f"the segment that came back cannot be used: {error}") from error
        del numbers[1]  # the segment owns it now
        return segment

    def _namespace(self, asked: Any, uid: int, user: str) -> str:
        """The namespace of this worker: the one that it asks for, if its user may join it."""
        if asked is None:
            return _as_namespace(user)
        wanted = check_name_or_refuse(asked, "namespace")
        if uid == 0 or wanted == _as_namespace(user) or self._may_join(wanted, user):
            return wanted
        raise HelloRefused("denied", self._foreign(wanted, user))

    def _foreign(self, namespace: str, user: str) -> str:
        """Why this user may not join, and the lines of the configuration that would let it."""
        told = self.settings.users_of(namespace)
        others = sorted(self._users_of(namespace) - {user})
        users = [*(others if told is None else told), user][-USERS_SHOWN:]
        known = ", ".join(json.dumps(one) for one in users)
        table = namespace if TOML_BARE.fullmatch(namespace) else json.dumps(namespace)
        used = f", which {', '.join(others[:USERS_SHOWN])} uses" if others and told is None else ""
        text = f"user {user} may not join the namespace {namespace}{used}"
        return f"{text}; [namespaces.{table}] users = [{known}]"

    def _users_of(self, namespace: str) -> set[str]:
        """Who uses it now, and who used it first of those whose breakers are known."""
        engine = self._mind.engine
        users = {one.user for one in engine.workers.values() if one.namespace == namespace}
        owner = engine.catalogue.owner_of(namespace)
        return users if owner is None else users | {user_name(owner)}

    def _may_join(self, namespace: str, user: str) -> bool:
        """Whether the configuration, or that it is no other user's by name or by use, lets this user in."""
        users = self.settings.users_of(namespace)
        if users is not None:
            return user in users
        if any(other != user for other in self._users_of(namespace)):
            return False
        try:
            pwd.getpwnam(namespace)
        except KeyError:
            return True
        return False

    def joined(self, joining: Joining) -> None:
        """After the commit: the worker is one of ours."""
        self._joining.discard(joining.held.nonce)
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
        return self._again(attached.held, joining.message.namespace, joining.handed_back)

    def given_up(self, joining: Joining) -> None:
        """The engine did not take it: nobody keeps anything."""
        self._joining.discard(joining.held.nonce)
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
    """The nonce of a hello: 32 hex digits."""
    if isinstance(value, str) and len(value) == 32:
        try:
            return bytes.fromhex(value).hex()
        except ValueError:
            pass
    raise HelloRefused("refused", "the nonce of a hello is 32 hex digits")


def _as_namespace(user: str) -> str:
    """A user's name as a namespace; what may not stand in one becomes a dot."""
    return "".join(letter if letter.isalnum() or letter in "_.:-" else "." for letter in user)[:128] or "."


def _is_anonymous(number: int) -> bool:
    """True for a descriptor without a file behind it, as a pidfd is."""
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith(("anon_inode:", "pidfd:"))
    except OSError:
        return False
