"""`doctor`: what an operator would otherwise learn at three in the morning; each finding says what to do.

Works without a supervisor: most of it is looked up here, as this user. What only the daemon can see (its
limits, its disk) it is asked for. Changes nothing. Neighbours: `places`, `trouble` (why nobody answers),
`doctor_probes` (what stands behind the breakers).
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import stat
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from ipc.errors import BreakerdError, ControlRefused
from supervisor.ctl.ask import Asker, Clock, find
from supervisor.ctl.doctor_probes import dependencies
from supervisor.ctl.finding import Finding
from supervisor.ctl.page import DAY_S, Page, Table, Verdict
from supervisor.ctl.parse import Request
from supervisor.ctl.trouble import explain
from supervisor.errors import ConfigurationError
from supervisor.places import places

CLOCK_APART_MAX_S: Final = 0.05
"""Workers whose clock is further from the daemon's stay local."""
DESCRIPTORS_LEAST: Final = 17_408
"""What a daemon needs for 4,096 workers (three each: segment, mapping, pidfd), 4,096 connections, its own."""
WORKER_DESCRIPTORS: Final = 3
FREE_LEAST: Final = 512
"""Free descriptors below which workers will soon be refused."""
FREE_BYTES_LEAST: Final = 64 << 20
SLOW_S: Final = 1.0
"""A copy to the state directory is due each second."""
_WORST: Final = ("pass", "warn", "fail")
_VERDICTS: Final = {"pass": Verdict.OK, "warn": Verdict.WARN, "fail": Verdict.FAIL}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who runs this."""

    uid: int
    user: str
    groups: frozenset[int]
    """Of this session."""

    @classmethod
    def here(cls) -> Caller:
        """This process."""
        uid = os.geteuid()
        user = str(uid)
        with contextlib.suppress(KeyError):
            user = pwd.getpwuid(uid).pw_name
        return cls(uid, user, frozenset((*os.getgroups(), os.getegid())))


def page(request: Request, clock: Clock) -> Page:
    """Everything that was found, the worst first."""
    findings = [*environment(), *kernel()]
    try:
        path = find(request.socket)
    except BreakerdError as error:
        found = explain(error, "")
        findings.append(Finding("socket", "warn", found.text, found.action))
    else:
        findings += socket_file(path, Caller.here())
        findings += daemon(Asker(path, request.timeout_s, clock))
    findings.sort(key=lambda one: -_WORST.index(one.status))
    status = findings[0].status
    rows = tuple((one.check, one.status, one.text) for one in findings)
    parts: list[str | Table] = [Table(("CHECK", "STATUS", "FINDING"), rows)]
    parts += [f"what to do about {one.check}: {one.action}" for one in findings if one.action]
    answer = {"schema": 1, "status": status, "findings": [one.to_json() for one in findings]}
    verdict = _VERDICTS[status]
    return Page(answer, tuple(parts), Verdict.FAIL if request.fail_on_warn and status != "pass" else verdict)


def environment() -> Iterator[Finding]:
    """Whether PyPI's Supervisor is in the way."""
    try:
        version = metadata.version("supervisor")
    except metadata.PackageNotFoundError:
        yield Finding("environment", "pass", "PyPI's supervisor is not installed beside breakerd")
    else:
        text = f"PyPI's supervisor {version} is installed in this environment: its files replace ours"
        action = "install breakerd into a virtual environment of its own; breakerd refuses to start here"
        yield Finding("environment", "fail", text, action)
    yield command(shutil.which("supervisorctl"), sysconfig.get_path("scripts"))


def command(found: str | None, scripts: str) -> Finding:
    """Whether `supervisorctl` on the PATH is ours."""
    if found is None:
        return Finding("command", "pass", "no supervisorctl on the PATH")
    if os.path.realpath(os.path.dirname(found)) == os.path.realpath(scripts):
        return Finding("command", "pass", f"{found} is this environment's")
    action = f"call breakerctl, or {scripts}/supervisorctl; put {scripts} first on the PATH"
    return Finding("command", "warn", f"supervisorctl on the PATH is another one: {found}", action)


def kernel() -> Iterator[Finding]:
    """Whether a worker in this place could attach: a seccomp profile may forbid what it takes."""
    needs: tuple[tuple[str, Callable[[], int]], ...] = (
        ("pidfd_open", lambda: os.pidfd_open(os.getpid())),
        ("memfd_create", lambda: os.memfd_create("breakerd-doctor")),
    )
    for name, make in needs:
        try:
            os.close(make())
        except (AttributeError, OSError) as error:
            text = f"{name} does not work here ({error}): workers in this place stay local"
            action = "Linux 5.3 or newer, and a container profile that allows it (Docker's default does)"
            yield Finding("kernel", "fail", text, action)
        else:
            yield Finding("kernel", "pass", f"{name} works")


def socket_file(path: str, caller: Caller) -> Iterator[Finding]:
    """The socket's file and directory: there, closed to strangers, open to this user."""
    try:
        found, above = os.stat(path), os.stat(os.path.dirname(path))
    except OSError:
        return  # whoever asks the daemon says why
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding("socket", "fail", f"{path} is no socket", "move it away and restart breakerd")
        return
    mode, folder = stat.S_IMODE(found.st_mode), stat.S_IMODE(above.st_mode)
    text = f"{path} has mode {mode:04o}, its directory {folder:04o}"
    if folder & 0o002 and not folder & stat.S_ISVTX:
        action = f"chmod 0750 {os.path.dirname(path)}: anybody may put another socket there"
        yield Finding("socket-mode", "fail", text, action)
    elif mode & 0o006 and folder & 0o001:
        action = f"chmod 0660 {path}: users outside of the group may attach and ask"
        yield Finding("socket-mode", "warn", text, action)
    else:
        yield Finding("socket-mode", "pass", text)
    yield membership(found.st_uid, found.st_gid, caller)


def membership(owner: int, gid: int, caller: Caller) -> Finding:
    """Whether this user may ask."""
    name, members = str(gid), list[str]()
    with contextlib.suppress(KeyError):
        name, members = grp.getgrgid(gid).gr_name, grp.getgrgid(gid).gr_mem
    if caller.uid in (0, owner):
        return Finding("group", "pass", f"{caller.user} may ask and command")
    if gid in caller.groups:
        return Finding("group", "pass", f"{caller.user} is in the group {name}: may ask")
    if caller.user in members:
        text = f"{caller.user} was put into the group {name} after this session began"
        return Finding("group", "fail", text, f"log in again, or: newgrp {name}; restart services")
    action = f"usermod -aG {name} {caller.user}, then log in again; a service: SupplementaryGroups={name}"
    return Finding("group", "fail", f"{caller.user} is not in the group {name}", action)


def daemon(asker: Asker) -> Iterator[Finding]:
    """What the daemon says of itself; where it is away, the disk as this user sees it."""
    try:
        version = asker.look("version")
        yield Finding("daemon", "pass", f"answers, pid {version['pid']}")
        yield versions(str(version["version"]))
        began = asker.clock.now()
        told = asker.look("doctor")
        ended = asker.clock.now()
    except ControlRefused:
        text = "the daemon is older than this command, and knows nothing of its own limits and disk"
        yield Finding("limits", "warn", text, "restart breakerd to bring it to this version")
        return
    except BreakerdError as error:
        found = explain(error, asker.path)
        yield Finding("daemon", "fail", found.text, found.action)
        yield from away(asker.clock)
        return
    yield clocks(told["clock_ns"] / 1e9, began, ended)
    yield descriptors(told["descriptors"], told["descriptors_max"])
    yield space("runtime", told["runtime"]["path"], told["runtime"]["free_bytes"])
    yield space("state", told["state"]["path"], told["state"]["free_bytes"])
    yield copying(told["state"])
    yield from dependencies(asker)


def versions(theirs: str) -> Finding:
    """Whether command and daemon are one version."""
    ours = "0+source"
    with contextlib.suppress(metadata.PackageNotFoundError):
        ours = metadata.version("breakerd")
    if theirs == ours:
        return Finding("versions", "pass", f"command and daemon are both {ours}")
    action = "restart breakerd, or call the command of its environment"
    return Finding("versions", "warn", f"this command is {ours}, the daemon {theirs}", action)


def clocks(theirs: float, began: float, ended: float) -> Finding:
    """Whether the daemon's monotonic clock is ours: it was read between `began` and `ended`."""
    apart = max(began - theirs, theirs - ended, 0.0)
    if apart <= CLOCK_APART_MAX_S:
        return Finding("clock", "pass", "one monotonic clock")
    text = f"the daemon's monotonic clock is {apart:.3g} s from this one: workers here stay local"
    return Finding("clock", "fail", text, "run workers and breakerd in one time namespace (not unshare -T)")


def descriptors(used: int, most: int) -> Finding:
    """Whether the daemon has room for workers."""
    room = max(0, most - used) // WORKER_DESCRIPTORS
    text = f"the daemon uses {used} of {most} descriptors: room for some {room} more workers"
    action = "LimitNOFILE=65536 in breakerd.service (or ulimit -n), then restart breakerd"
    if most - used < FREE_LEAST:
        return Finding("limits", "fail", text, action)
    if most < DESCRIPTORS_LEAST:
        return Finding("limits", "warn", text, action)
    return Finding("limits", "pass", text)


def space(what: str, directory: str, free: int | None) -> Finding:
    """Whether there is room for the checkpoint, or for its copy."""
    if free is None:
        action = f"let the user that breakerd runs as reach {directory}"
        return Finding(f"{what}-space", "fail", f"{directory} cannot be looked at", action)
    text = f"{free >> 20} MiB are free for {directory}"
    if free < FREE_BYTES_LEAST:
        action = f"make room: breakerd keeps some MiB there, and wants {FREE_BYTES_LEAST >> 20} MiB free"
        return Finding(f"{what}-space", "warn", text, action)
    return Finding(f"{what}-space", "pass", text)


def copying(state: dict[str, Any]) -> Finding:
    """Whether the copy that survives a reboot is written, and fast enough."""
    if state["problem"]:
        action = f"mend the file system of {state['path']}, or its owner and mode; it is tried each second"
        return Finding("state-copy", "fail", str(state["problem"]), action)
    took = state["copy_took_s"]
    if took is None:
        return Finding("state-copy", "pass", "nothing was to be copied yet")
    text = f"the last copy to {state['path']} took {took:.3f} s with its fsyncs"
    # A daemon of before it was counted says nothing of the rate.
    rate = state.get("copy_bytes_per_s")
    if rate is not None:
        a_day = rate * DAY_S / 2**30
        text += f"; in the last minute {rate / 1024:.1f} KiB/s were written, as if {a_day:.2f} GiB a day"
    return _speed(text, took)


def _speed(text: str, took_s: float) -> Finding:
    if took_s <= SLOW_S:
        return Finding("state-copy", "pass", text)
    action = "put the state directory (StateDirectory=, --state-dir) on a faster disk; a host crash may cost"
    return Finding("state-copy", "warn", text, f"{action} that much more")


def away(clock: Clock) -> Iterator[Finding]:
    """The directories of a daemon that this user would start."""
    try:
        where = places()
    except ConfigurationError as error:
        yield Finding("places", "fail", str(error), "name shorter places: --runtime-dir, BREAKERD_SOCKET")
        return
    for what, directory in (("runtime", where.runtime), ("state", where.state)):
        there = _existing(directory)
        with contextlib.suppress(OSError):
            found = os.statvfs(there)
            yield space(what, directory, found.f_bavail * found.f_frsize)
    yield writing(where.state, clock)


def writing(directory: str, clock: Clock) -> Finding:
    """Whether this user can write to the state directory and how fast; by a file that has no name."""
    began = clock.now()
    try:
        fd = os.open(_existing(directory), os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"breakerd" * 512)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        text = f"nothing can be written to {directory} by this user: {error.strerror}"
        return Finding("state-copy", "warn", text, "name another: --state-dir, or run as breakerd's user")
    took = clock.now() - began
    return _speed(f"writing to {directory} takes {took:.3f} s with fsync", took)


def _existing(directory: str) -> str:
    """The directory, or the first above it that is there."""
    while not os.path.isdir(directory) and directory not in ("/", ""):
        directory = os.path.dirname(directory)
    return directory or "/"
