"""The house rules that a machine can check: direction, size, clocks, doors, names, boundaries.

Each rule has its reason in CONTRIBUTING.md. The lists below are the architecture written down: a new
file must be given its row in LAYERS, and every exception to a rule has its reason beside it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.sources import (
    ROOT,
    SHIPPED,
    body_lines,
    dotted_name,
    enclosing,
    functions,
    imports,
    in_function,
    name_of,
    place,
    python_files,
    tracked,
    tree,
)

LAYERS: Final[dict[str, tuple[str, ...]]] = {
    # A file imports only from rows above its own; files of one row do not import each other.
    "ipc": (
        # words, bytes, errors
        "errors forks gate logbook",
        "vocabulary wire",
        "facts layout verdict",
        # the breaker, pure
        "circuit permits window",
        "circuits evidence",
        "trials",
        "status",
        "breaker",
        # the segment and the socket
        "control ring segment",
        "control_async blocks",
        "asking",
        # a worker process
        "outlet",
        "local",
        "link",
        "rows",
        "client",
        "process",
        "admission",
        "orders",
        "guard",
        "testing",
        "__init__",
    ),
    "supervisor": (
        # what is said
        "__init__ errors facts messages metrics steps",
        "descriptors disk image places priority settings units",
        "example journal",
        # the engine, pure
        "chronicle host_breaker",
        "turn worker",
        "catalogue counting",
        "roster",
        "engine",
        # the daemon's actors, and what they touch
        "actor connections decode health",
        "mind source views",
        "intake",
        "attachments intake_actor start",
        "disk_actor hello",
        "control_server selfcheck",
        "daemon",
        # its parent
        "listener lock notify",
        "store",
        "nursery",
        "main",
        # the command line
        "ctl.__init__ ctl.page",
        "ctl.ask ctl.colour ctl.exits ctl.screen ctl.trouble",
        "ctl.parse",
        "ctl.configuring ctl.doctor ctl.health ctl.listings ctl.usage ctl.versions ctl.waiting",
        "ctl.breaker ctl.watching",
        "ctl.main",
    ),
    "workers": (
        "__init__ demo.__init__",
        "demo.leash demo.ledger demo.scene demo.shop",
        "demo.account demo.crew demo.outage demo.processes demo.tap",
        "demo.lines demo.stage",
        "demo.screen",
        "demo.acts",
        "demo.__main__",
    ),
}
"""The order inside each package, lowest row first."""

FLOORS: Final = {"ipc": (), "supervisor": ("ipc",), "workers": ("ipc",)}
"""Which other packages of this project a package may import."""

OUTSIDE: Final = {"ipc": (), "supervisor": ("psutil", "rich"), "workers": ("psutil", "rich", "sqlalchemy")}
"""Which distributions from outside the standard library a package may import."""

ALONE: Final = {"ipc/testing.py": ("pytest",)}
"""What one file may import besides, because nobody imports it unasked."""

LAZY: Final[dict[str, tuple[str, ...]]] = {
    "ipc/logbook.py": ("logging",),  # a fifth of what `import ipc` costs, for what is rarely said
    "supervisor/ctl/main.py": ("importlib",),  # one verb needs one file
    "supervisor/ctl/screen.py": ("importlib",),  # rich only on a terminal, explanations only in trouble
}
"""Where a function may import, by file, and what: outlets that most runs never need."""

CLOCKS: Final[dict[str, str]] = {
    "ipc/control.py": "deadlines of an exchange, and a random first request id",
    "ipc/control_async.py": "the same deadlines on an event loop",
    "ipc/asking.py": "the deadline of asking for a permit",
    "ipc/client.py": "the clock that every guard of the process reads, the nonce, back-off",
    "ipc/forks.py": "when this process began",
    "supervisor/daemon.py": "the clock and the dice that every actor is given",
    "supervisor/nursery.py": "the daemon's pulse, restarts",
    "supervisor/lock.py": "how long to wait for another supervisor's end",
    "supervisor/start.py": "the name of a checkpoint that is set aside",
    "supervisor/control_server.py": "dates that people read",
    "supervisor/ctl/main.py": "the clock that every verb is given",
    "workers/demo/": "a program that measures what happens",
}
"""The only files (or folders) that read a clock or roll dice, each with the reason; all others are told."""

BOUNDARIES: Final[dict[str, str]] = {
    "ipc/admission.py:Admission._fire": "what the application's on_state_change raises is logged",
    "ipc/verdict.py:Verdict.asked": "an application's predicate that raises counts as False",
    "supervisor/actor.py:Stage._handle": "an actor's failure stays inside the actor",
    "supervisor/actor.py:Stage._failed": "so does its failure to restart",
}
"""`file:function` where `except Exception` may stand, each with the reason."""

WIDE: Final[dict[str, str]] = {}
"""`file:function` with more than six parameters, each with the reason."""

DRAWN: Final = {"ipc/layout.py"}
"""Files whose docstring is the drawing of their bytes, prose and all."""

FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60
PARAMETERS_MAX: Final = 6
DOCSTRING_LINES_MAX: Final = 12

CLOCK_MODULES: Final = {"random", "secrets", "uuid"}
CLOCK_CALLS: Final = {
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep")),
    *(f"time.{name}" for name in ("clock_gettime", "clock_gettime_ns", "localtime", "gmtime")),
    *("os.urandom", "datetime.now", "datetime.datetime.now", "os.getrandom"),
}
EFFECTS: Final = {"os.getenv", "os.mkdir", "os.makedirs", "open", "print", "socket.socket"}
VAGUE_NAMES: Final = re.compile(r"(^|_)(utils?|common|base|helpers?|misc)(_|$)")
MACHINE_PATHS: Final = re.compile(r"(?<![\w.$}~])/(?:root|home|work|Users)/|/tmp/venv")
UNFINISHED: Final = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
EXCUSE: Final = re.compile(r"#\s*(?:noqa|type:\s*ignore)")
REASONED: Final = re.compile(r"#\s*(?:noqa: [A-Z0-9, ]+|type:\s*ignore\[[\w, -]+\])\s*[-(#]\s*\S+")


def rows(package: str) -> dict[str, int]:
    """The row number of every file of a package."""
    return {name: number for number, row in enumerate(LAYERS[package]) for name in row.split()}


def complain(problems: list[str]) -> None:
    """Fail with every problem on a line of its own."""
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("package", LAYERS)
def test_every_file_has_its_row(package: str) -> None:
    """The list of a package's files and the files themselves are the same."""
    there = {place(name_of(path))[1] for path in python_files(f"{package}/")}
    listed = [name for row in LAYERS[package] for name in row.split()]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_one_way(package: str) -> None:
    """A file imports only lower rows of its package, lower packages, and what OUTSIDE allows."""
    order, problems = rows(package), []
    for path in python_files(f"{package}/"):
        mine = place(name_of(path))[1]
        if mine not in order:
            continue  # the test above names it
        for node, name in imports(path):
            top = name.partition(".")[0]
            if top == package:
                theirs = place(name)[1]
                if order.get(theirs, 0) >= order.get(mine, 0):
                    problems.append(f"{path}:{node.lineno}: {mine} imports {theirs}, which is not below it")
            elif top in LAYERS:
                if top not in FLOORS[package]:
                    problems.append(f"{path}:{node.lineno}: {package} must not import {top}")
            elif top not in sys.stdlib_module_names and top not in (*OUTSIDE[package], *ALONE.get(path, ())):
                problems.append(f"{path}:{node.lineno}: {package} must not import {top}")
    complain(problems)


def test_no_import_inside_a_function() -> None:
    """Imports stand at the top, but for the lazy outlets that are named."""
    problems = [
        f"{path}:{node.lineno}: import of {name} inside a function"
        for path in python_files(*SHIPPED, "benchmarks/")
        for node, name in imports(path)
        if in_function(node) and not {name, name.partition(".")[0]} & set(LAZY.get(path, ()))
    ]
    problems += [
        f"{path}:{node.lineno}: importlib inside a function"
        for path in python_files(*SHIPPED)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted_name(node.func).endswith("import_module")
        if "importlib" not in LAZY.get(path, ())
    ]
    complain(problems)


def test_importing_has_no_effect() -> None:
    """No module reads the environment, opens, prints or makes anything while it is imported."""
    problems = [
        f"{path}:{node.lineno}: {ast.unparse(node)} at import"
        for path in python_files(*SHIPPED)
        if not path.endswith("__main__.py")
        for node in ast.walk(tree(path))
        if not in_function(node)
        if (isinstance(node, ast.Call) and dotted_name(node.func) in EFFECTS)
        or (isinstance(node, ast.Attribute) and dotted_name(node) == "os.environ")
    ]
    complain(problems)


def test_sizes() -> None:
    """A file, a function and a list of parameters stay small enough to be read at one sitting."""
    problems = []
    for path in python_files():
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES_MAX:
            problems.append(f"{path}: {lines} lines, at most {FILE_LINES_MAX}")
        for function in functions(path):
            where = f"{path}:{function.lineno}: {function.name}"
            if (length := body_lines(function)) > FUNCTION_LINES_MAX:
                problems.append(f"{where} has {length} lines, at most {FUNCTION_LINES_MAX}")
            given = function.args
            names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len(names) - (bool(names) and names[0] in ("self", "cls"))
            if count > PARAMETERS_MAX and f"{path}:{function.name}" not in WIDE and path.startswith(SHIPPED):
                problems.append(f"{where} takes {count} parameters, at most {PARAMETERS_MAX}")
    complain(problems)


def test_module_docstrings_are_short() -> None:
    """A module says its role in at most 12 lines of prose; what is drawn (indented) does not count."""
    problems = []
    for path in python_files():
        text = ast.get_docstring(tree(path)) or ""
        prose = [line for line in text.splitlines() if line.strip() and not line.startswith("    ")]
        if not prose or (len(prose) > DOCSTRING_LINES_MAX and path not in DRAWN):
            problems.append(f"{path}: {len(prose)} lines of docstring, 1 to {DOCSTRING_LINES_MAX}")
    complain(problems)


def test_time_and_chance_are_parameters() -> None:
    """Only the named files read a clock, sleep or roll dice."""
    problems = []
    for path in python_files(*SHIPPED):
        if path.startswith(tuple(CLOCKS)):
            continue
        problems += [
            f"{path}:{node.lineno}: {dotted_name(node)}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute) and dotted_name(node) in CLOCK_CALLS
        ]
        for node, name in imports(path):
            names = {item.name for item in node.names} if isinstance(node, ast.ImportFrom) else set()
            if name in CLOCK_MODULES or {f"{name}.{item}" for item in names} & CLOCK_CALLS:
                problems.append(f"{path}:{node.lineno}: import of {name}")
    complain(problems)


def test_tests_do_not_sleep_or_patch() -> None:
    """Outside `live` and `faults` no test sleeps, and nowhere is one of our own modules patched."""
    problems = []
    for path in python_files("tests/"):
        text = (ROOT / path).read_text(encoding="utf-8")
        if path != "tests/test_tidy.py" and re.search(r"\bmock\b|monkeypatch\.setattr", text):
            problems.append(f"{path}: patches something")
        if not path.startswith(("tests/live/", "tests/faults/")):
            problems += [
                f"{path}:{node.lineno}: sleeps"
                for node in ast.walk(tree(path))
                if isinstance(node, ast.Call) and dotted_name(node.func) in ("time.sleep", "asyncio.sleep")
                if not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
            ]
    complain(problems)


def test_doors_are_doors() -> None:
    """An `__init__.py` holds its docstring, imports and a sorted `__all__`, nothing else."""
    problems = []
    for path in python_files(*SHIPPED):
        if not path.endswith("/__init__.py"):
            continue
        for node in tree(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            if isinstance(node, ast.Assign) and dotted_name(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                if list(names) != sorted(names):
                    problems.append(f"{path}:{node.lineno}: __all__ is not sorted")
                continue
            problems.append(f"{path}:{node.lineno}: more than a door")
    complain(problems)


def test_wide_excepts_stand_at_named_boundaries() -> None:
    """`except Exception` and its wider kin are caught for good only where BOUNDARIES says why."""
    problems = []
    for path in python_files(*SHIPPED):
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            wide = any(one is None or dotted_name(one) in ("Exception", "BaseException") for one in caught)
            passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if wide and not passes_on and f"{path}:{enclosing(node)}" not in BOUNDARIES:
                problems.append(f"{path}:{node.lineno}: wide except in {enclosing(node) or 'the module'}")
    complain(problems)


def test_records_have_slots() -> None:
    """Every dataclass that is shipped is slotted: no attribute appears by a typing mistake."""
    problems = []
    for path in python_files(*SHIPPED):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                for mark in node.decorator_list:
                    text = ast.unparse(mark)
                    if text.startswith("dataclass") and "slots=True" not in text:
                        problems.append(f"{path}:{node.lineno}: {node.name} has no slots")
    complain(problems)


def test_names_and_words() -> None:
    """No vague file names, no path of somebody's machine, no unfinished business, no bare excuse."""
    problems = [f"{path}: a vague name" for path in tracked() if VAGUE_NAMES.search(Path(path).stem)]
    for path in tracked():
        if path == "tests/test_tidy.py" or not path.endswith((".py", ".md", ".toml", ".json", ".txt", "run")):
            continue
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE_PATHS.search(line):
                problems.append(f"{path}:{number}: a path of one machine")
            if UNFINISHED.search(line):
                problems.append(f"{path}:{number}: unfinished")
            if EXCUSE.search(line) and path.startswith(SHIPPED) and not REASONED.search(line):
                problems.append(f"{path}:{number}: an excuse without its reason behind it")
    complain(problems)


@pytest.mark.parametrize("package", ["ipc", "supervisor"])
def test_tests_mirror_files(package: str) -> None:
    """Every test file of a package begins with the name of the file it tests."""
    names = {Path(path).stem for path in python_files(f"{package}/")}
    problems = [
        path
        for path in python_files(f"tests/{package}/")
        if (stem := Path(path).stem).startswith("test_")
        and not any(stem == f"test_{name}" or stem.startswith(f"test_{name}_") for name in names)
    ]
    complain(problems)
