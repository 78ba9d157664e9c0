"""The demo on a terminal: one live picture of workers, breaker, rates, events, phase and progress.

It is drawn on the alternate screen by the play's own frames (no thread), so the terminal is left as it was
found; the account follows below. Neighbours: `scene` (what is drawn), `lines` (where there is no terminal).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workers.demo.account import Account, report
from workers.demo.lines import own_breakers
from workers.demo.scene import ACTS, Event, Scene, WorkerView

EVENTS_MAX: Final = 8
OTHER_LINES: Final = 16
"""What the picture needs beside workers and events."""
WIDTH_MAX: Final = 100
"""Wider pictures are harder to read, not better."""
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
PLAIN_BLOCKS: Final = " .:-=+*%#"
"""Where the terminal's encoding has no blocks."""
STATES: Final = {
    "CLOSED": "bold green",
    "OPEN": "bold red",
    "HALF_OPEN": "bold yellow",
}
DOING: Final = {
    "starting": "dim",
    "working": "green",
    "waiting": "red",
    "refused": "yellow",
    "killed": "bold white on red",
    "stopped": "dim",
}


class Screen:
    """An audience before a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._live.start()

    def show(self, scene: Scene) -> None:
        """Draw the scene."""
        self._live.update(picture(scene, self._console), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def picture(scene: Scene, console: Console) -> RenderableType:
    """The whole scene, as high as it needs and no wider than `WIDTH_MAX`."""
    width = min(console.width, WIDTH_MAX)
    shown = max(1, min(EVENTS_MAX, console.height - OTHER_LINES - len(scene.workers)))
    parts = {
        "host": _host(scene, console, width),
        "workers": _workers(scene.workers),
        "events": _events(scene.events, shown),
    }
    panels = (
        Panel(part, title=title, title_align="left", box=box.ROUNDED, width=width)
        for title, part in parts.items()
    )
    return Group(_head(scene, width), *panels)


def _head(scene: Scene, width: int) -> RenderableType:
    """Which act, which phase, how far."""
    line = Text.assemble(
        ("breakerd demo", "bold"),
        f"  act {scene.act + 1} of {len(ACTS)}: ",
        (ACTS[scene.act], "bold cyan"),
        "  ",
        (scene.phase, "bold reverse" if scene.database != "up" else "bold"),
    )
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=1.0, completed=scene.progress, width=width - 10), f"{scene.at_s:5.1f} s")
    return Group(line, grid)


def _workers(workers: Iterable[WorkerView]) -> Table:
    """A row for each worker."""
    table = Table(box=None, pad_edge=False, expand=True)
    for name in ("worker", "pid"):
        table.add_column(name, justify="right")
    table.add_column("is")
    table.add_column("its breaker")
    for name in ("calls/s", "succeeded", "failed", "refused"):
        table.add_column(name, justify="right")
    for one in workers:
        state = one.sees.name if one.sees is not None and one.doing != "killed" else "-"
        table.add_row(
            str(one.number),
            str(one.pid),
            Text(one.doing, DOING.get(one.doing, "")),
            Text(state, STATES.get(state, "dim")),
            f"{one.calls_per_s:,.0f}",
            f"{one.succeeded:,}",
            Text(f"{one.failed:,}", "red" if one.failed else ""),
            Text(f"{one.refused:,}", "yellow" if one.refused else ""),
        )
    return table


def _host(scene: Scene, console: Console, width: int) -> RenderableType:
    """Database, breaker, supervisor and the three rates over time."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    locked = scene.database != "up"
    grid.add_row("database", Text(scene.database, "bold white on red" if locked else "bold green"))
    grid.add_row("breaker", _breaker(scene))
    grid.add_row("supervisor", _supervisor(scene))
    blocks = BLOCKS if console.encoding.lower().startswith("utf") else PLAIN_BLOCKS
    room = max(10, width - 36)
    for name, style in (("succeeded", "green"), ("failed", "red"), ("refused", "yellow")):
        values = [float(getattr(rates, name)) for rates in scene.history][-room:]
        now = float(getattr(scene.rates, name))
        grid.add_row(f"{name}/s", Text.assemble((f"{now:5,.0f} ", "bold"), (spark(values, blocks), style)))
    grid.add_row("act before", Text(scene.result or "-", "" if scene.result else "dim"))
    return grid


def _breaker(scene: Scene) -> Text:
    """The host's breaker, or everybody's own."""
    if scene.supervisor is None:
        return Text(own_breakers(scene), "cyan")
    breaker = scene.breaker
    if breaker is None:
        return Text("not yet used", "dim")
    parts = [f"  {breaker.name}, generation {breaker.generation}"]
    if breaker.state == "OPEN":
        parts.append(f", trials in {breaker.retry_after_s:.1f} s")
    elif breaker.state == "HALF_OPEN":
        parts.append(f", trials: {breaker.trials}")
    return Text.assemble((breaker.state, STATES.get(breaker.state, "bold")), "".join(parts))


def _supervisor(scene: Scene) -> Text:
    """Whether breakerd runs and answers."""
    view = scene.supervisor
    if view is None:
        return Text("none: each worker has a breaker of its own", "dim")
    if not view.answers:
        return Text("away: outcomes wait in the workers' rings", "bold white on red")
    return Text(f"answers, daemon pid {view.daemon_pid}" if view.daemon_pid else "answers", "green")


def _events(events: Sequence[Event], lines: int) -> RenderableType:
    """The latest events, always as many lines, so that the picture keeps its height."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    shown = events[-lines:]
    for event in shown:
        grid.add_row(Text(f"{event.at_s:.1f} s", "dim"), Text(event.text, _style(event)))
    for _ in range(lines - len(shown)):
        grid.add_row("", "")
    return grid


def _style(event: Event) -> str:
    """What the demo did stands out from what breakerd answered to it."""
    if event.source != "demo":
        return "cyan"
    return "bold red" if "kill -9" in event.text or "lock" in event.text else "bold"


def spark(values: Sequence[float], blocks: str = BLOCKS) -> str:
    """The values as a line of blocks, the highest as a full one; a value above 0 is always visible."""
    top = max(values, default=0.0)
    if top <= 0.0:
        return blocks[0] * len(values)
    last = len(blocks) - 1
    return "".join(blocks[0 if value <= 0.0 else max(1, round(value / top * last))] for value in values)


def print_events(events: Iterable[Event]) -> None:
    """What happened, to stay on the terminal."""
    console = Console()
    for event in events:
        at = Text(f"{event.at_s:6.1f} s  ", "dim")
        console.print(at.append(Text(event.text, _style(event))), overflow="ellipsis", no_wrap=True)


def print_account(account: Account) -> None:
    """What came of it, to stay on the terminal."""
    console = Console()
    *body, verdict, took = report(account)
    console.print()
    for line in body:
        console.print(Text(line), overflow="ellipsis", no_wrap=True)
    console.print(Text(verdict, "bold green" if account.exact else "bold white on red"))
    console.print(Text(took, "dim"))
