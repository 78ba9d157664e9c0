"""`[breakers.NAME.probe]`: how the dependency behind a breaker is asked whether it is back.

Neighbours: `settings` hooks it into the table of the breaker, `probes` has it asked by a prober, `example`
prints every key. Knows no driver: whether a URL can be used is found out by the prober alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from typing import Any, Final

from supervisor.checks import Bound, Reading, Wrong, as_json, for_people, key_of, masked, one_of, shown
from supervisor.messages import ProbeRule
from supervisor.settings_workers import TARGET

OWN_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "sqlalchemy": ("url", "statement"),
    "redis": ("url",),
    "tcp": ("address",),
    "http": ("url", "status", "body"),
    "exec": ("command",),
    "python": ("target",),
}
"""What each kind of probe takes beside the keys that all take; the first one is required."""
KINDS: Final = tuple(OWN_KEYS)
TABLE_BYTES_MAX: Final = 6144
"""Bytes of one table as JSON: what it is sent to a prober in."""
LATE_S: Final = 1.0
"""Seconds beyond timeout_s after which a prober that has not answered is killed."""
_WITHIN: Final = re.compile(r"(?:[A-Za-z0-9_.%-]+|\[[0-9A-Fa-f:.%\w]+\]):([1-9]\d{0,4})")
_SCHEMES: Final = {
    "sqlalchemy": re.compile(r"[A-Za-z][\w+]*://.*", re.DOTALL),
    "redis": re.compile(r"(?:redis|rediss|unix)://.+"),
    "http": re.compile(r"https?://[^\s/]+\S*"),
}
_LIKE: Final = {
    "sqlalchemy": '"postgresql://USER@HOST/DATABASE"',
    "redis": '"redis://HOST:PORT/0" or "unix:///PATH"',
    "http": '"https://HOST/PATH"',
}
_ELSEWHERE: Final = re.compile(r"env:[^=\0\s]+|file:[^\0]+")


@dataclass(frozen=True, slots=True)
class ProbeTable:
    """One `[breakers.NAME.probe]`."""

    kind: str
    """How it is asked: "sqlalchemy" = a statement, "redis" = PING, "tcp" = a connection, "http" = GET,
    "exec" = a command that exits with 0, "python" = a function. Required."""
    url: str = ""
    """Where to ask. Better not in this file: "env:NAME" takes a variable of breakerd's environment,
    "file:PATH" the contents of a file, both read anew for each probe."""
    statement: str = "SELECT 1"
    """What the database must be able to carry out."""
    address: str = ""
    """Where somebody must accept a connection: "HOST:PORT" or "unix:/PATH"."""
    status: tuple[int, ...] = (200,)
    """Status codes that are good (100 to 599); a redirection is not followed."""
    body: str = ""
    """Text that must be in the first 64 KiB of the answer; empty = any answer will do."""
    command: tuple[str, ...] = ()
    """A program by its absolute path and its arguments; there is no shell. The first line of what it
    prints is shown."""
    target: str = ""
    """A function without parameters, "package.module:callable"; it fails by raising or by returning
    False."""
    interval_s: float = 5.0
    """Seconds from one probe to the next (0.1 to 86,400)."""
    interval_max_s: float = 60.0
    """From the fall-th failure in a row on the interval doubles, up to this; a pass or an opening takes it
    back to interval_s (interval_s to 86,400)."""
    timeout_s: float = 2.0
    """Seconds that a probe may take; one second later its prober is killed (0.05 to 300)."""
    rise: int = 2
    """Passes in a row, begun after the opening, that let the trials begin (1 to 100)."""
    fall: int = 3
    """Failures in a row after which the interval grows, and that open a closed breaker, where preventive is
    true (1 to 100)."""
    jitter: float = 0.1
    """Share of the interval that is added at random (0 to 1)."""
    preventive: bool = False
    """Whether failing probes may open the breaker before calls fail."""

    @property
    def patience_s(self) -> float:
        """How long after one verdict the next may come at the latest: twice as long as with free probers."""
        return 2.0 * (self.interval_max_s * (1.0 + self.jitter) + self.timeout_s + LATE_S)

    @property
    def digest(self) -> str:
        """A short word that another table does not have: whose verdicts are whose."""
        text = json.dumps([getattr(self, item.name) for item in fields(self)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def rule(self, table: str) -> ProbeRule:
        """What the engine must know of it, as the probe of the breakers of `table`."""
        return ProbeRule(table, self.rise, self.fall, self.preventive, self.patience_s, self.digest)

    def asked(self) -> dict[str, Any]:
        """What a prober must know of it: secrets and all."""
        keys = ("kind", *OWN_KEYS[self.kind], "timeout_s")
        return {key: as_json(getattr(self, key)) for key in keys}

    def to_json(self) -> dict[str, Any]:
        """The keys that it has, as JSON values, for people: passwords are masked."""
        own = {key: for_people(getattr(self, key)) for key in OWN_KEYS[self.kind]}
        return {"kind": self.kind, **own, **{key: getattr(self, key) for key in EVERY_KEYS}}


_OWN: Final = frozenset(key for keys in OWN_KEYS.values() for key in keys)
PROBE_KEYS: Final = tuple(item.name for item in fields(ProbeTable))
EVERY_KEYS: Final = tuple(key for key in PROBE_KEYS if key not in _OWN and key != "kind")
"""What every kind takes."""
_DEFAULTS: Final = {item.name: item.default for item in fields(ProbeTable)}
_BOUNDS: Final = {
    "interval_s": Bound(0.1, 86_400.0),
    "interval_max_s": Bound(0.1, 86_400.0),
    "timeout_s": Bound(0.05, 300.0),
    "rise": Bound(1, 100, whole=True),
    "fall": Bound(1, 100, whole=True),
    "jitter": Bound(0.0, 1.0),
}
_STATUS: Final = Bound(100, 599, whole=True)


def read_probe(path: str, table: Any, wrong: Wrong) -> ProbeTable | None:
    """The table at `path`; None if there is a mistake in it, each of which is told to `wrong`."""
    if not isinstance(table, dict):
        wrong(path, f"must be a table, as in [{path}], got {shown(table)}")
        return None
    return _Table(path, wrong).read(table)


class _Table(Reading):
    """The table of one probe. Values that may be secret are never shown."""

    def read(self, table: dict[str, Any]) -> ProbeTable | None:
        """The table; None if there is a mistake in it."""
        kind = table.get("kind")
        if "kind" not in table:
            self._wrong("kind", f"is missing: one of {', '.join(KINDS)}")
        elif problem := one_of(KINDS, kind):
            self._wrong("kind", problem)
        word = kind if isinstance(kind, str) else ""
        own = OWN_KEYS.get(word)
        values = {key: self._value(key, value, word) for key, value in table.items() if self._known(key, own)}
        if own is not None and own[0] not in table:
            self._wrong(own[0], f"is missing: a probe of kind {kind} needs it")
        if not self._good:
            return None
        return self._whole(values)

    def _known(self, key: str, own: tuple[str, ...] | None) -> bool:
        """Whether the value of this key is to be read; tells of one that is not for this kind."""
        if key not in PROBE_KEYS:
            known = ("kind", *(own if own is not None else sorted(_OWN)), *EVERY_KEYS)
            self._wrong(key_of(key), f"unknown key; known are {', '.join(known)}")
            return False
        if key in _OWN and own is not None and key not in own:
            kinds = [kind for kind, keys in OWN_KEYS.items() if key in keys]
            self._wrong(key, f"is not used by this kind of probe; it is for {' and '.join(kinds)}")
            return False
        return True

    def _whole(self, values: dict[str, Any]) -> ProbeTable | None:
        """The values together."""
        first, most = (values.get(key, _DEFAULTS[key]) for key in ("interval_s", "interval_max_s"))
        if first > most:
            if "interval_max_s" in values:
                text = f"must be >= interval_s, which is {first:g}, got {most}"
                self._wrong("interval_max_s", text)
                return None
            values["interval_max_s"] = float(first)
        read = ProbeTable(**values)
        size = len(json.dumps(read.asked()))
        if size > TABLE_BYTES_MAX:
            self._wrong("", f"must have at most {TABLE_BYTES_MAX} bytes, has {size}")
            return None
        return read

    def _value(self, key: str, value: Any, kind: str) -> Any:
        """The value of a known key as the table has it."""
        if key == "kind":
            return value
        if key in _BOUNDS:
            if problem := _BOUNDS[key].problem(value):
                self._wrong(key, problem)
            return value
        if key in ("status", "command"):
            return self._list(key, value)
        if key == "preventive":
            if not isinstance(value, bool):
                self._wrong(key, f"must be true or false, got {shown(value)}")
        elif not isinstance(value, str) or "\0" in value:
            self._wrong(key, f"must be text without zero bytes, got {type(value).__name__}")
        elif problem := _text(key, value, kind):
            self._wrong(key, problem)
        return value

    def _list(self, key: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            self._wrong(key, f"must be a list of at least one, got {type(value).__name__}")
            return ()
        for number, item in enumerate(value):
            problem = _STATUS.problem(item) if key == "status" else _word(item, number)
            if problem:
                self._wrong(f"{key}[{number}]", problem)
        return tuple(value)


def _word(item: Any, number: int) -> str:
    """What is wrong with one word of a command; empty = nothing."""
    if not isinstance(item, str) or "\0" in item:
        return f"must be text without zero bytes, got {type(item).__name__}"
    return "must be an absolute path" if number == 0 and not item.startswith("/") else ""


def _text(key: str, value: str, kind: str) -> str:
    """What is wrong with one text; empty = nothing."""
    if key == "url" and kind in _SCHEMES:
        if _ELSEWHERE.fullmatch(value) or _SCHEMES[kind].fullmatch(value):
            return ""
        return f'must be like {_LIKE[kind]}, "env:NAME" or "file:PATH"'
    if key == "address" and not (value.startswith("unix:/") and len(value) <= 5 + 107):
        found = _WITHIN.fullmatch(value)
        if found is None or int(found[1]) > 65_535:
            return f'must be "HOST:PORT" or "unix:/PATH", got {shown(masked(value))}'
    if key == "target" and not TARGET.fullmatch(value):
        return f'must be like "package.module:callable", got {shown(value)}'
    if key == "statement" and not value.strip():
        return "must not be empty"
    return ""
