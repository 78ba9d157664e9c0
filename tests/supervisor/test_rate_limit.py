"""One line per key and period; the next one tells how many were left out, and memory stays bounded."""

from __future__ import annotations

from supervisor.rate_limit import KEYS_MAX, RateLimit


def test_the_first_line_of_a_period_is_written_and_counts_those_left_out() -> None:
    """Each key has a period of its own."""
    times = [50.0]
    limit = RateLimit(10.0, lambda: times[0])
    assert [limit.allow("a"), limit.allow("a"), limit.allow("b"), limit.allow("a")] == [0, None, 0, None]
    times[0] = 59.9
    assert limit.allow("a") is None
    times[0] = 60.0
    assert [limit.allow("a"), limit.allow("a"), limit.allow("b")] == [3, None, 0]


def test_more_keys_than_may_be_remembered_forget_the_oldest() -> None:
    """Who comes under many names costs no memory without end."""
    limit = RateLimit(10.0, lambda: 0.0)
    for key in range(KEYS_MAX + 1):
        assert limit.allow(key) == 0
    assert limit.allow(KEYS_MAX) is None
    assert limit.allow(1) is None
    assert limit.allow(0) == 0, "the oldest was forgotten"
