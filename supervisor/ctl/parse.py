"""What was typed, as a value. By hand, because argparse costs as much start-up as everything else together.

Flags may stand anywhere, as `--flag value` or `--flag=value`. Neighbours: `main` calls it; `usage` prints
the help, and what may have been meant by a word that is not known. Knows no supervisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ipc.vocabulary import FOREVER, MANUAL_DEFAULT_S
from supervisor.ctl.exits import STYLES

TIMEOUT_S: Final = 1.2
"""How long an answer is awaited when --timeout is not said: twice what a new daemon takes to begin, and with
Python's own start on a busy machine still below 2 s."""
WAIT_S: Final = 30.0
"""The same for `wait`, in all, and for `probe`: a free prober and its drivers may have to be waited for."""
RELOAD_S: Final = 10.0
"""The same for `reload`: longer than the supervisor takes to say that it takes longer."""
MANAGE_S: Final = 30.0
"""The same for `start`, `stop` and `restart` in all, where the tables of the workers do not allow more."""
WATCH_S: Final = 2.0
FOLLOW_S: Final = 0.5
"""Between two looks of `tail -f`."""
UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
LEVELS: Final = ("live", "ready", "full")
STATES: Final = ("closed", "open", "half-open", "forced-open", "disabled", "metrics-only")
COMMANDS: Final = {
    "open": "force-open",
    "force-open": "force-open",
    "close": "reset",
    "reset": "reset",
    "disable": "disable",
    "metrics-only": "metrics-only",
    "enable": "enable",
}
"""What a breaker is told -> the verb on the wire."""
LASTING: Final = frozenset({"force-open", "disable", "metrics-only"})
"""Commands that end by themselves after --for."""


class UsageError(Exception):
    """What was typed cannot be meant; `word` stands where one of `known` was expected."""

    def __init__(self, text: str, word: str = "", known: Sequence[str] = (), verb: str = "") -> None:
        super().__init__(text)
        self.word = word
        self.known = tuple(known)
        self.verb = verb


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that was typed."""

    verb: str
    words: tuple[str, ...] = ()
    """What stood behind the verb, checked for number and kind."""
    socket: str | None = None
    json: bool = False
    watch_s: float | None = None
    """Seconds between looks; None = one look."""
    timeout_s: float = TIMEOUT_S
    fail_on_warn: bool = False
    colour: bool = True
    for_s: float = MANUAL_DEFAULT_S
    """How long a manual state lasts; infinity = until it is changed."""
    reason: str = ""
    exit_code: str = STYLES[0]
    help: bool = False
    wide: bool = False
    unused: bool = False
    """Whether all breakers without workers are meant."""
    patience_said: bool = False
    """Whether --timeout was typed."""


@dataclass(frozen=True, slots=True)
class Verb:
    """How one verb is typed."""

    words: str
    """What may stand behind it, for the help."""
    summary: str
    flags: tuple[str, ...] = ()
    """Flags beside those that every verb takes."""


EVERYWHERE: Final = ("--socket", "--json", "--timeout", "--no-color", "--exit-code", "--help")
VERBS: Final[dict[str, Verb]] = {
    "health": Verb("[live|ready|full]", "Is everything well? Exit code 0, 3 or 4", ("--watch", "--fail-on")),
    "status": Verb("", "The supervisor's own processes and the managed ones, as in Supervisor", ("--watch",)),
    "start": Verb("{NAME|NAME:2|all}", "Start managed workers, and wait until they run"),
    "stop": Verb("{NAME|NAME:2|all}", "Stop managed workers, and wait until they have ended"),
    "restart": Verb("{NAME|NAME:2|all}", "Stop managed workers and start them again, and wait"),
    "tail": Verb("NAME [COUNT]", "The last lines that a managed worker logged; -f follows", ("--follow",)),
    "breakers": Verb("", "Every breaker with its state, one a line", ("--watch",)),
    "breaker": Verb(
        "{show|open|close|disable|enable|metrics-only|reset|force-open|forget} NAME",
        "One breaker in full, or a command to it",
        ("--watch", "--for", "--reason", "--unused"),
    ),
    "workers": Verb("", "Every attached worker process, one a line", ("--watch", "--wide")),
    "stats": Verb("", "Counts of all calls and durations, by breaker", ("--watch",)),
    "events": Verb("[COUNT]", "What happened last; --watch follows", ("--watch",)),
    "errors": Verb("[BREAKER]", "Counts by exception class, and when each was last seen", ("--watch",)),
    "probe": Verb("NAME", "Ask now what stands behind a breaker. Exit code 0, 3 or 4"),
    "wait": Verb("{live|ready|breaker NAME STATE}", "Wait until it is so, at most --timeout seconds"),
    "reload": Verb("", "Read the configuration file again; if it is wrong, the old one stays"),
    "config": Verb("{check [FILE]|example|show}", "Check a file, print a commented one, or the one in use"),
    "doctor": Verb("", "What may go wrong here, and what to do about it", ("--fail-on",)),
    "version": Verb("", "Versions of this command and of the supervisor"),
    "help": Verb("[VERB]", "This text, or that of one verb"),
}
MANAGING: Final = ("start", "stop", "restart")
_PATIENCE: Final = {"wait": WAIT_S, "probe": WAIT_S, "reload": RELOAD_S, **dict.fromkeys(MANAGING, MANAGE_S)}
_NAMING: Final = {"probe": "a breaker", **dict.fromkeys(MANAGING, "a managed worker, or all")}
_VALUED: Final = frozenset({"--socket", "--timeout", "--fail-on", "--for", "--reason", "--exit-code"})


def parse(arguments: Sequence[str]) -> Request:
    """The request in the words of a command line. Raises UsageError."""
    words, flags = _split(arguments)
    if not words:
        if "--version" in flags:
            return Request("version", ("local",), json="--json" in flags)
        if "--help" in flags:
            return Request("help")
        raise UsageError("a verb is missing")
    verb, behind = words[0], tuple(words[1:])
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}", verb, tuple(VERBS))
    if "--help" in flags:
        return Request("help", (verb,))
    for flag in flags:
        if flag not in EVERYWHERE and flag not in VERBS[verb].flags:
            raise UsageError(f"{verb} does not take {flag}", verb=verb)
    values = _values(flags, verb)
    _check_words(verb, behind, flags)
    return Request(verb, behind, **values)


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words, and flags with their values, in whatever order they came."""
    known = {*EVERYWHERE, "--version", *(flag for verb in VERBS.values() for flag in verb.flags)}
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            words.extend(rest)
        elif argument == "-h":
            flags["--help"] = ""
        elif argument == "-f":
            flags["--follow"] = ""
        elif not argument.startswith("-") or argument == "-":
            words.append(argument)
        else:
            flag, equals, value = argument.partition("=")
            if flag not in known:
                raise UsageError(f"unknown flag {flag}", flag, sorted(known))
            if flag in _VALUED and not equals:
                found = next(rest, None)
                if found is None:
                    raise UsageError(f"{flag} needs a value", verb=words[0] if words else "")
                value = found
            elif equals and flag not in _VALUED and flag != "--watch":
                raise UsageError(f"{flag} takes no value, got {value!r}", flag)
            flags[flag] = value
    return words, flags


def _values(flags: dict[str, str], verb: str) -> dict[str, Any]:
    """The flags as fields of a Request."""
    values: dict[str, Any] = {"json": "--json" in flags, "colour": "--no-color" not in flags}
    if "--socket" in flags:
        values["socket"] = flags["--socket"]
    if "--follow" in flags:
        values["watch_s"] = FOLLOW_S
    if "--watch" in flags:
        values["watch_s"] = _seconds("--watch", flags["--watch"] or f"{WATCH_S}", 0.05, 3600.0)
    values["timeout_s"] = _PATIENCE.get(verb, TIMEOUT_S)
    values["wide"] = "--wide" in flags
    values["unused"] = "--unused" in flags
    values["patience_said"] = "--timeout" in flags
    if "--timeout" in flags:
        values["timeout_s"] = _seconds("--timeout", flags["--timeout"], 0.01, 86_400.0)
    if "--fail-on" in flags:
        if flags["--fail-on"] not in ("warn", "fail"):
            raise UsageError(f"--fail-on takes warn or fail, got {flags['--fail-on']!r}", verb=verb)
        values["fail_on_warn"] = flags["--fail-on"] == "warn"
    if "--for" in flags:
        told = flags["--for"]
        values["for_s"] = FOREVER if told == "forever" else _seconds("--for", told, 0.001, 365 * 86_400.0)
    if "--reason" in flags:
        values["reason"] = flags["--reason"]
    if "--exit-code" in flags:
        if flags["--exit-code"] not in STYLES:
            text = f"--exit-code takes {', '.join(STYLES)}; got {flags['--exit-code']!r}"
            raise UsageError(text, flags["--exit-code"], STYLES, verb)
        values["exit_code"] = flags["--exit-code"]
    return values


def exit_style(arguments: Sequence[str]) -> str:
    """The style of exit codes of a command line that could not be read."""
    for place, argument in enumerate(arguments):
        for style in STYLES:
            if argument == f"--exit-code={style}" or (
                argument == style and place and arguments[place - 1] == "--exit-code"
            ):
                return style
    return STYLES[0]


def _seconds(flag: str, text: str, low: float, high: float) -> float:
    """A duration: 90, 1.5, 500ms, 30s, 10m, 2h, 1d."""
    number = text.rstrip("mshd")
    unit = text[len(number) :] or "s"
    try:
        seconds = float(number) * UNITS_S[unit]
    except (ValueError, KeyError):
        more = " or forever" if flag == "--for" else ""
        raise UsageError(
            f"{flag} takes seconds, or 500ms, 30s, 10m, 2h, 1d{more}; got {text!r}", text
        ) from None
    if not low <= seconds <= high:
        raise UsageError(f"{flag} takes {low:g} to {high:.10g} seconds, got {text!r}", text)
    return seconds


def _check_words(verb: str, words: tuple[str, ...], flags: dict[str, str]) -> None:
    """Refuse words behind the verb that it cannot mean."""
    if verb == "breaker":
        _check_breaker(words, flags)
    elif verb == "wait":
        _check_wait(words)
    elif verb == "config":
        _one_of(verb, "action", words[:1], ("check", "example", "show"))
        _at_most(verb, words, 2 if words[0] == "check" else 1)
    elif verb == "health":
        _at_most(verb, words, 1)
        if words:
            _one_of(verb, "level", words, LEVELS)
    elif verb == "events":
        _at_most(verb, words, 1)
        if words and not (words[0].isascii() and words[0].isdigit()):
            raise UsageError(f"events takes a number of events, got {words[0]!r}", verb=verb)
    elif verb in _NAMING:
        if not words:
            raise UsageError(f"{verb} needs the name of {_NAMING[verb]}", verb=verb)
        _at_most(verb, words, 1)
    elif verb == "tail":
        _check_tail(words)
    elif verb == "help":
        _at_most(verb, words, 1)
        if words:
            _one_of(verb, "verb", words, tuple(VERBS))
    else:
        _at_most(verb, words, 1 if verb == "errors" else 0)


def _check_breaker(words: tuple[str, ...], flags: dict[str, str]) -> None:
    actions = ("show", *COMMANDS, "forget")
    if words and words[0] not in actions and (len(words) == 1 or words[1] in actions):
        action = words[1] if len(words) > 1 else "show"
        raise UsageError(f"breaker takes the action first: breaker {action} {words[0]}", verb="breaker")
    _one_of("breaker", "action", words[:1], actions)
    if "--unused" in flags:
        if words != ("forget",):
            raise UsageError("--unused is for breaker forget, without a name", verb="breaker")
    elif len(words) < 2:
        raise UsageError(f"breaker {words[0]} needs the name of a breaker", verb="breaker")
    _at_most("breaker", words, 2)
    if words[0] != "show" and "--watch" in flags:
        raise UsageError("--watch is for breaker show", verb="breaker")
    if "--for" in flags and COMMANDS.get(words[0]) not in LASTING:
        raise UsageError(f"--for is for open, disable and metrics-only, not for {words[0]}", verb="breaker")
    if "--reason" in flags and words[0] in ("show", "forget"):
        raise UsageError(f"--reason is for commands, not for {words[0]}", verb="breaker")


def _check_tail(words: tuple[str, ...]) -> None:
    if not words:
        raise UsageError("tail needs the name of a managed worker", verb="tail")
    _at_most("tail", words, 2)
    if len(words) > 1 and not (words[1].isascii() and words[1].isdigit()):
        raise UsageError(f"tail takes a number of lines, got {words[1]!r}", verb="tail")


def _check_wait(words: tuple[str, ...]) -> None:
    _one_of("wait", "condition", words[:1], ("live", "ready", "breaker"))
    if words[0] != "breaker":
        _at_most("wait", words, 1)
    elif len(words) < 3:
        raise UsageError("wait breaker needs a name and a state: wait breaker database closed", verb="wait")
    else:
        _at_most("wait", words, 3)
        _one_of("wait", "state", words[2:], STATES)


def _one_of(verb: str, what: str, words: Sequence[str], known: Sequence[str]) -> None:
    if not words:
        raise UsageError(f"{verb} needs one of: {', '.join(known)}", verb=verb)
    if words[0] not in known:
        text = f"{verb} knows no {what} {words[0]!r}; it takes {', '.join(known)}"
        raise UsageError(text, words[0], known, verb)


def _at_most(verb: str, words: Sequence[str], most: int) -> None:
    if len(words) > most:
        raise UsageError(f"{verb}: one word too many: {words[most]!r}", verb=verb)
