"""The command `supervisorctl`, also installed as `breakerctl`: read the words, ask, show, exit.

Start-up is most of its time, so what one verb alone needs (settings, rich, help) is loaded by name when
that verb is typed. Neighbours: `parse` before, one file per verb between, `screen` and `exits` after.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TextIO

from ipc.errors import BreakerdError, ControlError, ProtocolError
from supervisor.ctl.ask import Asker, Clock, find
from supervisor.ctl.exits import exit_code
from supervisor.ctl.page import Page, Verdict
from supervisor.ctl.parse import MANAGING, Request, UsageError, exit_style, parse
from supervisor.ctl.screen import Screen


@dataclass(frozen=True, slots=True)
class Look:
    """A verb that asks once, and shows what comes back."""

    module: str
    """The file that knows it."""
    page: str = "page"
    """The function in it that makes a page of (answer, request)."""
    fields: str = ""
    """The function in it that says what to ask, of the request; empty = the verb says it all."""


LOOKS: Final[dict[str, Look]] = {
    "health": Look("health", fields="fields"),
    "status": Look("listings", "status", "status_fields"),
    "tail": Look("tailing", fields="fields"),
    "breakers": Look("listings", "breakers"),
    "breaker": Look("breaker", fields="fields"),
    "workers": Look("listings", "workers", "workers_fields"),
    "stats": Look("listings", "stats"),
    "events": Look("listings", "events", "events_fields"),
    "errors": Look("listings", "errors", "errors_fields"),
    "config": Look("configuring", "show"),
    "version": Look("versions"),
}
ONCE: Final[dict[str, Look]] = {
    "reload": Look("reloading"),
    "probe": Look("probing", fields="fields"),
}
"""Commands that are shown in the same way; they are not asked again when the supervisor dies over them."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What is raised where standard output takes nothing more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    if program not in ("supervisorctl", "breakerctl"):
        program = "supervisorctl"
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the locale cannot show is shown as an escape: an answer is worth more than a sign in it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run(given, program, sys.stdout, sys.stderr, Clock(time.monotonic, time.sleep))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _no_more_output()  # the reader of the pipe has seen enough
        return 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        _no_more_output()
        sys.stderr.write(f"{program}: the answer cannot be written: {error.strerror}\n")
        return exit_code(Verdict.REFUSED, exit_style(given))


def _no_more_output() -> None:
    """Python must not complain at exit that it cannot flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: Sequence[str], program: str, out: TextIO, err: TextIO, clock: Clock) -> int:
    """`main` with everything that it touches passed in."""
    try:
        request = parse(arguments)
    except UsageError as error:
        err.write(_load("usage").complaint(error, program) + "\n")
        return exit_code(Verdict.USAGE, exit_style(arguments))
    colour = request.colour and not request.json and "NO_COLOR" not in os.environ and out.isatty()
    screen = Screen(out, err, program, request.json, colour)
    return exit_code(_run(request, screen, clock), request.exit_code)


def _run(request: Request, screen: Screen, clock: Clock) -> Verdict:
    """Carry out the request, show what came of it, and say how it went."""
    alone = _local(request, screen.program, clock)
    if alone is not None:
        screen.show(alone)
        return alone.verdict
    commanding = request.verb in ("reload", *MANAGING) or (
        request.verb == "breaker" and request.words[0] != "show"
    )
    path = request.socket or ""
    try:
        path = find(request.socket)
        asker = Asker(path, request.timeout_s, clock)
        if request.watch_s is not None:
            return _watch(request, asker, screen)
        page = _page(request, asker, screen.program)
    except BreakerdError as error:
        return screen.trouble(error, path, request.verb, commanding)
    screen.show(page)
    return page.verdict


def _local(request: Request, program: str, clock: Clock) -> Page | None:
    """The page of a verb that has something to say where nobody answers; None = it has not."""
    page: Page | None = None
    if request.verb == "help":
        page = _load("usage").page(request, program)
    elif request.verb == "config" and request.words[0] != "show":
        page = _load("configuring").local(request)
    elif request.verb == "doctor":
        page = _load("doctor").page(request, clock)
    elif request.verb == "version" and request.words:
        page = _load("versions").local()
    return page


def _page(request: Request, asker: Asker, program: str) -> Page:
    """Ask once, or as often as the verb needs. Raises ControlError."""
    page: Page
    if request.verb == "wait":
        page = _load("waiting").wait(request, asker.path, asker.clock)
    elif request.verb in MANAGING:
        page = _load("managing").command(request, asker)
    elif request.verb in ONCE:
        page = _shown(request, ONCE[request.verb], asker.command)
    elif request.verb == "breaker" and request.words[0] != "show":
        page = _load("breaker").command(request, asker, program)
    else:
        page = _look(request, asker)
    return page


def _look(request: Request, asker: Asker) -> Page:
    """Ask the verb's question and make its page. Raises ControlError."""
    return _shown(request, LOOKS[request.verb], asker.look)


def _shown(request: Request, look: Look, ask: Callable[..., Any]) -> Page:
    """Ask by one of the asker's two ways, and make a page of the answer. Raises ControlError."""
    module = _load(look.module)
    fields = getattr(module, look.fields)(request) if look.fields else {}
    answer = ask(request.verb, **fields)
    try:
        page: Page = getattr(module, look.page)(answer, request)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # The answer came from another process, perhaps of another version: what it lacks is its fault.
        raise ProtocolError(f"the supervisor's answer to {request.verb} cannot be read: {error!r}") from error
    return page


def _watch(request: Request, asker: Asker, screen: Screen) -> Verdict:
    """Look until interrupted; how it was last."""
    watching = _load("watching")
    following = request.verb in ("events", "tail")
    seen: Iterator[Page | ControlError]
    if following:
        seen = _load("tailing" if request.verb == "tail" else "watching").follow(request, asker)
    else:
        seen = watching.looks(partial(_look, request, asker), request.watch_s, asker.clock.sleep)
    verdict = Verdict.OK
    try:
        for page in seen:
            if isinstance(page, Page):
                screen.show(page, clear=not following, compact=True)
                verdict = page.verdict
            else:
                verdict = screen.trouble(page, asker.path, request.verb)
    except KeyboardInterrupt:
        pass
    return verdict


def _load(name: str) -> Any:
    """A file of this package, by name, when a verb needs it."""
    return importlib.import_module(f"supervisor.ctl.{name}")


if __name__ == "__main__":
    sys.exit(main())
