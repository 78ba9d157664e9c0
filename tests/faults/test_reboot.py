"""The promise P2: what a reboot of the host leaves of states and counts."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import could_not_run
from tests.faults.effort import PATIENCE_S
from tests.faults.judge import judge
from tests.live.house import House, wait_for

pytestmark = pytest.mark.timeout(PATIENCE_S)


@pytest.mark.fault("P2")
@pytest.mark.needs_root
def test_p2_state_survives_a_reboot(build: Callable[..., House]) -> None:
    """After a reboot (new runtime directory and boot id) the copy is used, times go on, and it is told."""
    unshare = shutil.which("unshare")
    probe = [unshare or "", "-m", "sh", "-c", "mount --bind /dev/null /proc/sys/kernel/random/boot_id"]
    if unshare is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        could_not_run("P2", "the boot id cannot be changed in a mount namespace")
    house = build().start()
    hand = house.hand()
    hand.order("guard", breaker="open", failure_threshold=3, failure_rate=None, recovery_timeout=120.0,
               recovery_jitter=0.0)  # fmt: skip
    hand.order("guard", breaker="forced", failure_threshold=None, failure_rate=None)
    hand.order("call", breaker="open", how="fail", times=3)
    hand.order("call", breaker="forced", times=7)
    wait_for("open", lambda: house.breaker("open")["state"] == "OPEN", 3.0)
    house.ask("command", breaker="forced", action="force-open", for_s=600, reason="before the reboot")
    assert hand.leave() == 0
    judge(house)
    before = {name: house.breaker(name) for name in ("open", "forced")}
    totals = house.stats()["totals"]
    copied = wait_for("a copy", lambda: {path: path.stat().st_mtime for path in house.state.iterdir()}, 5.0)
    wait_for("a copy of it all", lambda: _newer(house.state, copied), 5.0, 0.05)
    time.sleep(0.3)  # the copy is made of one instant: let it be finished
    house.kill_all()
    shutil.rmtree(house.runtime)
    boot = house.root / "boot_id"
    boot.write_text("12345678-1234-1234-1234-123456789abc\n")
    mount = f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$@"'
    house.prefix = (unshare, "-m", "sh", "-c", mount, "sh")
    house.start()
    assert house.stats()["totals"] == totals
    for name, was in before.items():
        now = house.breaker(name)
        assert now["state"] == was["state"]
    assert house.breaker("forced")["manual"]["reason"] == "before the reboot"
    assert 590.0 <= house.breaker("forced")["manual"]["expires_in_s"] <= 600.0
    assert 110.0 <= house.breaker("open")["retry_after_s"] <= 120.0
    assert house.workers() == []
    told = str(house.ask("events", after=0, limit=100)["events"])
    assert "copy" in told


def _newer(folder: Path, than: dict[Path, float]) -> bool:
    """True once every copy that changes at all was written again."""
    return any(path.stat().st_mtime > than.get(path, 0.0) for path in folder.iterdir()) or _quiet(folder)


def _quiet(folder: Path) -> bool:
    """True if the newest copy is older than two intervals: there is nothing more to be copied."""
    return time.time() - max(path.stat().st_mtime for path in folder.iterdir()) > 2.0
