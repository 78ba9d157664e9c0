"""A WSGI application that makes a guarded call while it is loaded, and one for each request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import ipc

breaker = ipc.CircuitBreaker("database", failure_threshold=None, failure_rate=None)


@breaker
def query() -> int:
    """The dependency."""
    return os.getpid()


query()  # with --preload, this is in the master, before it forks


def application(_environ: object, start: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answer with the worker's process id."""
    body = str(query()).encode()
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
