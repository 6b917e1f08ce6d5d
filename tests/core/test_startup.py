"""When a service has started."""

from __future__ import annotations

import math

import pytest

from resilient.core.startup import Startup


def startup(*, anyway: bool = True) -> Startup:
    return Startup(60.0, anyway=anyway)


def test_where_nothing_is_waited_for_it_is_over_from_the_start() -> None:
    one = startup()
    assert (one.over, one.waiting, one.began) == (True, (), math.inf)
    one.begin([], 5.0)
    assert (one.over, one.began) == (True, 5.0)
    assert one.late() is False


def test_it_is_over_with_the_last_of_what_is_waited_for() -> None:
    one = startup()
    one.expect("caches")
    one.expect("check disk")
    one.expect("caches")
    assert (one.over, one.waiting) == (False, ("caches", "check disk"))
    one.begin(one.waiting, 5.0)
    assert one.done("caches") is False
    assert one.done("caches") is False
    assert one.done("of somebody else") is False
    assert (one.over, one.waiting) == (False, ("check disk",))
    assert one.done("check disk") is True
    assert (one.over, one.waiting) == (True, ())
    assert one.late() is False


def test_what_comes_while_it_lasts_is_waited_for_and_what_comes_later_is_not() -> None:
    one = startup()
    one.begin(["caches"], 0.0)
    one.expect("check disk")
    assert one.done("caches") is False
    assert one.done("check disk") is True
    one.expect("late")
    assert (one.over, one.waiting) == (True, ())


@pytest.mark.parametrize("anyway", [True, False])
def test_when_its_time_is_over_it_is_too_or_is_not(anyway: bool) -> None:
    one = startup(anyway=anyway)
    one.begin(["caches", "check disk"], 5.0)
    assert (one.left(5.0), one.left(25.0), one.left(65.0), one.left(100.0)) == (60.0, 40.0, 0.0, 0.0)
    assert one.late() is True
    assert (one.over, one.waiting) == (anyway, ("caches", "check disk"))
    assert one.late() is not anyway
    assert one.done("caches") is False
    assert one.done("check disk") is not anyway  # it ends now, unless it did before
    assert (one.over, one.waiting) == (True, ())


def test_it_may_begin_again() -> None:
    one = startup()
    one.begin(["caches"], 5.0)
    assert one.done("caches")
    one.begin(["caches", "check disk"], 100.0)
    assert (one.over, one.waiting, one.began) == (False, ("caches", "check disk"), 100.0)
