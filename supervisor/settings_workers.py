"""`[workers.NAME]`: the processes that the nursery starts, keeps alive and stops.

Neighbours: `settings` hooks it into the whole file, `wards` acts on it, `example` prints every key.
Knows no process: whether a target can be imported is found out in its child alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, Final

from supervisor.checks import (
    HIDDEN,
    LEVELS,
    OFF,
    Bound,
    Reading,
    Wrong,
    for_people,
    key_of,
    one_of,
    shown,
)

RESTARTS: Final = ("permanent", "transient", "temporary")
BEYONDS: Final = ("give_up", "escalate")
RESERVED: Final = ("all", "prober")
"""`all` is a word of `supervisorctl`, `prober` is the supervisor's own."""
PROCESSES_MAX: Final = 1024
"""Managed processes in all."""
ARGUMENTS_MAX: Final = 64
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
TARGET: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SIZE: Final = re.compile(r"([1-9]\d{0,14})([KMGT]?)")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_VARIABLE: Final = re.compile(r"[^=\0]+")

Argument = str | int | float | bool


@dataclass(frozen=True, slots=True)
class WorkerTable:
    """One `[workers.NAME]`."""

    name: str
    """What `supervisorctl` calls it: NAME, or NAME:1 to NAME:count."""
    target: str
    """What each process calls: "package.module:callable", imported in that process alone. Required."""
    count: int = 1
    """Processes (1 to 256; all workers together at most 1,024)."""
    args: tuple[Argument, ...] = ()
    """What it is called with, by position: text, numbers, true or false (at most 64)."""
    restart: str = "permanent"
    """When a process that ended is started again: "permanent" = always, "transient" = unless its exit code
    was 0, "temporary" = never."""
    max_restarts: int = 5
    """Restarts of one process within restart_window_s that are still good (0 to 1,000,000)."""
    restart_window_s: float = 60.0
    """Seconds over which restarts are counted (0.1 to 86,400)."""
    beyond: str = "give_up"
    """What one restart more means: "give_up" = this process is FATAL and the others go on, "escalate" =
    breakerd stops everything in order and exits with 71."""
    backoff_s: float = 0.1
    """Seconds before the first restart; each one in a row waits twice as long (0.01 to 3,600)."""
    backoff_max_s: float = 10.0
    """Seconds beyond which that wait does not grow (backoff_s to 86,400)."""
    backoff_jitter: float = 0.2
    """Share of the wait that is added at random (0 to 1)."""
    start_s: float = 1.0
    """A process that has lived for so many seconds is RUNNING, not STARTING any more (0 to 3,600)."""
    stop_timeout_s: float = 10.0
    """Seconds between SIGTERM and SIGKILL (0 to 3,600). When breakerd itself ends, all workers together
    have at most 20 s, in reverse order of this file; whose turn has not come after 15 s gets SIGTERM then."""
    memory_max: int | None = None
    """Resident memory beyond which a process is restarted, in bytes or like "512M" (1M or more; None =
    not looked at)."""
    heartbeat_timeout_s: float | None = None
    """Seconds without a call of ipc.beat() after which a process is restarted, counted from its start
    (0.1 to 86,400; None = it need not beat)."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of its environment, over those of breakerd: { NAME = "value" }."""
    directory: str = ""
    """Where it runs, an absolute path that is also the first place to import from; empty = where breakerd
    runs."""
    autostart: bool = True
    """Whether it is started with breakerd; otherwise `supervisorctl start NAME` does it."""
    log_level: str = ""
    """What it logs: "debug", "info", "warning" or "error"; empty = as log_level of [supervisor]."""
    pool_max: int = 0
    """Database connections that one process may open, for `supervisorctl doctor` to add up (0 to 100,000;
    0 = not told)."""

    def titles(self) -> tuple[str, ...]:
        """What its processes are called, the first one first."""
        if self.count == 1:
            return (self.name,)
        return tuple(f"{self.name}:{number}" for number in range(1, self.count + 1))

    def identity(self) -> tuple[str, ...]:
        """What makes a process of this table another one: all but their number. By `repr`, because 1, 1.0 and
        true are equal and yet not the same argument.
        """
        return tuple(repr(getattr(self, key)) for key in WORKER_KEYS if key != "count")

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values, key by key as in the file, for people.

        Passwords are masked, and so is every value of the environment: no name tells what is a secret.
        """
        plain = {key: getattr(self, key) for key in WORKER_KEYS}
        environment = {name: HIDDEN for name, _ in self.environment}
        return {**plain, "args": for_people(self.args), "environment": environment}


WORKER_KEYS: Final = tuple(item.name for item in fields(WorkerTable) if item.name != "name")
WORKER_NULLABLE: Final = frozenset({"memory_max", "heartbeat_timeout_s"})
"""Keys that may be "off"."""

_BOUNDS: Final = {
    "count": Bound(1, 256, whole=True),
    "max_restarts": Bound(0, 1_000_000, whole=True),
    "restart_window_s": Bound(0.1, 86_400.0),
    "backoff_s": Bound(0.01, 3600.0),
    "backoff_max_s": Bound(0.01, 86_400.0),
    "backoff_jitter": Bound(0.0, 1.0),
    "start_s": Bound(0.0, 3600.0),
    "stop_timeout_s": Bound(0.0, 3600.0),
    "memory_max": Bound(1 << 20, 1 << 50, whole=True),
    "heartbeat_timeout_s": Bound(0.1, 86_400.0),
    "pool_max": Bound(0, 100_000, whole=True),
}
_WORDS: Final = {"restart": RESTARTS, "beyond": BEYONDS, "log_level": ("", *LEVELS)}


def read_workers(content: dict[str, Any], wrong: Wrong) -> tuple[WorkerTable, ...]:
    """The tables in the file's order, which is the order of starting; every mistake is told to `wrong`."""
    tables = []
    for name, table in content.items():
        path = f"workers.{key_of(name)}"
        if not NAME.fullmatch(name) or name in RESERVED:
            text = f"begin with a letter or digit, and not be {' or '.join(RESERVED)}, got {shown(name)}"
            wrong(path, f"must be 1 to 64 of [A-Za-z0-9_.-], {text}")
        if not isinstance(table, dict):
            wrong(path, f"must be a table, as in [{path}], got {shown(table)}")
        elif (read := _Table(path, wrong).read(name, table)) is not None:
            tables.append(read)
    if (total := sum(table.count for table in tables)) > PROCESSES_MAX:
        wrong("workers", f"must be at most {PROCESSES_MAX} processes in all, got {total}")
    return tuple(tables)


class _Table(Reading):
    """The table of one worker."""

    def read(self, name: str, table: dict[str, Any]) -> WorkerTable | None:
        """The table; None if there is a mistake in it."""
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in WORKER_KEYS:
                self._wrong(key_of(key), f"unknown key; known are {', '.join(WORKER_KEYS)}")
            else:
                values[key] = self._value(key, value)
        if "target" not in table:
            self._wrong("target", 'is missing: it says what to call, like "package.module:callable"')
        if not self._good:
            return None
        read = WorkerTable(name, **values)
        if read.backoff_max_s < read.backoff_s:
            text = f"must be >= backoff_s, which is {read.backoff_s:g}, got {read.backoff_max_s}"
            self._wrong("backoff_max_s", text)
        return read if self._good else None

    def _value(self, key: str, value: Any) -> Any:
        """The value of a known key as the table has it."""
        if key in WORKER_NULLABLE and value == OFF:
            return None
        if key == "memory_max" and isinstance(value, str):
            value = self._size(value)
            if isinstance(value, str):
                self._wrong(key, f'must be a number of bytes, or like "512M" or "2G", got {shown(value)}')
                return value
        if key in _BOUNDS:
            problem = _BOUNDS[key].problem(value)
        elif key in _WORDS:
            problem = one_of(_WORDS[key], value)
        else:
            return getattr(self, f"_{key}")(value)
        if problem:
            self._wrong(key, problem)
        return value

    def _size(self, value: str) -> Any:
        """A size with its unit, in bytes; what is none stays as it is, to be named."""
        found = _SIZE.fullmatch(value)
        return int(found[1]) * _UNITS[found[2]] if found else value

    def _target(self, value: Any) -> Any:
        if not isinstance(value, str) or not TARGET.fullmatch(value):
            self._wrong("target", f'must be like "package.module:callable", got {shown(value)}')
        return value

    def _args(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            self._wrong("args", f"must be a list, got {shown(value)}")
            return ()
        if len(value) > ARGUMENTS_MAX:
            self._wrong("args", f"must have at most {ARGUMENTS_MAX} entries, got {len(value)}")
        for number, item in enumerate(value):
            if problem := _argument(item):
                self._wrong(f"args[{number}]", problem)
        return tuple(value)

    def _environment(self, value: Any) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            kind = type(value).__name__  # not the value here either
            self._wrong("environment", f'must be like {{ NAME = "value" }}, got {kind}')
            return ()
        for name, text in value.items():
            if not _VARIABLE.fullmatch(name):
                self._wrong(f"environment.{key_of(name)}", 'must be a name without "=" and zero bytes')
            elif not isinstance(text, str) or "\0" in text:
                # Not the value: it may be a secret, and mistakes go to the log and to health.
                kind = type(text).__name__
                self._wrong(f"environment.{key_of(name)}", f"must be text without zero bytes, got {kind}")
        return tuple(value.items())

    def _directory(self, value: Any) -> Any:
        if not isinstance(value, str) or "\0" in value or (value and not value.startswith("/")):
            self._wrong("directory", f"must be an absolute path, got {shown(value)}")
        return value

    def _autostart(self, value: Any) -> Any:
        if not isinstance(value, bool):
            self._wrong("autostart", f"must be true or false, got {shown(value)}")
        return value


def _argument(item: Any) -> str:
    """What is wrong with one argument; empty = nothing."""
    if not isinstance(item, Argument) or (isinstance(item, float) and not math.isfinite(item)):
        return f"must be text, a finite number, true or false, got {shown(item)}"
    return "must be a number of 64 bits" if isinstance(item, int) and item.bit_length() > 63 else ""
