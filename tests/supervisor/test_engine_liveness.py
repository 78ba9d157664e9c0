"""Nothing is stuck: whatever happens to whom, a breaker moves on within what its settings say.

Many hosts in virtual time, by seed. `BREAKERD_HYPOTHESIS=long` in the environment tries many more.

L1  every OPEN breaker is tried again in time, or says that it can be
L2  HALF_OPEN ends by its trials or their leases, whatever the holders do
L3  healthy with traffic: CLOSED in time; dead with traffic: OPEN in time
L10 open times grow to their maximum and come back
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ipc.layout import PERMITS_BIT
from ipc.vocabulary import BreakerState
from tests.supervisor.world import SLACK_S, Probe, World

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SEEDS = range(2000 if os.environ.get("BREAKERD_HYPOTHESIS") == "long" else 100)
PROBES = [None, Probe(0.2, 1.0, 1), Probe(0.5, 3.0, 3), Probe(0.5, 2.0, 2, preventive=True)]


def a_world(seed: int, probe: Probe | None, trouble: float = 0.0) -> World:
    """A world with a probe of its own."""
    return World(seed, None if probe is None else replace(probe), trouble)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("trouble", [0.0, 0.1])
def test_a_breaker_follows_its_dependency_within_bounds(probe: Probe | None, trouble: float) -> None:
    """Outages and recoveries at random; then it is well for good, then it is dead."""
    for seed in SEEDS:
        world = a_world(seed, probe, trouble)
        for _ in range(5):
            world.up = not world.up
            world.run(world.dice.random() * 6.0)
        world.up, world.trouble = True, 0.0
        world.until(CLOSED, world.recovered_by)
        world.run(world.settings.ramp_s + world.lease + 1.0)
        assert world.state is CLOSED, seed
        world.up = False
        world.until(OPEN, world.opened_by)
        world.up = True
        world.until(CLOSED, world.recovered_by)


@pytest.mark.parametrize("probe", PROBES[:3])
def test_without_traffic_it_says_that_it_can_be_tried(probe: Probe | None) -> None:
    """Its time over, or its probe content, every board offers a permit, for as long as nobody comes."""
    for seed in SEEDS:
        world = a_world(seed, probe)
        world.up = False
        world.until(OPEN, world.opened_by)
        world.up, world.quiet = True, True
        world.until(HALF_OPEN, max(world.open_max, world.probe_max) + SLACK_S)
        world.run(20.0)
        assert world.state is HALF_OPEN, seed
        assert all(world.board[nonce] & PERMITS_BIT for nonce in world.callers), seed
        world.quiet = False
        for caller in world.callers.values():
            caller.due = world.now + world.dice.random() * caller.period
        world.since = world.now
        world.until(CLOSED, world.recovered_by)


def test_a_probe_that_fails_for_ever_is_obeyed_as_long_as_it_speaks() -> None:
    """Not one trial meanwhile; when it falls silent, its patience later the timer decides."""
    for seed in SEEDS:
        world = a_world(seed, Probe(0.2, 1.0, 1, fault="fails"))
        assert world.probe is not None
        world.run(2.0)
        world.up = False
        world.until(OPEN, world.opened_by)
        opened = world.since
        world.up = True
        world.run(60.0)
        assert (world.state, world.since) == (OPEN, opened), seed
        world.probe.fault = "silent"
        world.until(HALF_OPEN, world.probe.patience + SLACK_S)
        assert world.now >= world.probe.heard + world.probe.patience
        world.until(CLOSED, world.recovered_by)


@pytest.mark.parametrize("fault", ["error", "silent"])
def test_a_probe_that_cannot_be_asked_changes_nothing(fault: str) -> None:
    """The timer decides, as without one."""
    for seed in SEEDS:
        world = a_world(seed, Probe(0.2, 1.0, 1, fault=fault))
        world.run(2.0)
        world.up = False
        world.until(OPEN, world.opened_by)
        world.until(HALF_OPEN, world.open_max + SLACK_S)
        world.up = True
        world.until(CLOSED, world.recovered_by)


def test_a_preventive_probe_opens_without_any_traffic() -> None:
    """In so many probes as it must fail, and it closes again only by trials."""
    for seed in SEEDS:
        world = a_world(seed, Probe(0.2, 1.0, 1, preventive=True))
        world.run(1.0)
        world.up, world.quiet = False, True
        world.until(OPEN, 3 * 1.1 * 1.0)
        world.up = True
        world.until(HALF_OPEN, max(world.open_max, world.probe_max) + SLACK_S)
        world.run(5.0)
        assert world.state is HALF_OPEN, seed


def test_open_times_grow_to_their_maximum_and_come_back() -> None:
    """Through a long outage they grow, never beyond; each timeout spent closed takes one step back."""
    for seed in SEEDS:
        world = a_world(seed, None)
        settings = world.settings
        world.up = False
        world.run(60.0)
        host = world.engine.catalogue.named["app/database"].breaker.host
        grown = settings.recovery_timeout * settings.recovery_growth**host.growth
        assert grown >= settings.recovery_timeout_max or settings.recovery_growth == 1.0
        world.up = True
        world.until(CLOSED, world.recovered_by)
        world.run((host.growth + 1) * settings.recovery_timeout + settings.ramp_s)
        assert world.state is CLOSED, seed
        world.up = False
        world.until(OPEN, world.opened_by)
        first = settings.recovery_timeout * (1.0 + settings.recovery_jitter)
        assert (host.growth, host.until - host.since <= first + 1e-9) == (0, True), seed


def test_the_world_would_notice() -> None:
    """A breaker that is kept open by nobody fails the checks that all of the above rely on."""
    world = a_world(1, None)
    world.up = False
    world.until(OPEN, world.opened_by)
    world.engine.catalogue.named["app/database"].breaker.gate(float("1e9"), vouched=False, now=world.now)
    with pytest.raises(AssertionError, match="L1"):
        world.run(60.0)
