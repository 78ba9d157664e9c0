"""What is known of an exception without a server: the system's errors, wrappers, groups, and text at last."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from pathlib import Path

import pytest

from ipc import BreakerState, CircuitOpenError
from tests.workers.facts import check, facts, provoked
from workers.classify import classify, counts_as_failure
from workers.kinds import Area, ErrorType, Origin
from workers.rules import ERRNOS, FAMILIES, table

LINK, QUERY, STORAGE = ErrorType.DATABASE_CONNECTION, ErrorType.DATABASE_QUERY, ErrorType.MEMORY_STORAGE


def test_nobody_listens(tmp_path: Path) -> None:
    """A port that was given back, and a socket that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refused = provoked(lambda: socket.create_connection(("127.0.0.1", port)))
    check(refused, "Drc", LINK, "errno ECONNREFUSED")
    with socket.socket(socket.AF_UNIX) as client:
        missing = provoked(lambda: client.connect(str(tmp_path / "none.sock")))
    check(missing, "Drc", LINK, "errno ENOENT")


def test_the_other_side_closed() -> None:
    """EPIPE and a reset."""
    one, other = socket.socketpair()
    other.close()
    broken = provoked(lambda: one.send(b"x"))
    one.close()
    check(broken, "Drc", LINK, "errno EPIPE")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served = listener.accept()[0]
        client.send(b"unread")
        served.close()
        reset = provoked(lambda: client.recv(1))
        client.close()
    check(reset, "Drc", LINK, "errno ECONNRESET")


def test_no_answer_in_time() -> None:
    """A time limit of the socket's, of asyncio's and of the program's own."""
    one, other = socket.socketpair()
    one.settimeout(0.01)
    late = provoked(lambda: one.recv(1))
    one.close()
    other.close()
    check(late, "Drc", LINK, "class builtins.TimeoutError")
    check(TimeoutError(), "Drc", LINK, "class builtins.TimeoutError")


def test_names_and_certificates() -> None:
    """Their errors have numbers of their own, which are not the system's."""
    unknown = provoked(lambda: socket.getaddrinfo("no.number", 1, flags=socket.AI_NUMERICHOST))
    check(unknown, "Drc", LINK, "class socket.gaierror")
    one, other = socket.socketpair()
    other.sendall(b"this is no handshake at all")
    context = ssl.create_default_context()
    plain = provoked(lambda: context.wrap_socket(one, server_hostname="localhost"))
    one.close()
    other.close()
    check(plain, "Drc", LINK, "class ssl.SSLError")


def test_this_machine_is_short_of_something() -> None:
    """A full disk and no descriptors left: no evidence against anybody else."""
    with open("/dev/full", "wb", buffering=0) as full:
        check_local = provoked(lambda: full.write(b"x"))
    assert classify(check_local) == facts("L--", STORAGE, "errno ENOSPC")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = os.open("/dev/null", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        none_left = provoked(lambda: os.open("/dev/null", os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(held)
    check(none_left, "Lr-", LINK, "errno EMFILE")


def test_files_that_may_not_be_used() -> None:
    """Any other error of the system is this machine's, and about what was being done."""
    folder = provoked(lambda: open("/", "wb"))  # noqa: SIM115 (it is never open)
    assert classify(folder, ErrorType.TOOL_ANALYTICS) == facts(
        "L--", ErrorType.TOOL_ANALYTICS, "errno EISDIR"
    )


@pytest.mark.parametrize(
    "text", ['{}["x"]', "int('x')", "None + 1", "[].nothing", "1 / 0", "nowhere", "import"]
)
def test_mistakes_in_the_program(text: str) -> None:
    """Nobody's outage, and no retry helps."""
    error = provoked(lambda: eval(text))
    found = classify(error)
    assert (found.origin, found.retriable, found.counts) == (Origin.CALLER, False, False)
    assert found.error_type is STORAGE


def test_what_was_being_done_decides_where_the_error_does_not_tell() -> None:
    """A refused connection is the cache's where the cache was called; nothing known is what was done."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert classify(refused, ErrorType.CACHE_OPERATION).error_type is ErrorType.CACHE_CONNECTION
    assert classify(refused, STORAGE, Area.CACHE).error_type is ErrorType.CACHE_CONNECTION
    assert classify(refused, ErrorType.CONTEXT_RETRIEVAL).error_type is LINK
    assert classify(ConnectionError("redis is away")).error_type is ErrorType.CACHE_CONNECTION
    for kind in ErrorType:
        assert classify(Exception("?"), kind) == facts("Drc", kind, "unknown")


@pytest.mark.parametrize(
    ("text", "flags", "error_type"),
    [
        ("connection refused", "Drc", LINK),
        ("Lost connection to MySQL server", "Drc", LINK),
        ("syntax error", "C--", QUERY),
        ("UNIQUE constraint failed: users.email", "C--", QUERY),
        ("deadlock detected", "Dr-", QUERY),
        ("request timed out", "Drc", LINK),
        ("database is locked", "Drc", QUERY),
        ("Temporary failure", "Drc", STORAGE),
        ("the configuration is incomplete", "S--", ErrorType.CONFIGURATION),
        ("QueuePool limit of size 5 reached", "Lr-", LINK),
    ],
)
def test_text_is_the_last_resort(text: str, flags: str, error_type: ErrorType) -> None:
    """An exception that has neither code nor telling class is known by its words."""
    assert classify(Exception(text)) == facts(flags, error_type, "text")
    assert classify(TypeError(text)).code == "class builtins.TypeError"


def test_a_wrapper_is_seen_through() -> None:
    """`raise X from error`, where X says nothing; a group is what the first that counts is."""

    def wrap() -> None:
        try:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        except OSError as error:
            raise RuntimeError("the query failed") from error

    check(provoked(wrap), "Drc", LINK, "errno ECONNRESET")
    group = ExceptionGroup("both", [ValueError("x"), ConnectionResetError(errno.ECONNRESET, "reset")])
    check(group, "Drc", LINK, "errno ECONNRESET")
    endless = RuntimeError("a circle")
    endless.__cause__ = endless
    assert classify(endless).code == "unknown"


def test_a_refusal_is_no_error() -> None:
    """It is rejected, never retried and never counted, and is about the dependency that its breaker names."""
    refused = CircuitOpenError("cache", BreakerState.OPEN, 3.0)
    found = classify(refused, QUERY)
    assert found.rejected
    assert (found.error_type, found.retriable, found.counts) == (ErrorType.CACHE_CONNECTION, False, False)
    assert classify(CircuitOpenError("x", BreakerState.OPEN, 3.0), QUERY).error_type is LINK
    assert not counts_as_failure(refused)


def test_an_exception_that_cannot_say_what_it_is() -> None:
    """Its own `__str__` raises: it says nothing."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert classify(Mute()) == facts("Drc", STORAGE, "unknown")


def test_the_table_is_whole() -> None:
    """Every code of the system exists, no row is there twice, all of it is printed."""
    assert all(rule.match == "*" or hasattr(errno, rule.match) for rule in ERRNOS)
    keys = [(rule.family, rule.match) for family in FAMILIES for rule in family]
    assert len(keys) == len(set(keys))
    assert table().count("\n") == len(keys) + 1
