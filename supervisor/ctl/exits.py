"""The exit codes of supervisorctl, by the style that --exit-code names. Knows only verdicts."""

from __future__ import annotations

from typing import Final

from supervisor.ctl.page import Verdict

STYLES: Final = ("lsb", "nagios", "probe")
"""lsb: as the Linux Standard Base says for a status; nagios: as a check plugin; probe: yes or no."""

_EXITS: Final[dict[Verdict, tuple[int, int, int]]] = {
    #                     lsb nagios probe
    Verdict.OK: (0, 0, 0),
    Verdict.WARN: (0, 1, 0),
    Verdict.FAIL: (3, 2, 1),
    Verdict.UNAVAILABLE: (4, 2, 1),
    Verdict.REFUSED: (1, 3, 1),
    Verdict.USAGE: (2, 3, 1),
}


def exit_code(verdict: Verdict, style: str) -> int:
    """The number for a verdict."""
    return _EXITS[verdict][STYLES.index(style)]
