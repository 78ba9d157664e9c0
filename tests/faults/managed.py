"""What the tests of managed workers share: a house that keeps some, how they are, and the end of them.

The workers are `tests.live.managed_targets`, whose every call is in a ledger. Neighbours: `judge`, `oracle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.faults import oracle
from tests.faults.judge import Judged, judge
from tests.live.house import House, wait_for

TABLE: Final = """
[workers.{name}]
target = "tests.live.managed_targets:calls"
args = ["{ledgers}", "{name}", {per_s}]
max_restarts = 1000
backoff_max_s = 0.2
"""
NAMES: Final = ("mail", "orders")
START_S: Final = 15.0


def keeping(build: Callable[..., House], config: str = "", per_s: int = 300) -> House:
    """A house, not started, whose configuration has a worker of each name."""
    house = build()
    tables = (TABLE.format(name=name, ledgers=house.ledgers, per_s=per_s) for name in NAMES)
    house.configure(config + "".join(tables))
    return house


def processes(house: House) -> dict[str, Any]:
    """Every managed process by its title, as the supervisor tells."""
    told = house.ask_patiently("status")["processes"]
    return {one["name"]: one for one in told if "managed" in one}


def pids(house: House) -> dict[str, int]:
    """Their pids, those that live."""
    return {title: one["pid"] for title, one in processes(house).items() if one["pid"]}


def counted(house: Judged, name: str) -> int:
    """Successes of the breaker with that short name."""
    found = oracle.counted(house.stats(), name)
    return int(found["outcomes"]["success"]) if found else 0


def calling(house: House, seconds: float = START_S) -> None:
    """Wait until each of them lives and has been counted further."""
    before = {name: counted(house, name) for name in NAMES}
    wait_for("all of them live", lambda: set(pids(house)) == set(NAMES), seconds, 0.02)
    wait_for(
        "all of them call", lambda: all(counted(house, name) > before[name] for name in NAMES), seconds, 0.02
    )


def dismiss(house: House) -> Any:
    """Reload without them: they end in order, and everything is counted."""
    assert house.config is not None
    text = house.config.read_text()
    house.configure(text[: text.index("[workers.")])
    assert house.ask("reload", timeout=10.0)["ok"] is True
    wait_for("all of them have ended", lambda: not processes(house), START_S, 0.02)
    return judge(house)
