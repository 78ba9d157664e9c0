"""A real prober asks by a connection and by GET: of whoever answers, of nobody, of one without an end."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.talking import CANARY, TalkingProber, closed_port, is_late

# --- the network --------------------------------------------------------------------------------------


def test_tcp(prober: TalkingProber, tmp_path: Path) -> None:
    """Over TCP and UNIX sockets: somebody listens, or nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert prober.verdict("tcp", address=address) == ("passed", "somebody accepts connections")
    verdict, text = prober.verdict("tcp", address=f"127.0.0.1:{closed_port()}")
    assert (verdict, text.partition(":")[0]) == ("failed", "ConnectionRefusedError")
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen(8)
        assert prober.verdict("tcp", address=f"unix:{path}")[0] == "passed"
    assert prober.verdict("tcp", address=f"unix:{path}")[0] == "failed"


class Pages(http.server.BaseHTTPRequestHandler):
    """A server whose paths are what it does."""

    def do_GET(self) -> None:
        """Answer with the status that the path names."""
        if self.path.startswith("/login"):
            good = self.headers["Authorization"] == "Basic dTpyaWdodA=="
            self.send_response(200 if good else 401)
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/200")
        elif self.path == "/trickle":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not self.server.closing.wait(0.05):  # type: ignore[attr-defined]  # of WebServer
                    self.wfile.write(b".")
            return
        else:
            self.send_response(int(self.path[1:4]))
        self.end_headers()
        self.wfile.write(b"all is well, " + self.path.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    """The address of that server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.closing = threading.Event()  # type: ignore[attr-defined]  # what ends a trickle
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.closing.set()  # type: ignore[attr-defined]  # as above
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "keys", "found"),
    [
        ("/200", {}, ("passed", "status 200")),
        ("/200?deep=1", {"body": "well, /200?deep"}, ("passed", "status 200")),
        ("/200", {"body": CANARY}, ("failed", "status 200, but the answer does not contain the text")),
        ("/503", {}, ("failed", "status 503, not 200")),
        ("/204", {"status": [200, 204]}, ("passed", "status 204")),
        ("/elsewhere", {}, ("failed", "status 302, not 200")),
        ("/login", {}, ("error", "status 401: it wants to know who asks")),
        ("/login", {"status": [401]}, ("passed", "status 401")),
        ("/200 split", {}, ("error", "the URL has a character that it must not have")),
    ],
)
def test_http(
    prober: TalkingProber, web: str, path: str, keys: dict[str, Any], found: tuple[str, str]
) -> None:
    """Status and text decide; a redirection is an answer, and a question for a password is none."""
    assert prober.verdict("http", url=f"http://{web}{path}", **{"status": [200], "body": "", **keys}) == found


def test_http_with_a_password(prober: TalkingProber, web: str) -> None:
    """In the URL, and only there."""
    assert prober.verdict("http", url=f"http://u:right@{web}/login", status=[200])[0] == "passed"
    assert prober.verdict("http", url=f"http://u:{CANARY}@{web}/login", status=[200])[0] == "error"
    assert (
        prober.verdict("http", url=f"http://u:{CANARY}@127.0.0.1:{closed_port()}/", status=[200])[0]
        == "failed"
    )


def test_http_that_never_ends_is_late(prober: TalkingProber, web: str) -> None:
    """Each byte comes in time; the whole does not."""
    is_late(prober, "http", url=f"http://{web}/trickle", status=[200], body="never")
