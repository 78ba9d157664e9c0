"""The commented configuration file that `supervisorctl config example` prints.

Every key, default and unit comes from the fields and docstrings of the settings' classes, read from
their source, so that nothing is said twice. Neighbours: `settings`, whose `parse` reads it back.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from typing import Any, Final

from ipc.vocabulary import BreakerSettings, CountWindow, TimeWindow
from supervisor.checks import OFF
from supervisor.places import CONFIGURATION_FILE
from supervisor.settings import (
    BREAKER_KEYS,
    NULLABLE,
    SECTIONS,
    BreakerTable,
    NamespaceTable,
    SupervisorSettings,
)
from supervisor.settings_probe import EVERY_KEYS, OWN_KEYS, ProbeTable
from supervisor.settings_workers import WORKER_KEYS, WORKER_NULLABLE, WorkerTable

WIDTH: Final = 98
_HEAD: Final = (
    'breakerd\'s configuration. Everything below stands at its default: take away the "#" in front of what '
    'you change (comments have "# ", with a space). It is read from --config FILE, else from '
    f"{CONFIGURATION_FILE}. To check it without a supervisor: supervisorctl config check FILE"
)
_BREAKERS: Final = (
    "A breaker that stands here is decided here, whatever its workers declare. [breakers.database] is for "
    '"database" in every namespace, [breakers."shop/database"] for the one in "shop".'
)
_NAMESPACES: Final = (
    "A worker may join a namespace other than the one of its user's own name if its user stands here."
)
_WORKERS: Final = (
    "Processes that breakerd starts, restarts and stops itself, in the order of this file; they are "
    "stopped in reverse. Their code imports ipc like any other worker and finds this supervisor by itself."
)
_ANY_TARGET: Final = "package.module:callable"
_PROBE: Final = (
    "A probe asks what stands behind the breaker, in a process of its own: while the breaker is open, the "
    "calls that try it begin when the probe passes. Where nothing else stands in its table, the breaker's "
    "settings are still those that its workers declare."
)
PROBES: Final[tuple[tuple[str, ProbeTable], ...]] = (
    ("database", ProbeTable("sqlalchemy", url="env:DATABASE_URL")),
    ("cache", ProbeTable("redis", url="env:CACHE_URL")),
    ("queue", ProbeTable("tcp", address="localhost:5672")),
    ("shop-api", ProbeTable("http", url="https://shop.example/health")),
    ("disk", ProbeTable("exec", command=("/usr/bin/test", "-w", "/srv"))),
    ("search", ProbeTable("python", target=_ANY_TARGET)),
)
"""One of each kind; the first one also shows the keys that all take."""


def example() -> str:
    """The text of the file."""
    parts = [_comment(_HEAD)]
    for section, keys in SECTIONS.items():
        parts.append(f"[{section}]\n\n" + _entries(SupervisorSettings, keys, SupervisorSettings()))
    defaults = BreakerTable("database", BreakerSettings())
    breaker = "\n".join(
        (
            _entries(BreakerSettings, BREAKER_KEYS, defaults.settings),
            _entries(BreakerTable, ("critical",), defaults),
        )
    )
    parts.append(f"{_comment(_BREAKERS)}#[breakers.database]\n\n{breaker}")
    for name, probe in PROBES:
        keys = ("kind", *OWN_KEYS[probe.kind], *(EVERY_KEYS if name == PROBES[0][0] else ()))
        head = _comment(_PROBE) if name == PROBES[0][0] else ""
        parts.append(f"{head}#[breakers.{name}.probe]\n\n{_entries(ProbeTable, keys, probe)}")
    namespace = _entries(NamespaceTable, ("users",), NamespaceTable("shop"))
    parts.append(f"{_comment(_NAMESPACES)}#[namespaces.shop]\n\n{namespace}")
    worker = _entries(WorkerTable, WORKER_KEYS, WorkerTable("web", _ANY_TARGET))
    parts.append(f"{_comment(_WORKERS)}#[workers.web]\n\n{worker}")
    return "\n".join(parts)


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The docstring below each field of a class, each as one line of text."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    for item, following in itertools.pairwise(body):
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[item.target.id] = " ".join(str(following.value.value).split())
    return docs


def _entries(kind: type[Any], keys: tuple[str, ...], defaults: Any) -> str:
    docs = field_docs(kind)
    lines = []
    for key in keys:
        doc = docs[key]
        if key in NULLABLE or key in WORKER_NULLABLE:
            doc = doc.replace("None", f'"{OFF}"')
        elif key == "window":
            doc = f"{doc} {{ seconds = s }}: {TimeWindow.__doc__} {{ calls = n }}: {CountWindow.__doc__}"
        value = getattr(defaults, key)
        lines.append(f"{_comment(doc)}#{key} = {_toml(dict(value) if key == 'environment' else value)}\n")
    return "\n".join(lines)


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, WIDTH))


def _toml(value: Any) -> str:
    """A default as TOML."""
    if value is None:
        return f'"{OFF}"'
    if isinstance(value, TimeWindow):
        return f"{{ seconds = {value.seconds} }}"
    if isinstance(value, CountWindow):
        return f"{{ calls = {value.calls} }}"
    return json.dumps(list(value) if isinstance(value, tuple) else value)
