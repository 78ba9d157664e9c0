"""The help texts, and what may have been meant. Loaded only when somebody needs them."""

from __future__ import annotations

import difflib
from typing import Final

from supervisor.ctl.page import Page
from supervisor.ctl.parse import (
    EVERYWHERE,
    RELOAD_S,
    TIMEOUT_S,
    VERBS,
    WAIT_S,
    WATCH_S,
    Request,
    UsageError,
)

FLAGS: Final = {
    "--socket": ("PATH", "the supervisor's socket; else BREAKERD_SOCKET, else the default places"),
    "--json": ("", "print the supervisor's answer as JSON"),
    "--timeout": (
        "TIME",
        f"how long to wait: {TIMEOUT_S:g}s; reload {RELOAD_S:g}s; wait, probe, start, stop {WAIT_S:g}s",
    ),
    "--no-color": ("", "plain columns also on a terminal (as NO_COLOR in the environment)"),
    "--exit-code": (
        "STYLE",
        "lsb: 0 well, 3 fail, 4 nobody answers, 1 refused, 2 bad arguments; nagios; probe",
    ),
    "--help": ("", "this text"),
    "--watch": ("[=TIME]", f"look again and again (every {WATCH_S:g}s)"),
    "--follow": ("", "go on showing lines as they come (or -f)"),
    "--unused": ("", "for `forget`: every breaker that no worker has"),
    "--wide": ("", "with memory, processor time, threads and descriptors of each"),
    "--fail-on": ("warn", "treat a warning as a failure"),
    "--for": ("TIME", "how long a manual state lasts: 30s, 10m, 2h, 1d or forever (1h)"),
    "--reason": ("TEXT", "why; shown to everybody who looks at the breaker"),
}


def page(request: Request, program: str) -> Page:
    """The help for one verb, or for all."""
    text = verb_help(request.words[0], program) if request.words else whole_help(program)
    return Page({"schema": 1, "help": text}, tuple(text.splitlines()))


def whole_help(program: str) -> str:
    """All verbs and the flags that each takes."""
    lines = [f"{program}: ask and command the supervisor of the circuit breakers of this host", ""]
    lines.append(f"usage: {program} VERB [...] [FLAGS]")
    lines.append("")
    width = max(len(name) for name in VERBS)
    lines.extend(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    lines.extend(["", "flags of every verb:", *_flags(EVERYWHERE), ""])
    lines.append(f"{program} VERB --help tells more; a TIME is 500ms, 30s, 10m, 2h, 1d or seconds")
    return "\n".join(lines)


def verb_help(name: str, program: str) -> str:
    """How one verb is typed."""
    verb = VERBS[name]
    lines = [f"usage: {program} {name} {verb.words}".rstrip(), "", f"  {verb.summary}", ""]
    lines.extend(_flags((*verb.flags, *EVERYWHERE)))
    return "\n".join(lines)


def complaint(error: UsageError, program: str) -> str:
    """What to print for words that cannot be meant."""
    if not error.word and not error.verb:
        return whole_help(program)
    lines = [f"{program}: {error}"]
    near = difflib.get_close_matches(error.word, error.known, n=1)
    if near:
        lines.append(f"  did you mean: {near[0]}")
    lines.append(f"  see: {program} {error.verb + ' ' if error.verb in VERBS else ''}--help")
    return "\n".join(lines)


def _flags(flags: tuple[str, ...]) -> list[str]:
    shown = []
    for flag in flags:
        value, meaning = FLAGS[flag]
        gap = "" if value.startswith("[") or not value else " "
        shown.append((f"  {flag}{gap}{value}", meaning))
    width = max(len(left) for left, _ in shown)
    return [f"{left:<{width}}  {meaning}" for left, meaning in shown]
