from __future__ import annotations

import pytest

from resilient.core.failover import share_of, worst
from resilient.core.outcome import Outcome


@pytest.mark.parametrize(("others", "share"), [(0, 6.0), (1, 3.0), (2, 2.0)])
def test_each_target_has_an_equal_share_of_what_is_left(others: int, share: float) -> None:
    assert share_of(6.0, others) == share


def test_who_says_most_against_the_dependency_is_heard() -> None:
    rising = [Outcome.IGNORED, Outcome.SUCCESS, Outcome.THROTTLED, Outcome.FAILURE, Outcome.OUTAGE]
    for number, outcome in enumerate(rising, 1):
        assert worst(rising[:number]) is worst(reversed(rising[:number])) is outcome
