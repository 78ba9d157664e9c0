"""What is out of use, in order; checked against a plain list."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from supervisor.idle import Idle

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.booleans()), max_size=60)


@given(STEPS)
def test_it_is_a_list_of_things_with_their_times(steps: list[tuple[int, int, bool]]) -> None:
    """Order, first, age and the way through a snapshot are those of a list."""
    idle, plain = Idle[int](), list[tuple[int, int, float]]()
    for at, (key, owner, rests) in enumerate(steps):
        plain = [one for one in plain if one[0] != key]
        if rests:
            idle.rest(key, owner, float(at))
            plain.append((key, owner, float(at)))
        else:
            idle.use(key)
    assert list(idle.oldest()) == [key for key, _, _ in plain]
    for owner in range(3):
        assert list(idle.of(owner)) == [key for key, whose, _ in plain if whose == owner]
    assert idle.first == min((at for _, _, at in plain), default=math.inf)
    assert sorted(idle.older(100.0, 90.0)) == sorted(key for key, _, at in plain if at + 90.0 <= 100.0)
    assert all(idle.since(key) == at for key, _, at in plain)
    again = Idle[int]()
    for key, owner, since in idle.to_plain():
        again.rest(key, owner, since)
    assert (again.to_plain(), again.first, len(again)) == (idle.to_plain(), idle.first, len(plain))
    idle.shift(-5.0)
    assert idle.first == again.first - 5.0
