"""The limits without a configuration are those of the configuration without a file."""

from __future__ import annotations

from supervisor.connection_limits import Limits
from supervisor.settings import SupervisorSettings


def test_the_limits_are_those_of_the_settings() -> None:
    """Said in two places, equal in both; others are taken over."""
    assert Limits.of(SupervisorSettings()) == Limits()
    told = SupervisorSettings(unsaid_max=16, connections_max=17, per_uid_max=3, hello_within_s=0.5)
    assert Limits.of(told) == Limits(16, 17, 3, 0.5)
