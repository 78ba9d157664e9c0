"""One breaker of this host: its state machine, its counts, who declared it and where it is shown.

Settings come from the configuration file, else from the declarations of attached workers: the first
one stays in force until the last worker that declares it has left. Neighbours: `ipc.breaker` decides,
`metrics` counts, `engine` calls. Knows no message and no segment.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final

from ipc.breaker import Breaker
from ipc.circuit import GOLDEN
from ipc.errors import SettingsError
from ipc.vocabulary import BreakerSettings, BreakerState
from supervisor.metrics import BreakerMetrics

REFUSING: Final = frozenset({BreakerState.OPEN, BreakerState.FORCED_OPEN})
"""The states that admit nothing, not even a trial."""
NEVER_LOOKED: Final = -1
_KEYS: Final = frozenset(one.name for one in fields(BreakerSettings))


@functools.lru_cache(maxsize=1024)
def read_settings(text: str) -> BreakerSettings:
    """Settings from the configuration's JSON. Raises SettingsError, whatever the text is."""
    return _settings(_object(text))


@functools.lru_cache(maxsize=1024)
def read_declared(text: str) -> tuple[BreakerSettings, tuple[str, ...]]:
    """Settings from a worker's JSON, and the keys that only a newer worker knows. Raises SettingsError."""
    values = _object(text)
    known = {key: value for key, value in values.items() if key in _KEYS}
    return _settings(known), tuple(key for key in values if key not in known)


def _object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError("settings", "are not JSON") from None
    if not isinstance(values, dict):
        raise SettingsError("settings", "must be a JSON object")
    return values


def _settings(values: dict[str, Any]) -> BreakerSettings:
    try:
        return BreakerSettings.from_json(values)
    except (TypeError, RecursionError):
        raise SettingsError("settings", "have values of no known kind") from None


@dataclass(slots=True, eq=False)
class HostBreaker:
    """A breaker under its full name; made at its first declaration, forgotten when nobody uses it."""

    number: int
    """Breakers are numbered in the order of their first declaration; no number is given twice."""
    namespace: str
    short: str
    breaker: Breaker
    metrics: BreakerMetrics = field(default_factory=BreakerMetrics)
    declared: dict[str, BreakerSettings] = field(default_factory=dict)
    """By worker, in the order of declaration."""
    shown: dict[tuple[str, int], int] = field(default_factory=dict)
    """The board word last published, by worker and row. Only the engine's publications write boards."""
    configured: BreakerSettings | None = None
    critical: bool = False
    owner: int = -1
    """The user whose worker declared it first; -1 = not known, an older supervisor did not keep it."""
    looked_at: int = NEVER_LOOKED
    """The breaker's revision when its words were last compared with the published ones."""
    conflicting: int = 0
    """Workers whose declaration differs from the settings in force, as last told in an event."""
    _votes: Counter[BreakerSettings] = field(default_factory=Counter)
    """How many workers declare which settings; it follows from `declared`."""
    _rows: dict[str, list[int]] = field(default_factory=dict)
    """The rows of `shown` by worker."""
    _common: int | None = None
    """The word that every row shows but those of `_odd`; None = it is not known that there is one."""
    _odd: dict[str, None] = field(default_factory=dict)
    """Workers whose rows may show another word than `_common`: new, or isolated when last looked at."""

    @property
    def name(self) -> str:
        """The full name, `namespace/name`."""
        return f"{self.namespace}/{self.short}"

    @property
    def settled(self) -> bool:
        """True if nothing that it was told can have changed a board word or is an event."""
        return self.breaker.revision == self.looked_at and not self.breaker.transitions

    def chance(self, drawn: float) -> float:
        """This breaker's own chance in [0, 1), from the one that was drawn for the message."""
        return (drawn + self.number * GOLDEN) % 1.0

    @property
    def state(self) -> BreakerState:
        """What it is for the whole host."""
        return self.breaker.state_of()

    def retry_after_s(self, worker: str, now: float) -> float | None:
        """Seconds for which this worker ("" = all) is refused; 0.0 = it is not, None = until a verb comes."""
        circuit = self.breaker.isolated.get(worker, self.breaker.host)
        if circuit.state not in REFUSING:
            return 0.0
        return None if math.isinf(circuit.until) else max(0.0, circuit.until - now)

    def declare(self, worker: str, settings: BreakerSettings) -> None:
        """The worker has a say about the settings, instead of what it said before."""
        self._withdraw(self.declared.get(worker))
        self.declared[worker] = settings
        self._votes[settings] += 1

    def _withdraw(self, settings: BreakerSettings | None) -> None:
        if settings is not None:
            self._votes[settings] -= 1
            if not self._votes[settings]:
                del self._votes[settings]

    def show(self, worker: str, row: int) -> None:
        """From now on this row of this worker shows the breaker; nothing was published there yet."""
        if (worker, row) not in self.shown:
            self.shown[worker, row] = 0
            self._rows.setdefault(worker, []).append(row)
        self._odd[worker] = None
        self.looked_at = NEVER_LOOKED

    def hide(self, worker: str) -> None:
        """The worker is gone: forget its rows and its declaration."""
        for row in self._rows.pop(worker, ()):
            del self.shown[worker, row]
        self._odd.pop(worker, None)
        self._withdraw(self.declared.pop(worker, None))

    def changed_words(self) -> Iterator[tuple[str, int, int]]:
        """(worker, row, word) of each row whose word is not the published one; it is from now on.

        A closed breaker shows all workers the same word but those that are isolated. While that word stays,
        only they and the new ones are looked at: joining and leaving cost the same beside many as beside few.
        """
        word_of = self.breaker.word
        self.looked_at = self.breaker.revision
        before, odd = self._common, self._odd
        self._common, self._odd = self._same_word(), dict.fromkeys(self.breaker.isolated)
        same = self._common is not None and self._common == before
        for worker in list(odd | self._odd) if same else list(self._rows):
            word = word_of(worker)
            for row in self._rows.get(worker, ()):
                if word != self.shown[worker, row]:
                    self.shown[worker, row] = word
                    yield worker, row, word

    def _same_word(self) -> int | None:
        """The word of every worker that is not isolated; None = it depends on the worker."""
        return self.breaker.word("") if self.breaker.state_of() is BreakerState.CLOSED else None

    def refresh(self) -> None:
        """Take the present words as the published ones, as every turn of the engine leaves them."""
        for worker, rows in self._rows.items():
            word = self.breaker.word(worker)
            for row in rows:
                self.shown[worker, row] = word
        self._common, self._odd = self._same_word(), dict.fromkeys(self.breaker.isolated)
        self.looked_at = self.breaker.revision

    def wanted(self) -> BreakerSettings:
        """The settings that should be in force now."""
        if self.configured is not None:
            return self.configured
        current = self.breaker.settings
        return current if not self.declared or current in self._votes else next(iter(self.declared.values()))

    @property
    def differing(self) -> int:
        """Workers that declare other settings than those in force, where no configuration decides."""
        return 0 if self.configured is not None else len(self.declared) - self._votes[self.breaker.settings]

    def conflicts(self) -> dict[BreakerSettings, list[str]]:
        """Declared settings that are not in force, with the workers that declare them."""
        current = self.breaker.settings
        found: dict[BreakerSettings, list[str]] = {}
        for worker, settings in self.declared.items():
            if settings != current:
                found.setdefault(settings, []).append(worker)
        return found

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        self.breaker.shift(delta_s)
        self.refresh()
        self.metrics.shift(delta_s)

    def to_plain(self) -> list[Any]:
        """The breaker as JSON values; the words shown are not kept, they follow from its state."""
        return [
            self.namespace,
            self.short,
            self.breaker.settings.to_json(),
            self.breaker.to_plain(),
            self.metrics.to_plain(),
            _declarations(self.declared),
            None if self.configured is None else self.configured.to_json(),
            self.critical,
            self.conflicting,
            [[worker, row] for worker, row in self.shown],
            self.number,
            self.owner,
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> HostBreaker:
        """The breaker that `to_plain` wrote."""
        namespace, short, settings, breaker, metrics, declared, configured, *rest = plain
        critical, conflicting, shown, number, owner = rest
        restored = cls(
            number,
            namespace,
            short,
            Breaker.from_plain(BreakerSettings.from_json(settings), breaker),
            BreakerMetrics.from_plain(metrics),
            configured=None if configured is None else BreakerSettings.from_json(configured),
            critical=critical,
            conflicting=conflicting,
            owner=owner,
        )
        for worker, said in _read_declarations(declared):
            restored.declare(worker, said)
        for worker, row in shown:
            restored.show(worker, row)
        restored.refresh()
        return restored


def _declarations(declared: dict[str, BreakerSettings]) -> list[list[Any]]:
    """[worker, settings]; settings that stand there already are the number of the entry that has them."""
    first: dict[BreakerSettings, int] = {}
    plain: list[list[Any]] = []
    for number, (worker, settings) in enumerate(declared.items()):
        known = first.setdefault(settings, number)
        plain.append([worker, settings.to_json() if known == number else known])
    return plain


def _read_declarations(plain: list[list[Any]]) -> Iterator[tuple[str, BreakerSettings]]:
    """What `_declarations` wrote, also as it was written before it named equal settings by a number."""
    read: list[BreakerSettings] = []
    for worker, values in plain:
        settings = read[values] if isinstance(values, int) else BreakerSettings.from_json(values)
        read.append(settings)
        yield worker, settings
