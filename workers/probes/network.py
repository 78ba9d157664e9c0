"""Asks by a connection (tcp), or by GET (http): the standard library's, no proxy, no redirection followed.

That somebody accepts a connection says that the kernel there lives: a stopped server accepts, too.
Neighbours: `question`, `prober`. Knows no database.
"""

from __future__ import annotations

import base64
import http.client
import socket
from functools import partial
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from workers.probes.question import Ask, CannotAsk, Passed, ProbeFailed, Question, place

BODY_BYTES_MAX: Final = 65_536
"""How much of an answer is searched."""
ASKS_FOR_PASSWORD: Final = (401, 407)
"""Whoever says this lives, and does not say whether it serves."""


def prepare_tcp(question: Question) -> Ask:
    """Takes the address apart."""
    return partial(_connect, question.address, question.timeout_s)


def _connect(address: str, timeout_s: float) -> Passed:
    if address.startswith("unix:"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout_s)
            link.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    return Passed("somebody accepts connections")


def prepare_http(question: Question) -> Ask:
    """Reads the URL."""
    try:
        parts = urlsplit(place(question.url))
        port = parts.port
    except ValueError as error:
        raise CannotAsk("this is no URL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CannotAsk("this is no URL of http or https with a host")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        link = kind(parts.hostname, port, timeout=question.timeout_s)
    except http.client.InvalidURL as error:
        raise CannotAsk("this is no URL") from error
    return partial(_get, link, parts, question)


def _get(link: http.client.HTTPConnection, parts: SplitResult, question: Question) -> Passed:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        link.request("GET", path, headers=_headers(parts))
        answer = link.getresponse()
        body = answer.read(BODY_BYTES_MAX) if question.body else b""
    except http.client.InvalidURL as error:
        raise CannotAsk("the URL has a character that it must not have") from error
    finally:
        link.close()
    if answer.status not in question.status:
        if answer.status in ASKS_FOR_PASSWORD:
            raise CannotAsk(f"status {answer.status}: it wants to know who asks")
        wanted = ", ".join(map(str, question.status))
        raise ProbeFailed(f"status {answer.status}, not {wanted}")
    if question.body.encode() not in body:
        raise ProbeFailed(f"status {answer.status}, but the answer does not contain the text")
    return Passed(f"status {answer.status}")


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"User-Agent": "breakerd", "Accept": "*/*", "Connection": "close"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return headers
