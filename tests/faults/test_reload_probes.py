"""J4 with probes: a table that goes away, or gets another probe, while its probe is being asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.effort import PATIENCE_S
from tests.faults.judge import judge
from tests.faults.probe_targets import ROOM
from tests.faults.reloads import reload
from tests.live.hand import Hand
from tests.live.house import House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)

PROBED: Final = """
[breakers.{name}]
failure_threshold = 2
recovery_timeout = 60.0
recovery_growth = 1.0
[breakers.{name}.probe]
kind = "python"
target = "tests.faults.probe_targets:{target}"
interval_s = 0.1
interval_max_s = 0.1
jitter = 0.0
timeout_s = 20.0
rise = 1
"""


def seen(house: House, name: str) -> Callable[[], bool]:
    """Whether that file is there: a prober was asked."""
    return (house.root / name).exists


def asked(build: Callable[..., House]) -> tuple[House, Hand]:
    """A house whose `database` and `orders` are OPEN for long, and a prober that is inside of `held`."""
    house = build(PROBED.format(name="database", target="held"))
    house.environment[ROOM] = str(house.root)
    house.start()
    hand = house.hand()
    for breaker in ("database", "orders"):
        hand.order("guard", breaker=breaker, failure_threshold=2, failure_rate=None, recovery_timeout=60.0)
    wait_for("a probe before the openings", seen(house, "held"), 10.0)
    for breaker in ("database", "orders"):
        hand.order("call", breaker=breaker, how="fail", times=2)
        hand.order("call_until", breaker=breaker, result="refused")
    # That one began before the openings and lets no trial begin: the next one would.
    (house.root / "held").unlink()
    (house.root / "go").touch()
    wait_for("a probe is in flight", seen(house, "held"), 10.0)
    assert state(house, "database") == "OPEN"
    return house, hand


def state(house: House, breaker: str) -> str:
    """The state of one breaker."""
    return str(house.breaker(breaker)["state"])


def settled(house: House) -> None:
    """Two more probes of the new table were begun and are over: what the old one said has long arrived."""
    for _ in range(2):
        failed: Path = house.root / "failed"
        failed.unlink(missing_ok=True)
        wait_for("the new probe is asked", failed.exists, 10.0)


@pytest.mark.fault("J4")
@pytest.mark.parametrize("name", ["orders", "database"])
def test_j4_the_verdict_of_a_probe_that_is_gone_decides_nothing(
    build: Callable[..., House], name: str
) -> None:
    """The table is renamed, or has another probe, while the old one is asked; then that passes."""
    house, hand = asked(build)
    house.configure(PROBED.format(name=name, target="fails"))
    changed = reload(house)["changed"]["breakers"]
    if name == "orders":
        assert changed == {"added": ["orders"], "changed": [], "removed": ["database"]}
    else:
        assert changed == {"added": [], "changed": ["database"], "removed": []}
    (house.root / "go").touch()
    settled(house)
    assert (state(house, "database"), state(house, "orders")) == ("OPEN", "OPEN")
    (house.root / "pass").touch()
    wait_for("the new one decides", lambda: state(house, name) == "HALF_OPEN", 5.0)
    other = {"orders": "database", "database": "orders"}[name]
    assert state(house, other) == "OPEN"
    assert hand.leave() == 0
    judge(house)


@pytest.mark.fault("J4")
def test_j4_without_any_probe_the_probers_end(build: Callable[..., House]) -> None:
    """The one that is inside of a probe as well; with a probe again they are there again."""
    house, hand = asked(build)
    house.configure("[breakers.database]\nfailure_threshold = 2\n")
    assert reload(house)["ok"] is True
    wait_for("no prober is left", lambda: not probers(house), 10.0)
    house.configure(PROBED.format(name="orders", target="fails"))
    assert reload(house)["ok"] is True
    (house.root / "pass").touch()
    wait_for("it is asked again", lambda: state(house, "orders") == "HALF_OPEN", 10.0)
    assert len(probers(house)) == 2
    assert hand.leave() == 0
    judge(house)


def probers(house: House) -> list[str]:
    """The titles of the probers that there are."""
    names = [str(one["name"]) for one in house.ask_patiently("status")["processes"]]
    return [name for name in names if name.startswith("prober")]
