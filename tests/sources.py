"""How the tests read the project's own source: which files there are, what they import, who is inside whom.

Neighbours: `test_tidy` and `test_docs`, which hold the rules. Nothing here is imported or run, only parsed.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SHIPPED: Final = ("ipc/", "supervisor/", "workers/")


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the project that is not ignored, as paths from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        # No git here, or an unpacked archive, which is no repository.
        hidden = re.compile(r"/(?:\.(?!ci/)|__pycache__|build/)|\.egg-info/")
        paths = (str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
        return tuple(path for path in paths if not hidden.search("/" + path))
    return tuple(path for path in listing.split("\n") if path and (ROOT / path).exists())


def python_files(*folders: str) -> list[str]:
    """Paths of the Python files in these folders; all of the project's without any."""
    return [path for path in tracked() if path.endswith(".py") and path.startswith(folders or ("",))]


@cache
def tree(path: str) -> ast.Module:
    """The syntax tree of one file; every node knows its parent as `.parent`."""
    found = ast.parse((ROOT / path).read_text(encoding="utf-8"), path)
    for node in ast.walk(found):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]  # ast has no parents of its own
    return found


def enclosing(node: ast.AST) -> str:
    """The dotted name of the functions and classes around a node; "" at the top."""
    names: list[str] = []
    while (parent := getattr(node, "parent", None)) is not None:
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(parent.name)
        node = parent
    return ".".join(reversed(names))


def in_function(node: ast.AST) -> bool:
    """True if a function is around the node."""
    while (node := getattr(node, "parent", None)) is not None:  # type: ignore[assignment]  # None ends it
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return True
    return False


def imports(path: str) -> Iterator[tuple[ast.stmt, str]]:
    """Every import of a file as (statement, dotted name); `from a import b` gives a.b if that is a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, item.name) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for item in node.names:
                inner = f"{module}.{item.name}"
                yield node, inner if is_module(inner) else module


def is_module(dotted: str) -> bool:
    """True if the name is a file or a package of this project."""
    path = ROOT / dotted.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def place(dotted: str) -> tuple[str, str]:
    """(package, name in LAYERS) of a module of this project."""
    package, _, rest = dotted.partition(".")
    if not rest or (ROOT / dotted.replace(".", "/")).is_dir():
        rest = f"{rest}.__init__".lstrip(".")
    return package, rest


def name_of(path: str) -> str:
    """The dotted module name of a file's path."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def dotted_name(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted_name(node.value)):
        return f"{left}.{node.attr}"
    return ""


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines
