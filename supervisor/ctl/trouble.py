"""What an error means and what to do about it, for somebody with one terminal at three in the morning.

Away, hung and denied are told apart. Loaded only after something went wrong; looks at /proc and at the
socket's file, never changes anything. Neighbours: `ask` raises, `main` prints.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from ipc import control
from ipc.errors import BreakerdError, ControlDenied, ControlRefused, ProtocolError, SupervisorUnavailable
from supervisor.ctl.page import Verdict
from supervisor.descriptors import state_of

_CREDENTIALS: Final = struct.Struct("3i")
_START: Final = "start it (systemctl start breakerd, or: breakerd run)"
_ELSEWHERE: Final = "if it runs at another place, name it: --socket PATH or BREAKERD_SOCKET"
_MEANWHILE: Final = "workers protect themselves meanwhile"
_STATES: Final = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a disk", "Z": "a zombie"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error as it is shown."""

    verdict: Verdict
    code: str
    """A fixed short word: absent, refused, denied, timeout, closed, full, off, ..."""
    text: str
    """What is wrong."""
    action: str
    """What to do."""

    def document(self, verb: str) -> dict[str, Any]:
        """What --json prints in place of an answer; health has its status in the usual place too."""
        error = {"code": self.code, "text": self.text, "action": self.action}
        if verb == "health":
            return {"schema": 1, "status": "fail", "output": self.text, "error": error}
        return {"schema": 1, "error": error}


def explain(error: BreakerdError, path: str, commanding: bool = False) -> Trouble:
    """The trouble behind an error of asking at `path`."""
    if isinstance(error, SupervisorUnavailable):
        return _unavailable(error, path, commanding)
    if isinstance(error, ControlDenied):
        who = f"{_user(os.geteuid())} (uid {os.geteuid()})"
        action = (
            f"as root or the supervisor's user, or let an administrator add "
            f'"user:{_user(os.geteuid())}" to [control] commanders in breakerd.toml'
        )
        return Trouble(Verdict.UNAVAILABLE, "denied", f"{who} may not do this: {error}", action)
    if isinstance(error, ControlRefused):
        action = {
            "unknown": "see the names: supervisorctl breakers; of managed workers: supervisorctl status",
            "unconfigured": "restart it with one: breakerd run --config FILE, or /etc/breakerd/breakerd.toml",
            "late": "see what became of it: supervisorctl status, after a reload config show; what holds it "
            "up: supervisorctl health",
            "ambiguous": "say which, with its namespace: NAMESPACE/NAME; of workers with its number: NAME:2",
            "unprobed": "give it one: [breakers.NAME.probe]; see: supervisorctl config example",
        }.get(error.code, "see: supervisorctl health")
        return Trouble(Verdict.REFUSED, error.code, str(error), action)
    if isinstance(error, ProtocolError):
        action = "another version of breakerd, or another program, answers there; see: supervisorctl version"
        return Trouble(Verdict.UNAVAILABLE, "protocol", f"{path}: {error}", action)
    return Trouble(Verdict.REFUSED, "refused", str(error), "see: supervisorctl --help")


def _unavailable(error: SupervisorUnavailable, path: str, commanding: bool) -> Trouble:
    text = str(error)
    if error.reason == "off":
        action = "unset BREAKERD_SOCKET, or name the socket: --socket PATH"
    elif error.reason == "absent":
        text, action = f"no supervisor: {path} does not exist", f"{_START}; {_ELSEWHERE}"
        if len(os.fsencode(path)) > control.PATH_MAX:
            text, action = str(error), "name a shorter path: --socket PATH"
    elif error.reason == "refused":
        text = f"no supervisor: nobody listens on {path} (left behind by one that was killed)"
        action = f"{_START}; why it ended: journalctl -u breakerd; {_ELSEWHERE}"
    elif error.reason == "denied":
        text, action = _denied(path, text)
    elif error.reason == "timeout":
        text, action = _hung(path, text)
    elif error.reason == "full":
        action = "too many connections, or the supervisor is hung: try again; see: supervisorctl status"
    else:
        action = "it was restarted meanwhile: try again"
    if commanding and error.reason in ("timeout", "closed"):
        look = "supervisorctl breaker show NAME (after a reload: config show; of workers: status)"
        action = f"whether it was done is not known, look: {look}; then: {action}"
    return Trouble(Verdict.UNAVAILABLE, error.reason, text, action)


def _denied(path: str, text: str) -> tuple[str, str]:
    """Who may ask, by the first thing on the way to the socket that this user may not pass."""
    try:
        control.check_owner(path)
    except SupervisorUnavailable as error:
        return str(
            error
        ), "another user made it, so it is not trusted: remove it, or name the socket: --socket"
    user = _user(os.geteuid())
    place = path
    while place not in ("/", "") and not os.path.lexists(place):
        place = os.path.dirname(place)
    with contextlib.suppress(OSError):
        found = os.stat(place)
        group = _group(found.st_gid)
        if found.st_uid != os.geteuid() and found.st_mode & 0o070:
            return (
                f"permission denied: {path} is for the group {group}, and {user} is not in it",
                f"use sudo, or join the group: usermod -aG {group} {user} (then log in again)",
            )
        mode = oct(found.st_mode & 0o777)
        owner = _user(found.st_uid)
        return f"permission denied: {place} is {owner}'s alone ({mode})", f"ask as {owner}, or use sudo"
    return text, "use sudo"


def _hung(path: str, text: str) -> tuple[str, str]:
    """Which process is silent, as far as the kernel tells."""
    pid = _listener(path)
    if not pid:
        return text, f"systemctl restart breakerd ({_MEANWHILE})"
    found = [(number, state) for number in (pid, *_children(pid)) if (state := _STATES.get(state_of(number)))]
    if found:
        text += "; " + ", ".join(f"process {number} is {state}" for number, state in found)
        stopped = [str(number) for number, state in found if state.startswith("stopped")]
        if stopped:
            return text, f"let it go on: kill -CONT {' '.join(stopped)}"
    restart = f"systemctl restart breakerd, or kill {pid} and start it again"
    return (
        f"{text} (process {pid})",
        f"a hung daemon is replaced after 10 s; if this stays: {restart} ({_MEANWHILE})",
    )


def _listener(path: str) -> int:
    """The process that listens on the socket, by the kernel; 0 = not known."""
    try:
        with contextlib.closing(control.connect(path)) as connection:
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, BreakerdError):
        return 0
    return int(_CREDENTIALS.unpack(data)[0])


def _children(pid: int) -> tuple[int, ...]:
    """The processes that the main thread of `pid` has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return tuple(map(int, file.read().split()))
    except (OSError, ValueError):
        return ()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
