"""What managed workers do whose lines are looked at: they attach, and they log."""

from __future__ import annotations

import itertools
import logging
import signal
import sys
import time

import ipc

log = logging.getLogger("app")


def talk(every_s: float = 0.05) -> None:
    """A numbered line again and again."""
    ipc.connect()
    for number in itertools.count():
        log.info("line %d", number)
        time.sleep(every_s)


def flood() -> None:
    """Lines without a pause."""
    ipc.connect()
    for number in itertools.count():
        log.info("flood %d", number)


def once() -> None:
    """One line, and a good end."""
    log.warning("all is done")


def fail() -> None:
    """A bad end."""
    raise RuntimeError("as always")


def stubborn() -> None:
    """Does not end when it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60.0)


def polite() -> None:
    """Says good-bye when it is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log.info("here")
    try:
        time.sleep(60.0)
    finally:
        for number in range(1000):
            log.info("bye %d", number)
