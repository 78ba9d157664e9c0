"""C10: the files that hold the state are corrupted, bit by bit and as a whole, between two lives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.faults.effort import PATIENCE_S, effort
from tests.faults.judge import judge
from tests.live.house import House

pytestmark = pytest.mark.timeout(PATIENCE_S)

RULES_OFF: Final[dict[str, Any]] = {"failure_threshold": None, "failure_rate": None}


def corruptions(size: int) -> list[tuple[str, Callable[[bytearray], bytearray | bytes]]]:
    """Ways to spoil a file of that size: bits of its head, seeded bits of its body, lengths, versions."""
    dice = random.Random(10)
    head = list(range(min(96, size)))
    chosen = dice.sample(head, min(len(head), effort(3, len(head))))
    chosen += [dice.randrange(len(head), size) for _ in range(effort(2, 1000))] if size > 96 else []
    ways: list[tuple[str, Callable[[bytearray], bytearray | bytes]]] = [
        (f"bit of byte {index}", lambda data, index=index: _flip(data, index, dice.randrange(8)))  # type: ignore[misc]
        for index in chosen
    ]
    ways += [
        ("empty", lambda _: b""),
        ("half", lambda data: data[: len(data) // 2]),
        ("one byte short", lambda data: data[:-1]),
        ("zeros", lambda data: bytes(len(data))),
        ("noise", lambda data: random.Random(3).randbytes(len(data))),
    ]
    return ways


def _flip(data: bytearray, index: int, bit: int) -> bytearray:
    data[index] ^= 1 << bit
    return data


@pytest.mark.fault("C10")
@pytest.mark.parametrize("which", ["checkpoint", "copy"])
def test_c10_a_corrupt_file_is_noticed_and_never_half_read(build: Callable[..., House], which: str) -> None:
    """Bit flips, truncation, noise in the saved state: the one before or nothing is used, and it is told."""
    house = build().start()
    hand = house.hand()
    for number in range(5):
        hand.order("guard", breaker=f"b{number}", **RULES_OFF)
        hand.order("call", breaker=f"b{number}", times=10 + number)
    assert hand.leave() == 0
    judge(house)
    wanted = {name: values["outcomes"] for name, values in house.stats()["breakers"].items()}
    assert house.stop() == 0
    folder = house.runtime if which == "checkpoint" else house.state
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    runtime = {path.name: path.read_bytes() for path in house.runtime.iterdir() if path.is_file()}
    victim = max(
        (name for name in kept if "lock" not in name), key=lambda name: len(kept[name].rstrip(b"\0"))
    )
    size = len(kept[victim].rstrip(b"\0"))
    for what, spoil in corruptions(size):
        for name, data in runtime.items():
            (house.runtime / name).write_bytes(data)
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        if which == "copy":
            (house.runtime / "checkpoint").unlink()  # as after a reboot: only the copy is left
        whole = bytearray(kept[victim])
        (folder / victim).write_bytes(bytes(spoil(whole[:size])) + bytes(whole[size:]))
        house.log.write_text("")
        house.start()
        found = {name: values["outcomes"] for name, values in house.stats()["breakers"].items()}
        assert found in (wanted, {}), f"{victim}, {what}: {found}"
        told = house.ask("events", after=0, limit=1000)["events"]
        if found != wanted:
            assert any(
                word in str(told) + house.logged()
                for word in ("not used", "damaged", "corrupt", "lost", "crc")
            )
        assert house.stop() == 0
