"""What HTTP clients raise, provoked on a real server: whose fault it is, and whether a breaker counts it."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from memory_error_handler import MemoryErrorHandler, handle_memory_errors
from workers.classify import classify, counts_as_failure
from workers.kinds import Origin

CALLER = (400, 404, 405, 409, 410, 422)
CREDENTIALS = (401, 403)
DEPENDENCY = (408, 429, 500, 502, 503, 504, 599)


class _Answering(BaseHTTPRequestHandler):
    """Answers `/status/404` with 404, cuts `/cut` off, and says nothing to `/silent`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif self.path == "/silent":
            self.server.done.wait(20)  # type: ignore[attr-defined] # set by the fixture
        else:
            self.send_response(int(self.path.rpartition("/")[2]))
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that answers as it is asked to."""
    serving = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    serving.done = threading.Event()  # type: ignore[attr-defined] # read by the handler
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.done.set()  # type: ignore[attr-defined]
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def by_httpx(url: str, timeout: float = 10.0) -> None:
    """One request of httpx."""
    httpx.get(url, timeout=timeout).raise_for_status()


def by_requests(url: str, timeout: float = 10.0) -> None:
    """One request of requests."""
    requests.get(url, timeout=timeout).raise_for_status()


def by_aiohttp(url: str, timeout: float = 10.0) -> None:
    """One request of aiohttp."""

    async def ask() -> None:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as answer:
            answer.raise_for_status()
            await answer.read()

    asyncio.run(ask())


def by_urllib(url: str, timeout: float = 10.0) -> None:
    """One request of the standard library."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise


Client = Callable[..., object]
CLIENTS = [by_httpx, by_requests, by_aiohttp, by_urllib]


def raised(client: Client, *args: Any) -> Exception:
    """What the client raises."""
    with pytest.raises(Exception) as caught:
        client(*args)
    return caught.value


@pytest.mark.parametrize("client", CLIENTS)
def test_statuses_say_whose_fault_it_is(client: Client, server: str) -> None:
    """4xx is the caller's, wrong credentials are the configuration's; 408, 429 and 5xx count."""
    for statuses, origin, passes in (
        (CALLER, Origin.CALLER, False),
        (CREDENTIALS, Origin.CONFIGURATION, False),
        (DEPENDENCY, Origin.DEPENDENCY, True),
    ):
        for status in statuses:
            found = classify(raised(client, f"{server}/status/{status}"))
            assert found.code == f"http {status}"
            assert (found.origin, found.retriable, found.counts) == (origin, passes, passes), status


@pytest.mark.parametrize("client", CLIENTS)
def test_failed_connections_and_timeouts_count(client: Client, server: str, nobody: str) -> None:
    """Nobody listens; no answer in time; the answer is cut off."""
    for url, timeout in ((nobody, 10.0), (f"{server}/silent", 0.2), (f"{server}/cut", 10.0)):
        error = raised(client, url, timeout)
        found = classify(error)
        assert (found.origin, found.retriable, found.counts) == (Origin.DEPENDENCY, True, True), error


@pytest.mark.parametrize("client", [by_httpx, by_requests, by_aiohttp])
def test_wrong_addresses_are_the_callers(client: Client) -> None:
    """They say nothing about a dependency."""
    for url in ("gopher://127.0.0.1/", "http://[::1/"):
        assert not counts_as_failure(raised(client, url)), url


def test_a_full_pool_is_our_own_shortage(server: str) -> None:
    """It may pass, and the dependency did not fail."""
    limits = httpx.Limits(max_connections=1)
    url, timeout = f"{server}/status/200", httpx.Timeout(5, pool=0.01)
    with httpx.Client(limits=limits, timeout=timeout) as client, client.stream("GET", url):
        found = classify(raised(client.get, url))
    assert (found.origin, found.retriable, found.counts) == (Origin.LOCAL, True, False)


def test_five_404_open_nothing_and_five_503_do(server: str) -> None:
    """Through the decorator, with the handler's breaker."""
    handler = MemoryErrorHandler()

    @handle_memory_errors(handler, "fetch", breaker="fetched-pages", default=str)
    def fetch(status: int) -> str:
        by_httpx(f"{server}/status/{status}")
        return "fetched"

    for _ in range(8):
        assert fetch(404) == ""
    assert not handler.circuit_breakers["fetched-pages"].state.is_open
    for _ in range(5):
        fetch(503)
    assert handler.circuit_breakers["fetched-pages"].state.is_open


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("FATAL: wrong password for ada", False),
        ("permission denied for schema audit", False),
        ("HTTP 401 Unauthorized", False),
        ("the request has an invalid api key", False),
        ("monthly quota exceeded", False),
        ("fe_sendauth: no password supplied", False),
        ("FATAL: Passwort-Authentifizierung für Benutzer »ada« fehlgeschlagen", False),
        ("FATAL: authentification par mot de passe échouée pour l'utilisateur « ada »", False),
        ("FATAL: la autentificación password falló para el usuario «ada»", False),
        ("rate limit reached", True),
        ("could not connect to upstream", True),
        ("peer disconnected", True),
    ],
)
def test_texts_of_nameless_errors(text: str, counts: bool) -> None:
    """Mistakes of the set-up are no outage; `connect` counts as a word, not inside of one."""
    assert counts_as_failure(RuntimeError(text)) is counts
    assert classify(RuntimeError(text)).retriable is counts


def test_connect_inside_a_word_is_no_connection() -> None:
    """Nothing is known of such an error, so it is not said to be one of a connection."""
    assert classify(RuntimeError("the plot is disconnecting readers' unconnectedness")).code == "unknown"


def test_attributes_that_raise_leave_an_error_unknown() -> None:
    """An exception of somebody else's may have properties that fail."""

    class Odd(Exception):
        @property
        def sqlstate(self) -> str:
            raise KeyError("sqlstate")

        @property
        def orig(self) -> object:
            raise RuntimeError("orig")

    assert classify(Odd("odd")).code == "unknown"
    assert MemoryErrorHandler().handle_database_error(Odd("odd"), "load") is not None
