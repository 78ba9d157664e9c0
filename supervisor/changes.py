"""What a reload changes, section by section: two configurations in, names out.

Neighbours: `settings` (what is compared), `reload` (who asks, and answers with it). Knows no breaker and no
process; what follows from a change is done by those whose settings these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor.settings import SECTIONS, SupervisorSettings

NAMED_MAX: Final = 5
"""Names that a sentence has of each kind of change."""
TABLES: Final = ("breakers", "namespaces", "workers")
"""Sections that have a table per name."""


@dataclass(frozen=True, slots=True)
class Names:
    """The tables of one section that are new, different and gone."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, list[str]]:
        """As JSON values."""
        return {"added": list(self.added), "changed": list(self.changed), "removed": list(self.removed)}


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different between two configurations."""

    keys: tuple[tuple[str, tuple[str, ...]], ...]
    """By section of single values: the keys whose value is another one."""
    tables: tuple[tuple[str, Names], ...]
    """By section of tables."""
    restarted: tuple[str, ...]
    """The managed workers that are restarted: in their own table more than the count is different."""
    kept: tuple[str, ...]
    """What goes on as it was until something else restarts, in sentences."""

    def to_json(self) -> dict[str, Any]:
        """As the answer to `reload` has it."""
        changed: dict[str, Any] = {section: list(keys) for section, keys in self.keys}
        changed |= {section: names.to_json() for section, names in self.tables}
        return {"changed": changed, "restarted": list(self.restarted), "kept": list(self.kept)}

    def sentence(self) -> str:
        """All of it in one line."""
        parts = [f"{section}: {', '.join(keys)}" for section, keys in self.keys if keys]
        for section, names in self.tables:
            told = {"added": names.added, "changed": names.changed, "removed": names.removed}
            found = [f"{how} {_some(which)}" for how, which in told.items() if which]
            if found:
                parts.append(f"{section}: {', '.join(found)}")
        return "; ".join(parts) or "nothing is different"


def compare(old: SupervisorSettings, new: SupervisorSettings) -> Changes:
    """What is different in `new`."""
    keys = tuple(
        (section, tuple(key for key in known if getattr(old, key) != getattr(new, key)))
        for section, known in SECTIONS.items()
    )
    tables = tuple((section, _names(getattr(old, section), getattr(new, section))) for section in TABLES)
    before = {table.name: table.identity() for table in old.workers}
    restarted = tuple(
        table.name for table in new.workers if before.get(table.name, table.identity()) != table.identity()
    )
    return Changes(keys, tables, restarted, tuple(_kept(old, new, restarted)))


def _names(old: Iterable[Any], new: Iterable[Any]) -> Names:
    """Tables are told apart by their names, and compared by `repr`: 1 and true are equal, not the same."""
    before: Mapping[str, Any] = {table.name: table for table in old}
    after: Mapping[str, Any] = {table.name: table for table in new}
    return Names(
        tuple(name for name in after if name not in before),
        tuple(name for name in after if name in before and repr(before[name]) != repr(after[name])),
        tuple(name for name in before if name not in after),
    )


def _kept(old: SupervisorSettings, new: SupervisorSettings, restarted: tuple[str, ...]) -> list[str]:
    """What a running process cannot change."""
    told = []
    if old.ring_slots != new.ring_slots:
        told.append("supervisor.ring_slots: attached workers keep their queue, new ones get the new size")
    follow = [table.name for table in old.workers if not table.log_level and table.name not in restarted]
    if old.log_level != new.log_level and follow:
        told.append(f"supervisor.log_level: {_some(tuple(follow))} log as before until they are restarted")
    others = tuple(table.name for table in old.workers if table.name not in restarted)
    if old.log_format != new.log_format and others:
        told.append(f"supervisor.log_format: {_some(others)} log as before until they are restarted")
    return told


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"{', '.join(names[:NAMED_MAX])}{more}"
