"""Ids are valid UUIDs that sort by their time, whatever the clock and the threads do."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from workers.memory.ids import check, id_time, new_id, utc_now


def test_version_variant_and_time() -> None:
    """A new id is a UUID of version 7 whose time is now."""
    one = new_id()
    made = uuid.UUID(one)
    assert (str(made), made.version, made.variant) == (one, 7, uuid.RFC_4122)
    assert abs(id_time(one) - utc_now()) < timedelta(seconds=5)
    assert check(one) == one


def test_they_ascend_also_when_the_clock_steps_back() -> None:
    """Thousands within one instant, and then from an hour before: each is greater than the last."""
    now = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
    made = [new_id(now) for _ in range(5_000)]
    made += [new_id(now - 3_600_000_000_000) for _ in range(5_000)]
    assert made == sorted(set(made))


def test_threads_never_draw_the_same() -> None:
    """Ids of many threads are distinct, and each thread's ascend."""
    drawn: list[list[str]] = []

    def draw() -> None:
        drawn.append([new_id() for _ in range(2_000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(each == sorted(each) for each in drawn)
    assert len({one for each in drawn for one in each}) == 8_000


@pytest.mark.parametrize("text", ["", "x", new_id().upper(), new_id().replace("-", ""), new_id() + "\n"])
def test_what_is_no_id_is_refused(text: str) -> None:
    """Only the one spelling is an id."""
    with pytest.raises(ValueError, match="not an id"):
        check(text)
