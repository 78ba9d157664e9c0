"""How the demo looks: whole scenes in, text out; no terminal and no process."""

from __future__ import annotations

import io

from rich.console import Console

from ipc import BreakerState
from workers.demo.lines import Lines, status
from workers.demo.scene import BreakerView, Event, Rates, Scene, SupervisorView, WorkerView
from workers.demo.screen import PLAIN_BLOCKS, picture, spark

WORKERS = (
    WorkerView(1, 4001, "refused", BreakerState.OPEN, 97.0, 1200, 2, 310),
    WorkerView(2, 4002, "killed", BreakerState.CLOSED, 0.0, 900, 1, 280),
)
TOGETHER = Scene(
    at_s=14.2,
    act=1,
    phase="outage",
    progress=0.5,
    workers=WORKERS,
    breaker=BreakerView("shop/database", "OPEN", 3, 5, 0.7, "0 of 3 in flight, 0 passed"),
    supervisor=SupervisorView(daemon_pid=4010, answers=True),
    rates=Rates(0.0, 2.0, 190.0),
    history=(Rates(400.0, 0.0, 0.0), Rates(0.0, 20.0, 60.0), Rates(0.0, 2.0, 190.0)),
    events=(Event(13.9, "demo", "process 4020 took the exclusive lock of the database"),),
    result="42 calls hit the dead database",
    database="LOCKED",
)
ALONE = Scene(2.0, 0, "all is well", 0.1, WORKERS, None, None, Rates(400.0, 0.0, 0.0), (), (), "", "up")


def drawn(scene: Scene, width: int = 100, height: int = 40) -> list[str]:
    """The picture as lines of text."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(picture(scene, console))
    return capture.get().splitlines()


def test_the_picture_shows_everything() -> None:
    """Workers, breaker, database, supervisor, rates, events, act and phase are all visible."""
    text = "\n".join(drawn(TOGETHER))
    for part in (
        "act 2 of 2: host-wide breaker  outage",
        "4001  refused     OPEN",
        "4002  killed",
        "LOCKED",
        "OPEN  shop/database, generation 3, trials in 0.7 s",
        "answers, daemon pid 4010",
        "refused/s      190",
        "act before   42 calls hit the dead database",
        "13.9 s process 4020 took the exclusive lock of the database",
    ):
        assert part in text


def test_the_picture_keeps_its_height() -> None:
    """The picture does not jump when events come in: 26 lines with two workers, whatever happened."""
    assert len(drawn(TOGETHER)) == len(drawn(ALONE)) == 26


def test_the_picture_fits_its_terminal() -> None:
    """No line is wider than the terminal, nor than 100 columns; the events leave when it is low."""
    assert max(map(len, drawn(TOGETHER, 80))) <= 80
    assert max(map(len, drawn(TOGETHER, 200))) <= 100
    assert len(drawn(TOGETHER, height=20)) == 20


def test_each_worker_has_its_own_breaker_in_the_first_act() -> None:
    """Without a supervisor the host's part counts the workers' own breakers by state."""
    text = "\n".join(drawn(ALONE))
    assert "breaker      1 CLOSED, 1 OPEN" in text
    assert "none: each worker has a breaker of its own" in text


def test_a_dead_daemon_is_visible() -> None:
    """While the daemon does not answer the picture says so."""
    gone = Scene(
        20.0, 1, "kill -9 of the daemon", 0.8, WORKERS, TOGETHER.breaker, SupervisorView(4010, False),
        Rates(400.0, 0.0, 0.0), (), (), "", "up",
    )  # fmt: skip
    assert "away: outcomes wait in the workers' rings" in "\n".join(drawn(gone))
    assert status(gone) == (
        "   400 ok/s, 0 failed/s, 0 refused/s; database up; breaker unknown: the supervisor is away"
    )


def test_a_small_value_is_visible_in_a_spark_line() -> None:
    """The highest value is a full block, nothing is blank, and little is more than nothing."""
    assert spark([0.0, 1.0, 400.0, 200.0]) == " ▁█▄"
    assert spark([0.0, 0.0]) == "  "
    assert spark([]) == ""
    assert spark([3.0], PLAIN_BLOCKS) == "#"


def test_lines_where_there_is_no_terminal() -> None:
    """Each phase and each event is a line of its own, once; the rates follow at most once a second."""
    out = io.StringIO()
    lines = Lines(out)
    for _ in range(3):
        lines.show(ALONE)
    lines.show(TOGETHER)
    lines.show(TOGETHER)
    lines.close()
    assert out.getvalue().splitlines() == [
        "  2.00 s  == in-process breakers: all is well",
        " 13.90 s  demo: process 4020 took the exclusive lock of the database",
        " 14.20 s  == host-wide breaker: outage",
    ]
