"""Managed processes for real: what a child has and has not, and what becomes of each."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from supervisor.errors import BadRequest, WorkerNotFound
from supervisor.lives import STOOD_S, how_ended
from supervisor.logs import Life, Logs
from supervisor.policy import WardState
from supervisor.reports import Reports
from supervisor.settings import parse
from supervisor.settings_workers import WorkerTable
from supervisor.stderr import Stderr
from supervisor.ward import WardSpec
from supervisor.wards import specs_of
from tests.supervisor.ward_rig import Rig, rig, table

__all__ = ["rig"]


def alive(pid: int) -> bool:
    """True while there is such a process, reaped or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_child_has_only_what_is_its_own(rig: Rig, tmp_path: Path) -> None:
    """R13: no descriptor of the parent; its own group, environment, directory; no signal is blocked."""
    kept = os.open("/etc/passwd", os.O_RDONLY)
    secret = socket.socket()
    os.set_inheritable(kept, True)
    told = (("MODE", "fast"), ("BREAKERD_NAMESPACE", "shop"))
    rig.apply(table("web", "stays", str(tmp_path), environment=told, directory=str(tmp_path)))
    seen = rig.seen(tmp_path)
    ward = rig.ward("web")
    assert (seen["pid"], seen["group"], seen["parent"]) == (ward.pid, ward.pid, os.getpid())
    high = {number: what for number, what in seen["descriptors"].items() if int(number) > 2 and what}
    # Of multiprocessing, which says that the parent is gone, and of the log.
    assert [what.partition(":")[0] for what in high.values()] == ["pipe", "pipe"], high
    environment = seen["environment"]
    assert environment["BREAKERD_SOCKET"] == "/nowhere/breakerd.sock"
    assert environment["BREAKERD_NAME"] == "web"
    assert (environment["MODE"], environment["BREAKERD_NAMESPACE"]) == ("fast", "shop")
    assert (seen["directory"], seen["path"]) == (str(tmp_path), str(tmp_path))
    assert (seen["arguments"], seen["blocked"]) == (["web"], [])
    os.close(kept)
    secret.close()


def test_a_good_life(rig: Rig, tmp_path: Path) -> None:
    """Started, running, stopped by SIGTERM; each change is told once, the last with how it ended."""
    rig.apply(table("web", "stays", str(tmp_path)))
    rig.seen(tmp_path)
    rig.until(lambda: rig.states() == {"web": "RUNNING"})
    pid = rig.ward("web").pid
    assert rig.last("web") | {"since": 0.0} == {
        "name": "web",
        "number": 1,
        "title": "web",
        "state": "RUNNING",
        "pid": pid,
        "since": 0.0,
        "restarts": 0,
        "last_exit": "",
        "internal": False,
        "log_gaps": 0,
        "gone": False,
    }
    assert rig.wards.pids() == {pid}
    assert rig.command("stop", "web") == ["web"]
    rig.until(lambda: rig.states() == {"web": "STOPPED"})
    assert rig.history("web") == ["STARTING", "RUNNING", "STOPPING", "STOPPED"]
    assert (rig.last("web")["last_exit"], rig.last("web")["pid"]) == ("killed by SIGTERM", 0)
    assert not alive(pid)


def test_one_that_ignores_sigterm_is_killed(rig: Rig, tmp_path: Path) -> None:
    """After stop_timeout_s."""
    rig.apply(table("web", "ignores", str(tmp_path), stop_timeout_s=0.05))
    rig.seen(tmp_path)
    rig.command("stop", "web")
    rig.until(lambda: rig.states() == {"web": "STOPPED"})
    assert rig.last("web")["last_exit"] == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("kind", "what", "args", "state", "restarts", "last"),
    [
        ("permanent", "returns", (), "FATAL", 2, "exit code 0"),
        ("permanent", "ends", (7,), "FATAL", 2, "exit code 7"),
        ("transient", "returns", (), "EXITED", 0, "exit code 0"),
        ("transient", "raises", (), "FATAL", 2, "exit code 1"),
        ("temporary", "ends", (7,), "EXITED", 0, "exit code 7"),
        ("temporary", "no_such_target", (), "EXITED", 0, "exit code 1"),
    ],
)
def test_kinds_of_restart(
    rig: Rig, kind: str, what: str, args: tuple[int, ...], state: str, restarts: int, last: str
) -> None:
    """What follows an end, by its exit code and its table; beside it another one goes on."""
    rig.apply(table("web", what, *args, restart=kind, max_restarts=2), table("other", "stays", os.devnull))
    rig.until(lambda: rig.states()["web"] == state and rig.last("web")["state"] == state)
    told = rig.last("web")
    assert (told["restarts"], told["last_exit"], told["pid"]) == (restarts, last, 0)
    assert rig.wards.escalated == ""


def test_beyond_its_limit_one_may_escalate(rig: Rig) -> None:
    """Then everything has to end."""
    rig.apply(table("web", "ends", 1, max_restarts=1, beyond="escalate"))
    rig.until(lambda: rig.wards.escalated)
    assert (rig.wards.escalated, rig.states()) == ("web", {"web": "FATAL"})


def test_a_killed_one_is_back(rig: Rig, tmp_path: Path) -> None:
    """Kill -9 from outside, like any other bad end."""
    rig.apply(table("web", "stays", str(tmp_path)))
    rig.seen(tmp_path)
    pid = rig.ward("web").pid
    os.kill(pid, signal.SIGKILL)
    rig.until(lambda: rig.ward("web").pid not in (0, pid))
    assert (rig.ward("web").last_exit, rig.ward("web").course.restarts) == ("killed by SIGKILL", 1)


def test_one_over_its_memory_is_restarted(rig: Rig, tmp_path: Path) -> None:
    """Seen by psutil; it counts as a restart, and the reason is told."""
    # A child begins with what this process has.
    limit = psutil.Process().memory_info().rss + (100 << 20)
    rig.apply(table("web", "grows", str(tmp_path), 300, memory_max=limit, restart="transient"))
    pid = rig.seen(tmp_path, f"grown-{300 << 20}")["pid"]
    rig.until(lambda: rig.ward("web").course.restarts)
    assert rig.ward("web").pid != pid
    assert rig.ward("web").last_exit.startswith("killed by SIGTERM (")
    assert rig.ward("web").last_exit.endswith("MiB of memory, over memory_max)")


def test_one_without_a_heartbeat_is_restarted(rig: Rig, tmp_path: Path) -> None:
    """It lives as long as it beats; what hangs is ended."""
    rig.apply(table("web", "beats", str(tmp_path), 40, heartbeat_timeout_s=0.4))
    began = time.monotonic()
    rig.until(lambda: rig.ward("web").course.restarts)
    assert time.monotonic() - began > 0.8
    assert "(no heartbeat for " in rig.ward("web").last_exit


def test_a_stop_is_in_reverse(rig: Rig, tmp_path: Path) -> None:
    """The next is asked when the one before is gone; nobody is started any more."""
    rig.apply(
        table("first", "leaves_a_note", str(tmp_path), "1"),
        table("second", "leaves_a_note", str(tmp_path), "2"),
        table("third", "leaves_a_note", str(tmp_path), "3"),
        table("failing", "ends", 1, max_restarts=1000),
    )
    for name in "123":
        rig.seen(tmp_path, name)
    rig.wards.leave(time.monotonic())
    rig.until(lambda: rig.wards.over(time.monotonic()))
    assert (tmp_path / "order").read_text().split() == ["3", "2", "1"]
    assert set(rig.states().values()) == {"STOPPED"}
    with pytest.raises(BadRequest, match="about to end"):
        rig.command("start", "first")


def test_all_are_stopped_in_reverse_and_started_again(rig: Rig, tmp_path: Path) -> None:
    """As an operator says it; the supervisor's own are not among them."""
    rig.apply(
        WardSpec(table("own", "talks"), internal=True, talk=True),
        table("first", "leaves_a_note", str(tmp_path), "1"),
        table("second", "leaves_a_note", str(tmp_path), "2", count=2),
    )
    for name in "12":
        rig.seen(tmp_path, name)
    rig.until(lambda: set(rig.states().values()) == {"RUNNING"})
    assert rig.command("stop", "all") == ["first", "second:1", "second:2"]
    rig.until(lambda: sorted(rig.states().values()) == ["RUNNING", *["STOPPED"] * 3])
    assert (tmp_path / "order").read_text().split()[-1] == "1"
    rig.command("start", "all")
    rig.until(lambda: set(rig.states().values()) == {"RUNNING"})
    before = rig.ward("second:2").pid
    assert rig.command("restart", "second:2") == ["second:2"]
    rig.until(lambda: rig.ward("second:2").pid not in (0, before))
    for name in ("second:3", "third", "first:x", "own", "own:1"):
        with pytest.raises(WorkerNotFound):
            rig.command("start", name)
    with pytest.raises(BadRequest, match="no verb"):
        rig.command("burn", "all")


def test_a_new_configuration_changes_only_what_differs(rig: Rig, tmp_path: Path) -> None:
    """The same table is the same process; of a count only the difference is started or stopped."""
    folder = str(tmp_path)
    same, many = table("same", "stays", folder), table("many", "stays", folder, count=3)
    changed, removed = table("changed", "stays", folder), table("removed", "stays", folder)
    idle = table("idle", "stays", folder, autostart=False)
    rig.apply(same, many, changed, removed, idle)
    rig.until(lambda: sorted(rig.states().values()) == [*["RUNNING"] * 6, "STOPPED"])
    pids = {ward.title: ward.pid for ward in rig.wards}
    rig.apply(
        table("added", "stays", folder),
        same,
        replace(many, count=2),
        replace(changed, args=(folder, "x")),
        replace(idle, args=(folder, "y")),
    )
    rig.until(lambda: "removed" not in rig.states() and set(rig.states().values()) == {"RUNNING", "STOPPED"})
    after = {ward.title: ward.pid for ward in rig.wards}
    assert list(after) == ["added", "same", "many:1", "many:2", "changed", "idle"]
    for title in ("same", "many:1", "many:2"):
        assert after[title] == pids[title]
    assert after["changed"] not in (0, pids["changed"])
    assert after["idle"] == 0
    for title in ("removed", "many:3"):
        assert rig.last(title)["gone"] is True
    rig.apply(replace(many, count=1))
    rig.until(lambda: rig.states() == {"many": "RUNNING"})
    assert rig.ward("many").pid == pids["many:1"]
    assert rig.last("many:1")["gone"] is True


def test_one_that_is_removed_and_wanted_again(rig: Rig, tmp_path: Path) -> None:
    """While it still ends: it is started after that, and there are never two of it."""
    web = table("web", "ignores", str(tmp_path), stop_timeout_s=0.3)
    rig.apply(web)
    pid = rig.seen(tmp_path)["pid"]
    rig.apply()
    assert rig.states() == {"web": "STOPPING"}
    rig.apply(replace(web, args=(str(tmp_path), "again")))
    rig.seen(tmp_path, "again")
    rig.until(lambda: rig.states() == {"web": "RUNNING"})
    assert not alive(pid)
    assert rig.last("web")["gone"] is False


def test_a_prober_talks_to_the_daemon(rig: Rig) -> None:
    """One pair a life; a daemon is told of each once, and inherits the talks of those that live."""
    rig.apply(WardSpec(table("prober", "talks"), internal=True, talk=True))
    rig.until(lambda: rig.states() == {"prober:1": "RUNNING"})
    ((_, said, (number,)),) = [told for told in rig.told if told[0] == b"P"]
    first = rig.ward("prober:1").pid
    assert said == {"title": "prober:1", "pid": first}
    with socket.socket(fileno=os.dup(number)) as ours:
        ours.settimeout(5.0)
        ours.send(b"hello")
        assert ours.recv(99) == f"{first} hello".encode()
        rig.wards.replace("prober:1", first + 1, time.monotonic())
        assert rig.states() == {"prober:1": "RUNNING"}
        rig.wards.replace("prober:1", first, time.monotonic())
        rig.until(lambda: rig.ward("prober:1").pid not in (0, first))
        assert ours.recv(99) == b""
    assert rig.ward("prober:1").course.restarts == 0
    (talk,) = rig.reports.inherited()
    assert (talk.title, talk.pid) == ("prober:1", rig.ward("prober:1").pid)
    rig.told.clear()
    rig.reports.serving()
    rig.reports.flush()
    assert [kind for kind, _, _ in rig.told] == [b"M"]


def test_a_daemon_whose_queue_is_full_is_told_later(rig: Rig, tmp_path: Path) -> None:
    """Only the newest state waits."""
    rig.full = True
    rig.apply(table("web", "stays", str(tmp_path)))
    rig.until(lambda: rig.states() == {"web": "RUNNING"})
    assert (rig.told, rig.reports.waiting) == ([], True)
    rig.full = False
    rig.turn()
    assert (rig.history("web"), rig.reports.waiting) == (["RUNNING"], False)


def test_without_descriptors_one_is_started_later(rig: Rig, tmp_path: Path) -> None:
    """A fork that fails is a bad end, leaves nothing open, and the next one follows."""
    rig.apply(table("web", "stays", str(tmp_path), autostart=False, max_restarts=1000))
    told = []
    gc.collect()  # what tests before this one have left
    before = os.listdir("/proc/self/fd")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(9):
        free = sorted(set(range(len(before) + 10)) - set(map(int, before)))[spare]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            rig.command("start", "web")
            rig.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        told.append(rig.ward("web").last_exit)
        rig.command("stop", "web")
        rig.until(lambda: rig.states() == {"web": "STOPPED"} and rig.read())
        assert os.listdir("/proc/self/fd") == before
    assert told[:6] == ["cannot be started: Too many open files"] * 6
    rig.command("start", "web")
    rig.seen(tmp_path)


def test_what_a_configuration_asks_for() -> None:
    """The tables in their order; probers before them, only where there is a probe."""
    text = '[workers.b]\ntarget = "m:f"\n[workers.a]\ntarget = "m:f"\n'
    assert specs_of(parse(text, "f")) == (
        WardSpec(WorkerTable("b", "m:f")),
        WardSpec(WorkerTable("a", "m:f")),
    )
    probe = '[supervisor]\nprobe_processes = 3\n[breakers.x.probe]\nkind = "tcp"\naddress = "h:1"\n'
    prober, *others = specs_of(parse(text + probe, "f"))
    assert (prober.internal, prober.talk, prober.table.target) == (True, True, "workers.prober:main")
    assert prober.titles() == ("prober:1", "prober:2", "prober:3")
    assert len(others) == 2


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")]
)
def test_how_it_ended(code: int, text: str) -> None:
    """In words, also for a signal without a name."""
    assert how_ended(code) == text


def test_a_loop_that_stood_still_holds_nobody_to_have_been_silent(rig: Rig, tmp_path: Path) -> None:
    """A container that was paused stands still as a whole; whoever goes on hanging is ended later."""
    rig.apply(table("web", "beats", str(tmp_path), 10**6, heartbeat_timeout_s=1.5))
    pid = rig.seen(tmp_path)["pid"]
    os.kill(pid, signal.SIGSTOP)
    threading.Event().wait(STOOD_S + 0.2)  # the loop is not turned
    rig.turn()
    assert rig.ward("web").course.state is WardState.RUNNING
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        rig.turn()
    assert rig.ward("web").pid == pid
    os.kill(pid, signal.SIGSTOP)
    rig.until(lambda: rig.ward("web").course.state is WardState.STOPPING)
    os.kill(pid, signal.SIGCONT)
    rig.until(lambda: rig.ward("web").course.restarts)


def test_a_prober_with_the_pid_of_an_earlier_one_is_another() -> None:
    """The kernel gives a number away again; the daemon gets the new talk, too."""
    told: list[bytes] = []
    # That append returns None is meant: whatever is sent is kept, and has been taken.
    reports = Reports(lambda data, _numbers: not told.append(data))  # type: ignore[func-returns-value]
    reports.serving()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            reports.talks("prober:1", 7, end)
            reports.flush()
            reports.silent("prober:1")
    assert len(told) == 2


class _Full(Logs):
    """As where /dev/shm is full: no log can be begun until there is room."""

    full = True

    def begin(self, title: str) -> Life:
        """Raises OSError."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().begin(title)


def test_without_room_for_semaphores_one_is_started_later(rig: Rig, tmp_path: Path) -> None:
    """However long it takes: it is no fault of the worker's, and nobody is given up for it."""
    logs = rig.home.logs = _Full(str(tmp_path), Stderr(-1, time.monotonic), journal=False)
    rig.apply(table("web", "stays", str(tmp_path), max_restarts=0))
    rig.until(lambda: rig.ward("web").last_exit == "cannot be started: No space left on device")
    assert rig.states() == {"web": "STARTING"}
    logs.full = False
    rig.seen(tmp_path)
    assert rig.ward("web").course.restarts == 0
