from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from resilient.core.rules import Rules


def test_the_defaults() -> None:
    assert Rules() == Rules(
        outage_failures=5,
        outage_quiet=1.0,
        failure_rate=0.7,
        minimum_calls=20,
        window=10.0,
        buckets=10,
        count_window=None,
        slow_call=None,
        slow_rate=None,
        consecutive=None,
        break_time=1.0,
        max_break=3.0,
        growth=2.0,
        jitter=0.2,
        trials=3,
        trial_failure_rate=0.5,
        lease=30.0,
    )


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        *(({name: 0}, name) for name in ("outage_failures", "minimum_calls", "buckets", "trials", "count_window", "consecutive")),
        *(({name: 0}, name) for name in ("failure_rate", "window", "break_time", "max_break", "trial_failure_rate", "lease", "growth")),
        *(({name: 1.5}, name) for name in ("failure_rate", "trial_failure_rate", "jitter")),
        ({"outage_quiet": -1}, "outage_quiet"),
        ({"growth": 0.5}, "growth"),
        ({"break_time": 5}, "max_break"),
        ({"slow_call": 0}, "slow_call"),
        ({"slow_call": 1, "slow_rate": 2}, "slow_rate"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Rules(**settings)


def test_a_slow_rate_needs_to_know_what_is_slow() -> None:
    with pytest.raises(ValueError, match="^slow_rate needs slow_call: the seconds after which a call is slow$"):
        Rules(slow_rate=0.5)
    assert replace(Rules(slow_call=1.0), slow_call=None) == Rules()


def test_settings_are_frozen_and_given_by_name() -> None:
    with pytest.raises(FrozenInstanceError):
        Rules().trials = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Rules(5)  # type: ignore[call-arg]


@pytest.mark.parametrize("settings", [{"jitter": 0}, {"growth": 1}, {"growth": 1.5}, {"break_time": 2, "max_break": 2}])
def test_what_is_just_in_bounds(settings: dict[str, Any]) -> None:
    assert replace(Rules(), **settings) == Rules(**settings)
