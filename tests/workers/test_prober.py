"""A real prober: programs and functions, whatever they do, and its own end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.servers import Postgres, RedisServer
from tests.workers.talking import CANARY, SHORT_S, SPARE_S, TalkingProber, closed_port, is_late

# --- programs and functions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exit 0", ("passed", "exit code 0")),
        ("echo all is well; echo more", ("passed", "all is well")),
        ("echo no disk >&2; exit 3", ("failed", "exit code 3: no disk")),
        ("kill -9 $$", ("failed", "killed by signal 9")),
        ("exec >&- 2>&-; exit 4", ("failed", "exit code 4")),
        ("head -c 3000000 /dev/zero | tr '\\0' x; exit 5", ("failed", None)),
        ("echo password=$CANARY_WORD; exit 1", ("failed", "exit code 1: password=***")),
        ("read line || exit 6", ("failed", "exit code 6")),
    ],
)
def test_exec(prober: TalkingProber, script: str, found: tuple[str, str | None]) -> None:
    """The exit code decides, the first line is shown, however much it prints."""
    verdict, text = prober.verdict("exec", command=["/bin/sh", "-c", script])
    assert verdict == found[0]
    assert found[1] is None or text == found[1]


def test_exec_that_cannot_be_started(prober: TalkingProber) -> None:
    """There is no such program: nothing was asked."""
    assert prober.verdict("exec", command=["/nowhere/at/all"]) == (
        "error",
        "/nowhere/at/all cannot be run: No such file or directory",
    )


FAMILY: Final = "sleep 600 & echo $! ; sleep 600 & wait"


def gone(pid: int) -> bool:
    """True if the process ends within the spare time, or has."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([end], [], [], SPARE_S)[0])
    finally:
        os.close(end)


def members(group: int) -> list[int]:
    """The processes of a group, ended ones that nobody has reaped included."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                found.append(pid)
    return found


def test_exec_is_killed_as_a_group(prober: TalkingProber) -> None:
    """What it started in the background goes with it, also when it has ended well itself."""
    told = prober.ask("exec", SHORT_S, command=["/bin/sh", "-c", FAMILY])
    assert (told["verdict"], told["text"]) == ("failed", f"no answer within {SHORT_S:g} s")
    group = next(one["group"] for one in prober.said if "group" in one)
    assert all(gone(pid) for pid in (group, *members(group)))
    verdict, text = prober.verdict("exec", command=["/bin/sh", "-c", "sleep 600 & echo $!"])
    assert verdict == "passed"
    assert gone(int(text))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_group_is_told_before_it_is_waited_for(prober: TalkingProber, number: int) -> None:
    """Asked to end, a prober kills its program; killed, it has said whom to kill."""
    prober.put({"kind": "exec", "timeout_s": 60.0, "command": ["/bin/sh", "-c", FAMILY]})
    group = prober.hear("group")["group"]
    assert os.getpgid(group) == group != os.getpgid(prober.process.pid)
    prober.process.send_signal(number)
    assert prober.ended() == (0 if number == signal.SIGTERM else -number)
    if number == signal.SIGKILL:
        assert psutil.pid_exists(group)
        os.killpg(group, signal.SIGKILL)
    assert gone(group)


@pytest.fixture
def functions(tmp_path: Path) -> str:
    """A module with functions of every kind; the path to import it from."""
    (tmp_path / "checks.py").write_text(
        "import os, time\n"
        "def fine(): return None\n"
        "def no(): return False\n"
        "def bad(): raise RuntimeError('password=' + os.environ['CANARY_WORD'])\n"
        "def leave(): raise SystemExit(3)\n"
        "def slow(): time.sleep(600)\n"
        "def deaf():\n"
        "    end = time.monotonic() + 600\n"
        "    while time.monotonic() < end:\n"
        "        try: time.sleep(600)\n"
        "        except Exception: pass\n"
        "async def later(): pass\n"
        "class Box:\n"
        "    check = staticmethod(fine)\n"
        "value = 5\n"
    )
    (tmp_path / "broken.py").write_text("raise OSError('no licence')\n")
    return str(tmp_path)


def test_python(functions: str) -> None:
    """It fails by raising or by returning False, and hurts nobody; what cannot be called asks nothing."""
    with TalkingProber(PYTHONPATH=f"{functions}:{os.pathsep.join(sys.path)}", CANARY_WORD=CANARY) as prober:
        for target, found in (
            ("checks:fine", ("passed", "it returned")),
            ("checks:Box.check", ("passed", "it returned")),
            ("checks:no", ("failed", "it returned False")),
            ("checks:bad", ("failed", "RuntimeError: password=***")),
            ("checks:leave", ("failed", "SystemExit: 3")),
            ("checks:value", ("error", "checks:value is not a function that can be called")),
            ("checks:later", ("error", "checks:later is not a function that can be called")),
            ("broken:f", ("error", "broken:f cannot be imported: OSError: no licence")),
        ):
            assert prober.verdict("python", target=target) == found
        assert prober.verdict("python", target="nowhere:f")[0] == "error"
        assert prober.verdict("python", target="checks:nothing")[0] == "error"
        is_late(prober, "python", target="checks:slow")
        is_late(prober, "python", target="checks:deaf")
        assert CANARY not in json.dumps(prober.said) + prober.printed()


# --- its life -----------------------------------------------------------------------------------------


def test_it_ends_when_nobody_is_left_who_could_ask(prober: TalkingProber) -> None:
    """A daemon's end leaves the nursery's copy; only the last one counts."""
    copy = prober.link.dup()
    prober.put(None)
    prober.link.close()
    copy.settimeout(SPARE_S)
    assert json.loads(copy.recv(8192))["verdict"] == "passed"
    copy.close()
    assert prober.ended() == 0


def test_it_ends_in_the_middle_of_a_probe_when_nobody_hears_the_answer(prober: TalkingProber) -> None:
    """The answer has nowhere to go: that is no error of its own."""
    prober.put({"kind": "exec", "timeout_s": 60.0, "command": ["/bin/sh", "-c", "exit 0"]})
    prober.link.close()
    assert prober.ended() == 0


def test_it_ends_on_sigterm(prober: TalkingProber) -> None:
    """At once, whatever it waits for."""
    prober.put(None)
    prober.hear("verdict")
    prober.process.send_signal(signal.SIGTERM)
    assert prober.ended() == 0


def test_a_question_of_another_version(prober: TalkingProber) -> None:
    """It says so; that decides nothing."""
    assert prober.verdict("smtp") == (
        "error",
        "this prober is of another version: it does not know smtp",
    )
    assert prober.verdict("redis", url="redis://h", colour="red") == (
        "error",
        "this prober is of another version: it does not know colour",
    )


def test_no_descriptor_and_no_process_is_left_of_a_probe(
    prober: TalkingProber, valkey: RedisServer, postgres: Postgres
) -> None:
    """Whether it passed or failed."""
    process = psutil.Process(prober.process.pid)

    def round_of_all() -> tuple[int, int]:
        for kind, keys in (
            ("redis", {"url": valkey.url()}),
            ("redis", {"url": "redis://127.0.0.1:1/0"}),
            ("sqlalchemy", {"url": postgres.url(), "statement": "SELECT 1"}),
            ("sqlalchemy", {"url": postgres.url(), "statement": "SELECT 1/0"}),
            ("exec", {"command": ["/bin/sh", "-c", "exit 1"]}),
            ("tcp", {"address": f"127.0.0.1:{closed_port()}"}),
        ):
            prober.ask(kind, **keys)
        return process.num_fds(), len(process.children())

    first = round_of_all()
    assert [round_of_all() for _ in range(5)] == [first] * 5
    assert first[1] == 0
