"""The configuration file: TOML in, frozen settings out, every mistake in it named by its path.

Checked as a whole, before anything starts; nothing of a file with a mistake is ever used.
Neighbours: `main` loads it for the daemon, `ctl.config` checks it, `example` prints it with every key,
`settings_workers` and `settings_probe` read the tables of the workers and probes.
Knows no breaker at work and no default of a breaker: `ipc.vocabulary.BreakerSettings` has those.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from typing import Any, Final

from ipc.errors import SettingsError
from ipc.layout import BLOCK, DEFAULT_SLOTS, MAX_SLOTS
from ipc.vocabulary import BreakerSettings, check_name
from supervisor.checks import FORMATS, HIDDEN, LEVELS, OFF, Bound, as_json, key_of, one_of, shown
from supervisor.errors import ConfigurationError
from supervisor.messages import ProbesConfigured
from supervisor.settings_probe import OWN_KEYS, ProbeTable, read_probe
from supervisor.settings_workers import WorkerTable, read_workers

FILE_MAX: Final = 1 << 20
"""Bytes of a configuration file."""
_COMMANDER: Final = re.compile(r"(user|group):[^\s:]+|uid:[0-9]{1,10}")
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class BreakerTable:
    """One `[breakers.NAME]`: it decides alone, whatever the workers declare, unless it is but a probe."""

    name: str
    """`database` (in every namespace) or `shop/database` (in one)."""
    settings: BreakerSettings
    critical: bool = False
    """Whether `supervisorctl health` fails, instead of warning, while this breaker is OPEN."""
    probe: ProbeTable | None = None
    """How its dependency is asked whether it is back; None = callers' trials alone find out."""
    decides: bool = True
    """Whether these settings are in force; else those are that the workers declare."""

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values, for people."""
        probe = None if self.probe is None else self.probe.to_json()
        settings = self.settings.to_json() if self.decides else {}
        return {**settings, "critical": self.critical, "probe": probe}


@dataclass(frozen=True, slots=True)
class NamespaceTable:
    """One `[namespaces.NAME]`."""

    name: str
    users: tuple[str, ...] = ()
    """Users whose workers may join this namespace, besides the user of the same name."""


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """The whole configuration. `SECTIONS` says which field stands in which table of the file."""

    commanders: tuple[str, ...] = ()
    """Who may command besides root and our own user: "user:NAME", "uid:NUMBER" or "group:NAME"."""
    connections_max: int = 4096
    """Connections that have said hello or asked something, in total (16 to 65,536)."""
    per_uid_max: int = 256
    """Of these, connections of one user who is not root or our own (1 to 65,536)."""
    unsaid_max: int = 256
    """Connections that have said nothing yet; one more and the oldest is dropped (16 to 65,536)."""
    hello_within_s: float = 2.0
    """Seconds in which a new connection must have made its first request (0.1 to 60)."""
    ring_slots: int = DEFAULT_SLOTS
    """Outcomes that a worker's queue holds, a power of two (512 to 1,048,576)."""
    tick_s: float = 0.02
    """Seconds after which every queue is looked at, rung or not (0.001 to 0.1)."""
    disk_interval_s: float = 1.0
    """Seconds between copies of the state to disk, made when it has changed (0.1 to 3,600)."""
    log_level: str = "info"
    """What is logged: "debug", "info", "warning" or "error"."""
    log_format: str = "text"
    """How: "text", or "json": one object a line, of managed workers too."""
    probe_processes: int = 2
    """Processes that run probes, one at a time each; they are started where a probe stands (1 to 32)."""
    breakers: tuple[BreakerTable, ...] = ()
    """Sorted by name."""
    namespaces: tuple[NamespaceTable, ...] = ()
    """Sorted by name."""
    workers: tuple[WorkerTable, ...] = ()
    """In the order of the file: started in this order, stopped in reverse."""
    file: str = field(default="", compare=False)
    """Where this was read; empty = the defaults."""

    def configured(self) -> tuple[tuple[str, str, bool], ...]:
        """The breakers as the message `Configured` carries them: (name, settings as JSON, critical)."""
        return tuple(
            (table.name, json.dumps(table.settings.to_json()) if table.decides else "", table.critical)
            for table in self.breakers
        )

    def probes(self) -> dict[str, ProbeTable]:
        """The probes by the name of their breaker's table."""
        return {table.name: table.probe for table in self.breakers if table.probe is not None}

    def probes_configured(self) -> ProbesConfigured:
        """What the engine must know of the probes; said right after `Configured`."""
        return ProbesConfigured(tuple(probe.rule(name) for name, probe in self.probes().items()))

    def users_of(self, namespace: str) -> tuple[str, ...] | None:
        """The users who may join `namespace` besides the user of that name; None = the file says nothing."""
        return next((table.users for table in self.namespaces if table.name == namespace), None)

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values, table by table as in the file."""
        plain: dict[str, Any] = {
            section: {key: as_json(getattr(self, key)) for key in keys} for section, keys in SECTIONS.items()
        }
        plain["breakers"] = {table.name: table.to_json() for table in self.breakers}
        plain["namespaces"] = {table.name: {"users": list(table.users)} for table in self.namespaces}
        plain["workers"] = {table.name: table.to_json() for table in self.workers}
        return plain

    def for_everybody(self) -> dict[str, Any]:
        """The same for those who may not command: without what may be secret, whatever it is called."""
        plain = self.to_json()
        for worker in plain["workers"].values():
            worker["args"] = [HIDDEN for _ in worker["args"]]
        for name, probe in self.probes().items():
            shown = plain["breakers"][name]["probe"]
            for key in OWN_KEYS[probe.kind]:
                shown[key] = HIDDEN if isinstance(shown[key], str) and shown[key] else shown[key]
        return plain


SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "control": ("commanders", "connections_max", "per_uid_max", "unsaid_max", "hello_within_s"),
    "supervisor": ("ring_slots", "tick_s", "disk_interval_s", "log_level", "log_format", "probe_processes"),
}
BREAKER_KEYS: Final = tuple(item.name for item in fields(BreakerSettings))
NULLABLE: Final = frozenset(item.name for item in fields(BreakerSettings) if "None" in str(item.type))
"""Keys of a breaker that may be "off"."""


_WORDS: Final = {"log_level": LEVELS, "log_format": FORMATS}
_BOUNDS: Final = {
    "connections_max": Bound(16, 65_536, whole=True),
    "per_uid_max": Bound(1, 65_536, whole=True),
    "unsaid_max": Bound(16, 65_536, whole=True),
    "hello_within_s": Bound(0.1, 60.0),
    "ring_slots": Bound(2 * BLOCK, MAX_SLOTS, whole=True, power_of_two=True),
    "tick_s": Bound(0.001, 0.1),
    "disk_interval_s": Bound(0.1, 3600.0),
    "probe_processes": Bound(1, 32, whole=True),
}


def load(path: str | None) -> SupervisorSettings:
    """The settings of the file; None = the defaults. Raises ConfigurationError with every mistake."""
    if path is None:
        return SupervisorSettings()
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise ConfigurationError((f"{path}: cannot be read: {error.strerror}",)) from error
    return parse(decode(data, path), path)


def decode(data: bytes, path: str) -> str:
    """The text of the file, of which `data` is all, or more than FILE_MAX. Raises ConfigurationError."""
    if len(data) > FILE_MAX:
        raise ConfigurationError((f"{path}: larger than {FILE_MAX} bytes",))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError((f"{path}: line {line}: not UTF-8",)) from None


def parse(text: str, name: str) -> SupervisorSettings:
    """The settings in `text`, which came from `name`. Raises ConfigurationError with every mistake."""
    reader = _Reader()
    try:
        settings = reader.settings(tomllib.loads(text), os.path.abspath(name))
    except ValueError as error:
        # A syntax error, or a number with more digits than Python writes down.
        raise ConfigurationError((f"{name}: {_placed(str(error), text)}",)) from None
    except RecursionError:
        raise ConfigurationError((f"{name}: nested too deeply",)) from None
    if reader.errors:
        raise ConfigurationError(tuple(f"{name}: {error}" for error in reader.errors))
    return settings


class _Reader:
    """One pass over the tables that goes on after a mistake; `errors` has them in the file's order."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def settings(self, tables: dict[str, Any], file: str) -> SupervisorSettings:
        """The settings, to be used only if no error was found."""
        known = (*SECTIONS, "breakers", "namespaces", "workers")
        values: dict[str, Any] = {}
        for section, content in tables.items():
            if section not in known:
                self._wrong(section, f"unknown; known are {', '.join(known)}")
            elif not isinstance(content, dict):
                self._wrong(section, f"must be a table, as in [{section}], got {shown(content)}")
            elif section == "breakers":
                found = [self._breaker(name, table) for name, table in content.items()]
                values[section] = tuple(sorted(filter(None, found), key=lambda table: table.name))
            elif section == "namespaces":
                joined = [self._namespace(name, table) for name, table in content.items()]
                values[section] = tuple(sorted(filter(None, joined), key=lambda table: table.name))
            elif section == "workers":
                values[section] = read_workers(content, self._wrong)
            else:
                values.update(self._section(section, content))
        return SupervisorSettings(file=file, **values)

    def _wrong(self, path: str, text: str) -> None:
        self.errors.append(f"{path}: {text}")

    def _section(self, section: str, content: dict[str, Any]) -> dict[str, Any]:
        values = {}
        for key, value in content.items():
            path = f"{section}.{key_of(key)}"
            if key not in SECTIONS[section]:
                self._wrong(path, f"unknown key; known are {', '.join(SECTIONS[section])}")
            elif key == "commanders":
                values[key] = self._names(path, value, _COMMANDER, 'like "user:deploy" or "group:ops"')
            elif key in _WORDS:
                if problem := one_of(_WORDS[key], value):
                    self._wrong(path, problem)
                values[key] = value
            else:
                if problem := _BOUNDS[key].problem(value):
                    self._wrong(path, problem)
                values[key] = value
        return values

    def _names(self, path: str, value: Any, pattern: re.Pattern[str], like: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            self._wrong(path, f"must be a list, got {shown(value)}")
            return ()
        for number, item in enumerate(value):
            if not isinstance(item, str) or not pattern.fullmatch(item):
                self._wrong(f"{path}[{number}]", f"must be {like}, got {shown(item)}")
        return tuple(value)

    def _namespace(self, name: str, table: Any) -> NamespaceTable | None:
        path = f"namespaces.{key_of(name)}"
        try:
            check_name(name, path)
        except SettingsError as error:
            self._wrong(path, error.text)
        if not isinstance(table, dict):
            self._wrong(path, f"must be a table, as in [{path}], got {shown(table)}")
            return None
        for key in table:
            if key != "users":
                self._wrong(f"{path}.{key_of(key)}", "unknown key; known is users")
        users = self._names(f"{path}.users", table.get("users", []), re.compile(r"[^\s:]+"), "a user's name")
        return NamespaceTable(name, users)

    def _breaker(self, name: str, table: Any) -> BreakerTable | None:
        path = f"breakers.{key_of(name)}"
        parts = name.split("/")
        try:
            if len(parts) > 2:
                raise SettingsError(path, f"must be NAME or NAMESPACE/NAME, got {shown(name)}")
            for part in parts:
                check_name(part, path)
        except SettingsError as error:
            self._wrong(path, error.text)
        if not isinstance(table, dict):
            self._wrong(path, f"must be a table, as in [{path}], got {shown(table)}")
            return None
        critical = table.get("critical", False)
        if not isinstance(critical, bool):
            self._wrong(f"{path}.critical", f"must be true or false, got {shown(critical)}")
        probe = read_probe(f"{path}.probe", table["probe"], self._wrong) if "probe" in table else None
        given = {}
        for key, value in table.items():
            if key in BREAKER_KEYS:
                given[key] = None if value == OFF and key in NULLABLE else value
            elif key not in ("critical", "probe"):
                text = f"unknown key; known are {', '.join(BREAKER_KEYS)}, critical, probe"
                if isinstance(value, dict):
                    text = f'unknown key; a name with a dot needs quotes: [breakers."{name}.{key}"]'
                self._wrong(f"{path}.{key_of(key)}", text)
        settings = self._checked(path, given)
        decides = bool(given) or "probe" not in table
        return None if settings is None else BreakerTable(name, settings, critical is True, probe, decides)

    def _checked(self, path: str, given: dict[str, Any]) -> BreakerSettings | None:
        """Each key alone, so that every mistake is found; then all together."""
        before = len(self.errors)
        for key, value in given.items():
            # What slow is may be said or be wrong elsewhere: here only the rate itself is looked at.
            beside = {"slow_call_s": 1.0} if key == "slow_call_rate" else {}
            try:
                BreakerSettings.from_json({key: value, **beside})
            except SettingsError as error:
                self._wrong(f"{path}.{error.key}", error.text)
        if len(self.errors) > before:
            return None
        try:
            settings = BreakerSettings.from_json(given)
        except SettingsError as error:
            self._wrong(f"{path}.{error.key}", error.text)
            return None
        most = given.get("recovery_timeout_max")
        if most is not None and most < settings.recovery_timeout:
            self._wrong(
                f"{path}.recovery_timeout_max",
                f"must be >= recovery_timeout, which is {settings.recovery_timeout:g}, got {most}",
            )
        return settings


def _placed(text: str, source: str) -> str:
    """A syntax error with its line and column in front."""
    found = _PLACE.search(text)
    if found is None:
        return text
    end = source.rstrip("\n")
    line, column = found.groups()
    if line is None:
        line, column = str(end.count("\n") + 1), str(len(end) - end.rfind("\n"))
    return f"line {line}, column {column}: {text[: found.start()]}"
