"""Every breaker of this host by its names, and which settings are in force for each.

`[breakers."shop/database"]` of the configuration file comes before `[breakers.database]`, and either
before what workers declare. Neighbours: `engine` (the only writer), `host_breaker`, `views` (resolves
names that people type). Knows no worker's record and no outcome.
"""

from __future__ import annotations

from typing import Any, Final

from ipc.breaker import Breaker
from ipc.errors import SettingsError
from ipc.vocabulary import BreakerSettings
from supervisor.errors import BreakerNotFound
from supervisor.host_breaker import HostBreaker, read_settings
from supervisor.messages import Configured
from supervisor.turn import Turn

BREAKERS_MAX: Final = 4096
"""Breakers of a host; beyond it a declaration is refused and told, and its outcomes are `unknown_row`."""
NO_SETTINGS: Final = frozenset({"", "null", "{}"})
"""What the configuration says of a breaker that it mentions without deciding its settings."""


class Catalogue:
    """The breakers by number and by full name, and the configuration file's word on them."""

    def __init__(self) -> None:
        self.numbered: list[HostBreaker] = []
        self.named: dict[str, HostBreaker] = {}
        self.configured: dict[str, tuple[BreakerSettings | None, bool]] = {}
        """By full or short name: settings (None = the file gives none), and whether it is critical."""

    def resolve(self, name: str) -> str:
        """The full name of what a person typed, full or short. Raises BreakerNotFound."""
        if name in self.named:
            return name
        candidates = tuple(sorted(full for full, found in self.named.items() if found.short == name))
        if len(candidates) != 1:
            raise BreakerNotFound(name, candidates)
        return candidates[0]

    def find_or_make(
        self, namespace: str, short: str, first: BreakerSettings, now: float
    ) -> HostBreaker | None:
        """The breaker of this name, made with the settings in force if it is new; None = the host is full."""
        found = self.named.get(f"{namespace}/{short}")
        if found is not None:
            return found
        if len(self.numbered) >= BREAKERS_MAX:
            return None
        settings, critical = self._said(namespace, short)
        made = HostBreaker(
            len(self.numbered),
            namespace,
            short,
            Breaker(settings if settings is not None else first, now),
            configured=settings,
            critical=critical,
        )
        self.numbered.append(made)
        self.named[made.name] = made
        return made

    def configure(self, told: Configured, turn: Turn) -> None:
        """The configuration file was read, for the first time or again; windows and states are kept."""
        before = self.configured
        self.configured = {}
        for name, text, critical in told.breakers:
            try:
                settings = None if text in NO_SETTINGS else read_settings(text)
            except SettingsError as error:
                # settings.py checks the file before; what gets here was written by another version.
                turn.happened("supervisor", f"the configuration of breaker {name} is not used: {error}")
                settings = None
            self.configured[name] = (settings, critical)
        for breaker in self.numbered:
            breaker.configured, breaker.critical = self._said(breaker.namespace, breaker.short)
            self.choose(breaker, turn)
        if self.configured != before:
            names = ", ".join(self.configured) or "none"
            turn.happened("supervisor", f"the configuration file decides about breakers: {names}")

    def _said(self, namespace: str, short: str) -> tuple[BreakerSettings | None, bool]:
        """What the configuration file says of this breaker."""
        exact = self.configured.get(f"{namespace}/{short}")
        return exact if exact is not None else self.configured.get(short, (None, False))

    def choose(self, breaker: HostBreaker, turn: Turn) -> None:
        """Put the wanted settings into force and tell when declarations begin or cease to differ."""
        wanted = breaker.wanted()
        if wanted != breaker.breaker.settings:
            breaker.breaker.configure(wanted, turn.now)
            turn.touch(breaker)
            source = "the configuration" if breaker.configured is not None else "its workers"
            text = f"{breaker.name}: new settings from {source}"
            turn.happened("breaker", text, breaker.name, event="settings")
        differing = 0 if breaker.configured is not None else sum(map(len, breaker.conflicts().values()))
        if bool(differing) != bool(breaker.conflicting):
            text = (
                f"{differing} of its workers declare other settings"
                if differing
                else "its workers agree again"
            )
            turn.happened(
                "breaker", f"{breaker.name}: {text}", breaker.name, event="conflict", workers=str(differing)
            )
        breaker.conflicting = differing

    def to_plain(self) -> list[Any]:
        """The breakers and the configuration as JSON values."""
        return [
            [breaker.to_plain() for breaker in self.numbered],
            [
                [name, None if settings is None else settings.to_json(), critical]
                for name, (settings, critical) in self.configured.items()
            ],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Catalogue:
        """The catalogue that `to_plain` wrote."""
        catalogue = cls()
        for number, values in enumerate(plain[0]):
            breaker = HostBreaker.from_plain(number, values)
            catalogue.numbered.append(breaker)
            catalogue.named[breaker.name] = breaker
        for name, settings, critical in plain[1]:
            read = None if settings is None else BreakerSettings.from_json(settings)
            catalogue.configured[name] = (read, critical)
        return catalogue
