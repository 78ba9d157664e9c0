"""The documents tell the truth: their code runs, their commands parse, their tables are the code's own.

Neighbours: `test_tidy`, which checks the source. What only a person can check is not here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import MISSING, fields
from typing import Final

import pytest

from ipc.circuit import diagram
from ipc.vocabulary import BreakerSettings, TimeWindow
from supervisor import settings, units
from supervisor.ctl.exits import STYLES, exit_code
from supervisor.ctl.page import Verdict
from supervisor.ctl.parse import parse
from supervisor.example import field_docs
from supervisor.policy import ward_diagram
from tests.sources import ROOT, SHIPPED, python_files, tracked

BLOCK: Final = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK: Final = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
DOCUMENTS: Final = sorted(path for path in tracked() if path.endswith(".md"))


def read(path: str) -> str:
    """A document's text."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[str, str, str]]:
    """Every code block in this language: (document, what stands behind the language, text)."""
    return [
        (path, found[2].strip(), found[3])
        for path in DOCUMENTS
        for found in BLOCK.finditer(read(path))
        if found[1] == language
    ]


def test_python_blocks_run_or_compile() -> None:
    """A Python block compiles; one marked `run` also runs, in a process of its own without a supervisor."""
    ran = 0
    for path, mark, text in blocks("python"):
        compile(text, path, "exec")
        if mark == "run":
            ran += 1
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", text],
                env={**os.environ, "BREAKERD_SOCKET": "off", "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{path}: {done.stderr}"
    assert ran >= 1


def test_configurations_are_valid() -> None:
    """Every TOML block is a configuration that breakerd takes."""
    found = blocks("toml")
    for path, _, text in found:
        settings.parse(text, path)
    assert found


def test_commands_parse() -> None:
    """Every supervisorctl command in a shell block is one that supervisorctl understands."""
    programs = ("supervisorctl ", "breakerctl ")
    lines = [line for _, _, text in blocks("sh") + blocks("console") for line in text.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith(programs)]
    for command in commands:
        parse(shlex.split(command, comments=True)[1:])
    assert len(commands) > 5


def test_the_diagrams_are_printed_from_the_tables() -> None:
    """The state diagrams in ARCHITECTURE.md are those that the tables print."""
    assert diagram().strip("\n") in read("ARCHITECTURE.md")
    assert ward_diagram().strip("\n") in read("ARCHITECTURE.md")


def test_ci_runs_the_readmes_command() -> None:
    """The README's test command is, to the letter, what .ci/run runs last."""
    command = next(line for line in read("README.md").splitlines() if line.endswith("-m tests"))
    assert read(".ci/run").rstrip().splitlines()[-1] == command


def test_the_settings_table_is_the_codes() -> None:
    """The README's table of settings has every field with its default and its docstring's text."""
    assert settings_table() in read("README.md")


def settings_table() -> str:
    """The table as it must stand in the README."""
    docs = field_docs(BreakerSettings)
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for field in fields(BreakerSettings):
        assert field.default is not MISSING
        default = field.default
        shown = f"TimeWindow({default.seconds})" if isinstance(default, TimeWindow) else repr(default)
        rows.append(f"| `{field.name}` | `{shown}` | {docs[field.name]} |")
    return "\n".join(rows)


def test_the_exit_codes_are_the_codes() -> None:
    """The README's table of supervisorctl's exit codes has the numbers of the code, row by row."""
    rows = re.findall(r"^\| [^|]+ \| (\d) \| (\d) \| (\d) \|$", read("README.md"), re.MULTILINE)
    order = (Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.UNAVAILABLE, Verdict.REFUSED, Verdict.USAGE)
    assert rows == [tuple(str(exit_code(verdict, style)) for style in STYLES) for verdict in order]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path: str) -> None:
    """A link inside the project names a file that is there, and a heading that is in it."""
    for target, anchor in LINK.findall(read(path)):
        there = (ROOT / path).parent / target if target else ROOT / path
        assert there.exists(), f"{path}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor[1:] in slugs, f"{path}: {anchor}"


DOORS = ("memory_config", "memory_error_handler", "memory_error_handler_integration_example")
"""The names under which the guide imports."""


def test_every_package_is_shipped() -> None:
    """pyproject.toml lists every folder that is a package of the three, the guide's doors, and the units."""
    told = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    there = {os.path.dirname(path).replace("/", ".") for path in python_files(*SHIPPED)}
    assert set(told["packages"]) == there | set(DOORS) | set(told["package-dir"])
    typed = {name for name, files in told["package-data"].items() if "py.typed" in files}
    assert typed == {"ipc", "supervisor", "workers", *DOORS}
    assert all((ROOT / name / "py.typed").exists() for name in typed)
    assert told["package-dir"] == {"supervisor.systemd": "systemd"}
    assert sorted(os.listdir(ROOT / "systemd")) == sorted(units.PLACES)


def test_one_version() -> None:
    """pyproject.toml and the changelog speak of the same version."""
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
