"""`supervisorctl reload` and SIGHUP against a real supervisor: what is in force, and who may say so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.conftest import could_not_run
from tests.live.house import House, wait_for
from tests.live.test_ctl import as_nobody

OLD = "[breakers.database]\nfailure_threshold = 4\n"
NEW = """
[control]
commanders = ["user:nobody"]
[supervisor]
ring_slots = 1024
tick_s = 0.01
log_level = "error"
[breakers.database]
failure_threshold = 2
critical = true
[namespaces.shop]
users = ["nobody"]
"""


@pytest.fixture
def served(build: Callable[..., House]) -> House:
    """A supervisor with the old file and a worker that has counted two failures of four."""
    house = build(OLD).start()
    hand = house.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", how="fail", times=2)
    wait_for("counted", lambda: house.stats()["totals"]["outcomes"]["failure"] == 2, 5.0)
    return house


def test_a_good_file_is_in_force_when_the_answer_comes(served: House) -> None:
    """Settings of breakers without a loss of what was counted, and the supervisor's own."""
    pids = (served.nursery_pid, served.daemon_pid)
    served.configure(NEW)
    ran = served.run_tool("reload")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "breakers changed: database" in ran.stdout
    shown = served.breaker("database")
    assert (shown["settings"]["failure_threshold"], shown["critical"]) == (2, True)
    assert shown["failure_count"] == 2
    told = served.ask("config")["config"]
    assert told["supervisor"]["ring_slots"] == 1024
    assert told["namespaces"] == {"shop": {"users": ["nobody"]}}
    assert f"(uid {os.getuid()}): control: commanders" in served.run_tool("events").stdout
    # The queue of a worker that attaches now has the new size; the old one keeps its own.
    served.hand("later").order("guard", breaker="other")
    slots = {worker["name"]: worker["ring_slots"] for worker in served.workers()}
    assert slots == {"web": 16_384, "later": 1024}
    # The log is silent now, in the nursery as well.
    before = len(served.logged())
    served.wait_reborn(served.kill_daemon())
    assert "ended: killed" not in served.logged()[before:]
    assert served.breaker("database")["settings"]["failure_threshold"] == 2
    assert served.nursery_pid == pids[0]


def test_one_more_failure_is_judged_by_the_new_file(served: House) -> None:
    """The run of failures went on through the reload."""
    served.configure(OLD.replace("4", "3"))
    assert served.run_tool("reload").returncode == 0
    served.hands[0].order("call", breaker="database", how="fail")
    wait_for("it opens at three", lambda: served.breaker("database")["state"] == "OPEN", 5.0)


def test_sighup_does_the_same_and_the_log_has_the_outcome(served: House) -> None:
    """A terminal that closes tells the whole group: the daemon leaves it to the nursery."""
    served.configure(NEW.replace("error", "info"))
    daemon = served.daemon_pid
    os.kill(daemon, signal.SIGHUP)
    served.signal_nursery(signal.SIGHUP)
    wait_for("applied", lambda: served.breaker("database")["settings"]["failure_threshold"] == 2, 5.0)
    assert served.daemon_pid == daemon
    wait_for("logged", lambda: "is in force: " in served.logged(), 5.0)
    assert "asked for by SIGHUP" in served.run_tool("events").stdout
    served.configure("[breakers.database]\nfailure_threshold = 0\n")
    served.signal_nursery(signal.SIGHUP)
    wait_for("health warns", lambda: served.ask("health", level="full")["status"] == "warn", 5.0)
    assert "breakers.database.failure_threshold: must be >= 1, got 0" in served.logged()


def test_sighup_while_there_is_no_daemon_is_not_lost(served: House) -> None:
    """The next one is told."""
    served.configure(NEW)
    daemon, nursery = served.daemon_pid, served.nursery_pid
    os.kill(nursery, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    os.kill(nursery, signal.SIGHUP)
    os.kill(nursery, signal.SIGCONT)
    wait_for("applied", lambda: served.breaker("database")["settings"]["failure_threshold"] == 2, 10.0)
    assert "asked for by SIGHUP" in served.run_tool("events").stdout


def test_who_may_not_command_may_not_reload_until_the_file_says_so(served: House) -> None:
    """The list of commanders is itself reloaded."""
    if os.getuid() != 0:
        could_not_run("reload-as-another-user", "only root can become another user")
    served.runtime.chmod(0o755)
    os.chmod(served.socket, 0o666)
    denied = as_nobody(served, "reload")
    assert denied.returncode == 4
    assert "commanders" in denied.stderr
    served.configure(NEW.replace("error", "info"))
    assert served.run_tool("reload").returncode == 0
    allowed = as_nobody(served, "reload")
    assert (allowed.returncode, allowed.stderr) == (0, "")
    assert "asked for by nobody (uid 65534): nothing is different" in served.run_tool("events").stdout


def test_without_a_file_it_says_so(house: House) -> None:
    """Exit code 1, and the supervisor is as well as before."""
    ran = house.run_tool("reload")
    assert ran.returncode == 1
    assert "there is no configuration file" in ran.stderr
    house.signal_nursery(signal.SIGHUP)
    wait_for("logged", lambda: house.logged().count("there is no configuration file") == 2, 5.0)
    assert house.ask("health", level="full")["status"] == "pass"
