"""The shared words: every number that leaves a process is pinned here, by hand."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import pytest

from ipc import vocabulary as words
from ipc.errors import SettingsError
from ipc.vocabulary import (
    BreakerSettings,
    BreakerState,
    CountWindow,
    OutcomeKind,
    Tally,
    TimeWindow,
    Verb,
    check_name,
    window_from_json,
)


def test_states_have_fixed_numbers() -> None:
    """They stand in board words and checkpoints; 0 is a row that was never published."""
    assert {state.name: int(state) for state in BreakerState} == {
        "CLOSED": 1,
        "OPEN": 2,
        "HALF_OPEN": 3,
        "FORCED_OPEN": 4,
        "DISABLED": 5,
        "METRICS_ONLY": 6,
    }


def test_kinds_have_fixed_numbers() -> None:
    """They stand in outcome words and index a row's cumulative words."""
    assert {kind.name: int(kind) for kind in OutcomeKind} == {
        "SUCCESS": 2,
        "FAILURE": 3,
        "SLOW_SUCCESS": 4,
        "SLOW_FAILURE": 5,
        "IGNORED": 6,
        "CANCELLED": 7,
        "CANCELLED_LATE": 8,
        "COUNT": 11,
    }


def test_tallies_have_fixed_places_beside_the_kinds() -> None:
    """A row has 16 cumulative words; none means two things."""
    assert {tally.name: int(tally) for tally in Tally} == {
        "REJECTED": 12,
        "PERMIT_TIMEOUT": 13,
        "RAMPED": 14,
    }
    assert not {int(tally) for tally in Tally} & {int(kind) for kind in OutcomeKind}
    assert max(Tally) < 16


def test_verbs_have_fixed_texts() -> None:
    """They are what is typed and what is sent."""
    assert [str(verb) for verb in Verb] == ["force-open", "disable", "metrics-only", "reset", "enable"]


def test_kinds_fall_into_groups() -> None:
    """Each kind is a failure, a success, or proves nothing."""
    assert {OutcomeKind.FAILURE, OutcomeKind.SLOW_FAILURE, OutcomeKind.CANCELLED_LATE} == words.FAILURES
    assert {OutcomeKind.SUCCESS, OutcomeKind.SLOW_SUCCESS} == words.SUCCESSES
    assert {OutcomeKind.SLOW_SUCCESS, OutcomeKind.SLOW_FAILURE} == words.SLOW
    assert {
        BreakerState.FORCED_OPEN,
        BreakerState.DISABLED,
        BreakerState.METRICS_ONLY,
    } == words.MANUAL_STATES


def test_the_other_numbers_are_fixed() -> None:
    """The protocol's version, and the limits that both ends keep."""
    assert words.PROTOCOL_VERSION == 1
    assert words.MANUAL_DEFAULT_S == 3600.0
    assert (words.CLASSES_PER_BREAKER, words.COUNTERS_PER_PROCESS, words.OTHER_CLASS) == (32, 256, "other")
    assert math.inf == words.FOREVER


def test_the_defaults_are_the_documented_ones() -> None:
    """As JSON they are what a worker declares."""
    assert BreakerSettings().to_json() == {
        "failure_threshold": 5,
        "failure_rate": 0.5,
        "window": {"seconds": 30.0},
        "minimum_calls": 20,
        "slow_call_s": None,
        "slow_call_rate": None,
        "recovery_timeout": 30.0,
        "recovery_growth": 2.0,
        "recovery_timeout_max": 300.0,
        "recovery_jitter": 0.1,
        "permitted_trials": 3,
        "successes_to_close": 3,
        "trial_timeout": 10.0,
        "cancelled_is_failure_s": None,
        "ramp_s": 0.0,
    }


BOUNDS: dict[str, tuple[list[Any], list[Any]]] = {
    "failure_threshold": ([None, 1, 1_000_000], [0, -3, 1_000_001, 5.0, True, "5"]),
    "failure_rate": ([None, 1e-9, 1, 1.0], [0, 0.0, 1.01, -1.0, True, "half", math.nan]),
    "minimum_calls": ([1, 1_000_000], [0, 1_000_001, None, 2.0]),
    "slow_call_s": ([None, 0.001, 3600], [0.0, 0.0009, 3601, math.nan, math.inf, "1"]),
    "recovery_timeout": ([0.01, 86_400], [0.0, 86_401, None, math.nan, math.inf]),
    "recovery_growth": ([1, 10.0], [0.99, 10.1, None, True]),
    "recovery_timeout_max": ([604_800], [604_801, math.inf, None, math.nan]),
    "recovery_jitter": ([0, 1], [-0.1, 1.1, None]),
    "permitted_trials": ([1, 32], [0, 33, None, 1.0]),
    "successes_to_close": ([1, 1000], [0, 1001, None]),
    "trial_timeout": ([0.01, 3600], [0.0, 3601.0, None]),
    "cancelled_is_failure_s": ([None, 0, 3600], [-0.1, 3601.0, True]),
    "ramp_s": ([0, 0.1, 3600], [-0.1, 3601.0, True, None]),
    "window": ([TimeWindow(1), TimeWindow(3600), CountWindow(1)], [None, 30, {"seconds": 3}]),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, (good, _) in BOUNDS.items() for value in good]
)
def test_values_within_their_bounds_are_taken(key: str, value: Any) -> None:
    """The bounds themselves included."""
    assert getattr(BreakerSettings(**{key: value}), key) == value


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, (_, bad) in BOUNDS.items() for value in bad]
)
def test_values_beyond_their_bounds_are_refused_by_name(key: str, value: Any) -> None:
    """The error names the setting."""
    with pytest.raises(SettingsError) as raised:
        BreakerSettings(**{key: value})
    assert raised.value.key == key


def test_every_setting_has_its_bounds_tested() -> None:
    """A new one must be given a row above."""
    assert {field.name for field in fields(BreakerSettings)} == {*BOUNDS, "slow_call_rate"}


def test_a_slow_rate_needs_to_know_what_slow_is() -> None:
    """Else no call would ever be slow."""
    with pytest.raises(SettingsError, match="slow_call_rate: needs slow_call_s"):
        BreakerSettings(slow_call_rate=0.5)
    assert BreakerSettings(slow_call_s=1.0, slow_call_rate=0.5).slow_call_rate == 0.5


def test_what_cannot_be_meant_is_read_as_what_can() -> None:
    """A window smaller than minimum_calls, a maximum below the first open time."""
    assert BreakerSettings(window=CountWindow(10)).minimum_calls == 10
    assert BreakerSettings(recovery_timeout=600).recovery_timeout_max == 600.0


@pytest.mark.parametrize("window", [TimeWindow, CountWindow])
@pytest.mark.parametrize("size", [0, -1, 100_001, True, "10", None])
def test_windows_have_bounds_too(window: type[TimeWindow | CountWindow], size: Any) -> None:
    """Seconds from 1 to 3,600, calls from 1 to 100,000."""
    with pytest.raises(SettingsError, match=r"window\."):
        window(size)


@pytest.mark.parametrize(
    "settings",
    [
        BreakerSettings(),
        BreakerSettings(failure_threshold=None, window=CountWindow(50), slow_call_s=1.5, slow_call_rate=0.9),
    ],
)
def test_settings_survive_json(settings: BreakerSettings) -> None:
    """What is declared is what was meant, and equal settings are equal."""
    again = BreakerSettings.from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings
    assert hash(again) == hash(settings)


def test_what_is_left_out_keeps_its_default() -> None:
    """A file names only what differs."""
    assert BreakerSettings.from_json({"failure_threshold": 2}) == BreakerSettings(failure_threshold=2)


@pytest.mark.parametrize(
    "values",
    [
        {"failure_treshold": 5},
        {"window": {"seconds": 30, "calls": 5}},
        {"window": {}},
        {"window": [30]},
        {"window": {"seconds": "long"}},
        {"failure_threshold": [5]},
        {"recovery_timeout": {"s": 1}},
    ],
)
def test_hostile_settings_are_refused(values: dict[str, Any]) -> None:
    """Whatever they are, the answer is a SettingsError."""
    with pytest.raises(SettingsError):
        BreakerSettings.from_json(values)


def test_a_window_is_seconds_or_calls() -> None:
    """By its one key."""
    assert window_from_json({"seconds": 5}) == TimeWindow(5)
    assert window_from_json({"calls": 5}) == CountWindow(5)


@pytest.mark.parametrize("name", ["a", "shop.database:main-1_X", "x" * 128])
def test_names_that_may_be_used(name: str) -> None:
    """Letters, digits and four signs."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "ä", "a\n", None, 5, b"a"])
def test_names_that_may_not(name: Any) -> None:
    """A slash would be a namespace, and a line end would be two lines."""
    with pytest.raises(SettingsError, match="must be 1 to 128 of"):
        check_name(name)
