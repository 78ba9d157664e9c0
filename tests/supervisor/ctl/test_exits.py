"""The exit codes of the design, all of them."""

from __future__ import annotations

from supervisor.ctl.exits import STYLES, exit_code
from supervisor.ctl.page import Verdict


def test_every_verdict_has_its_number_in_every_style() -> None:
    """Numbers that scripts rely on."""
    found = {style: [exit_code(verdict, style) for verdict in Verdict] for style in STYLES}
    assert [verdict.name for verdict in Verdict] == ["OK", "WARN", "FAIL", "UNAVAILABLE", "REFUSED", "USAGE"]
    assert found == {
        "lsb": [0, 0, 3, 4, 1, 2],
        "nagios": [0, 1, 2, 2, 3, 3],
        "probe": [0, 0, 1, 1, 1, 1],
    }
