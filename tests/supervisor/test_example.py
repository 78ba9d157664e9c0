"""The commented configuration file."""

from __future__ import annotations

import re

from ipc.vocabulary import BreakerSettings
from supervisor.example import PROBES, WIDTH, example, field_docs
from supervisor.settings import (
    BREAKER_KEYS,
    SECTIONS,
    BreakerTable,
    NamespaceTable,
    SupervisorSettings,
    parse,
)
from supervisor.settings_probe import PROBE_KEYS
from supervisor.settings_workers import WORKER_KEYS, WorkerTable


def test_the_example_is_the_defaults() -> None:
    """As it is printed, it changes nothing."""
    assert parse(example(), "example") == SupervisorSettings()


def test_every_line_that_is_taken_in_is_a_default() -> None:
    """With every "#" taken away it sets each key to its default."""
    text = re.sub(r"(?m)^#(?! )", "", example())
    assert parse(text, "example") == SupervisorSettings(
        breakers=tuple(
            BreakerTable(name, BreakerSettings(), probe=probe, decides=name == PROBES[0][0])
            for name, probe in sorted(PROBES, key=str)
        ),
        namespaces=(NamespaceTable("shop"),),
        workers=(WorkerTable("web", "package.module:callable"),),
    )


def test_every_key_is_there_with_its_explanation() -> None:
    """None is forgotten, and each has a comment above it."""
    lines = example().splitlines()
    others, workers = lines[: (place := lines.index("#[workers.web]"))], lines[place:]
    first, last = others.index("#[breakers.database.probe]"), others.index("#[namespaces.shop]")
    others, probes = others[:first] + others[last:], others[first:last]
    for key in (*(key for keys in SECTIONS.values() for key in keys), *BREAKER_KEYS, "critical", "users"):
        _is_explained(others, key)
    for key in WORKER_KEYS:
        _is_explained(workers, key)
    for key in PROBE_KEYS:
        places = [number for number, line in enumerate(probes) if line.startswith(f"#{key} = ")]
        assert places, key
        assert all(probes[place - 1].startswith("# ") for place in places), key
    assert max(map(len, lines)) <= WIDTH + 2
    assert "None" not in example()


def _is_explained(lines: list[str], key: str) -> None:
    (place,) = (number for number, line in enumerate(lines) if line.startswith(f"#{key} = "))
    assert lines[place - 1].startswith("# ")


def test_field_docs_are_the_docstrings_below_the_fields() -> None:
    """One line of text a field."""
    docs = field_docs(BreakerTable)
    assert docs["name"] == "`database` (in every namespace) or `shop/database` (in one)."
    assert set(docs) == {"name", "critical", "probe", "decides"}
