"""One JSON Schema per verb of supervisorctl, strict: every key required, none unknown."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import referencing

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def read(name: str) -> Any:
    """The schema of that name."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


_REGISTRY: Any = referencing.Registry().with_resources(
    (f"breakerd:{name}", referencing.Resource.from_contents(read(name))) for name in NAMES
)


def problems(name: str, document: Any) -> list[str]:
    """What is wrong with a document, by the schema of that name; empty = nothing."""
    validator = jsonschema.Draft202012Validator(read(name), registry=_REGISTRY)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
