"""The error handling of the memory layer, under the name that its guide uses.

    from memory_error_handler import MemoryErrorHandler, handle_memory_errors

All of it lives in `workers` and `ipc`. An application may have a top-level package of its own by one of
these names, which then hides ours: that is told here, instead of by an error nobody understands.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def check_packages() -> None:
    """Raises ImportError if `workers` or `ipc` is another package than the one that came with this file."""
    here = Path(__file__).resolve().parent.parent
    for name in ("ipc", "workers"):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
        if spec is not None and not places:
            places = [Path(spec.origin or "(built in)")]
        if not places:
            raise ImportError(f"breakerd's package {name!r} is missing from {here}: install breakerd again")
        if here / name not in [place.resolve() for place in places]:
            raise ImportError(
                f"the package {name!r} at {places[0]} is not breakerd's, which is at {here / name}: it comes "
                f"first on sys.path. Rename it, or move it into a package of your application (such as "
                f"myapp.{name})"
            )


check_packages()

# Only now: with another package in the way these would fail with something harder to read.
from ipc import CircuitBreaker, CircuitOpenError  # noqa: E402 (see above)
from workers.classify import Classification, classify, counts_as_failure  # noqa: E402 (see above)
from workers.decorate import handle_memory_errors  # noqa: E402 (see above)
from workers.handler import MemoryErrorHandler  # noqa: E402 (see above)
from workers.kinds import ErrorType, FallbackStrategy, Origin  # noqa: E402 (see above)
from workers.metrics import ErrorMetric  # noqa: E402 (see above)
from workers.redact import redact  # noqa: E402 (see above)
from workers.retry import RetrySettings  # noqa: E402 (see above)

__all__ = [
    "CircuitBreaker",
    "CircuitOpenError",
    "Classification",
    "ErrorMetric",
    "ErrorType",
    "FallbackStrategy",
    "MemoryErrorHandler",
    "Origin",
    "RetrySettings",
    "check_packages",
    "classify",
    "counts_as_failure",
    "handle_memory_errors",
    "redact",
]
