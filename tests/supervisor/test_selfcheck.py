"""What the daemon sees of itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from supervisor import selfcheck
from supervisor.disk_actor import DiskActor
from tests.schemas import problems


class Disk:
    """The actor's two facts."""

    took_s = 0.25
    bytes_per_s = 12.5
    problem = ""


def test_the_answer_has_its_shape_and_true_figures(tmp_path: Path) -> None:
    """Limits, descriptors, room; what cannot be asked is null."""
    disk = cast(DiskActor, Disk())
    told = selfcheck.examine(str(tmp_path), str(tmp_path / "absent"), disk, 5)
    assert problems("selfcheck", told) == []
    assert (told["clock_ns"], told["uid"]) == (5, os.getuid())
    assert told["descriptors"] >= 3
    assert told["runtime"]["free_bytes"] > 0
    assert told["state"]["free_bytes"] is None
