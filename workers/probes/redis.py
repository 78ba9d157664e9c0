"""Asks a server that speaks Redis for PONG: connects anew, never retries.

Neighbours: `question`, `prober`. Knows no key.
"""

from __future__ import annotations

from functools import partial

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers.probes.question import Ask, CannotAsk, Passed, ProbeFailed, Question, place


def prepare(question: Question) -> Ask:
    """Reads the URL."""
    url, limit_s = place(question.url), question.timeout_s
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=limit_s, socket_connect_timeout=limit_s, retry=Retry(NoBackoff(), 0)
        )
    except (ValueError, TypeError) as error:
        raise CannotAsk("this is no URL that redis-py knows") from error
    return partial(_ask, client)


def _ask(client: redis.Redis) -> Passed:
    try:
        with client:
            if not client.ping():
                raise ProbeFailed("it did not answer PING by PONG")
    finally:
        client.connection_pool.disconnect()
    return Passed("PONG")
