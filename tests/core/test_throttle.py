"""The SRE book's formula with the published test values of two implementations, and the window behind it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilient.core.throttle import BUCKETS, Throttle, rejection

from ..thorough import often


def fed(throttle: Throttle, requests: int, accepts: int, now: float = 0.0) -> Throttle:
    """So many requests, so many of which were accepted."""
    for number in range(requests):
        sent = throttle.admit(now, 1.0)
        assert sent is not None
        if number >= accepts:
            throttle.refused(sent)
    return throttle


@pytest.mark.parametrize(
    ("requests", "accepts", "expected"),
    [
        pytest.param(100, 95, 0.0, id="throttle-01-healthy"),
        pytest.param(120, 90, 0.165289, id="throttle-01-90_of_120"),
        pytest.param(200, 50, 0.718629, id="throttle-01-50_of_200"),
        pytest.param(1000, 10, 0.8, id="throttle-01-capped"),
        pytest.param(0, 0, 0.0, id="throttle-01-nothing"),
        pytest.param(100, 0, 0.8, id="throttle-01-none_of_100"),
        pytest.param(100, 90, 0.0, id="throttle-01-at_the_threshold"),
    ],
)
def test_published_by_failsafe_go(requests: int, accepts: int, expected: float) -> None:
    throttle = fed(Throttle(k=1 / 0.9, window=1000, min_requests=1, max_rejection=0.8), requests, accepts)
    assert throttle.probability(0.0) == pytest.approx(expected, abs=1e-6)


def test_throttle_01_fewer_accepts_more_rejections() -> None:
    low, middle, high = (rejection(100, accepts, 1 / 0.9) for accepts in (90, 70, 50))
    assert low < middle < high


@pytest.mark.parametrize(
    ("successes", "failures", "expected"),
    [
        pytest.param(80, 0, 0.0, id="throttle-03-80_successes"),
        pytest.param(200, 0, 0.0, id="throttle-03-200_successes"),
        pytest.param(0, 99, 0.0, id="throttle-03-too_few"),
        pytest.param(100, 10_000_000, 0.9999799, id="throttle-03-hardly_any"),
        pytest.param(0, 10_000_000, 0.9999999, id="throttle-03-none"),
    ],
)
def test_published_by_kratos(successes: int, failures: int, expected: float) -> None:
    throttle = Throttle(k=2, window=1, min_requests=100, max_rejection=1.0)
    few = min(failures, 1000)
    fed(throttle, successes + few, successes)
    # Ten million one by one would take a minute; the counters are all there is.
    throttle.requests += failures - few
    assert throttle.probability(0.0) == pytest.approx(expected, abs=1e-7)


def test_throttle_03_what_is_older_than_the_window_is_forgotten() -> None:
    throttle = fed(Throttle(k=2, window=1, min_requests=100, max_rejection=1.0), 10_000, 0)
    assert throttle.probability(0.5) > 0.99
    assert throttle.probability(2.0) == 0.0
    assert (throttle.requests, throttle.accepts) == (0, 0)


def test_the_formula_of_the_book() -> None:
    assert rejection(0, 0) == 0.0
    assert rejection(100, 50) == 0.0
    assert rejection(100, 49) == pytest.approx(2 / 101)
    assert rejection(100, 0) == pytest.approx(100 / 101)


def test_a_request_is_weighed_before_it_is_counted() -> None:
    throttle = fed(Throttle(min_requests=1), 9, 0)
    assert throttle.admit(0.0, 0.899) is None  # 9 / 10
    assert throttle.requests == 9  # it was never sent
    assert throttle.admit(0.0, 0.901) is not None
    assert (throttle.requests, throttle.accepts) == (10, 1)


def test_requests_under_way_stand_as_accepted() -> None:
    throttle = Throttle()
    sent = [throttle.admit(0.0, 0.0) for _ in range(500)]
    assert None not in sent and throttle.probability(0.0) == 0.0
    for one in sent[:400]:
        assert one is not None
        throttle.refused(one)
    assert throttle.probability(0.0) == pytest.approx((500 - 200) / 501)


def test_some_are_let_through_whatever_happens() -> None:
    throttle = fed(Throttle(), 10_000, 0)
    assert throttle.probability(0.0) == 0.99
    assert throttle.admit(0.0, 0.9901) is not None


@pytest.mark.slow
def test_what_is_sent_in_the_long_run() -> None:
    """A dependency that accepts 10 a second is asked for 100: it is sent the square root of 2 * 10 * 100."""
    throttle = Throttle()
    draw, sent_late = 0.0, 0
    for second in range(600):
        accepted = 0
        for _ in range(100):
            draw = (draw + 0.618033988749895) % 1  # evenly spread, and no chance in it
            sent = throttle.admit(float(second), draw)
            if sent is None:
                continue
            sent_late += second >= 300
            accepted += 1
            if accepted > 10:
                throttle.refused(sent)
    assert sent_late / 300 == pytest.approx(2000**0.5, rel=0.1)
    # And one that accepts half of what it is asked for loses nothing.
    assert rejection(100, 50) == 0.0


class Window(RuleBasedStateMachine):
    """Against a list of all requests."""

    @initialize(window=st.sampled_from([60, 120]))
    def begin(self, window: int) -> None:
        self.throttle = Throttle(window=float(window), min_requests=1)
        self.width = window // BUCKETS
        self.now = 1000
        self.sent: list[int] = []
        self.requests: list[int] = []
        self.accepts: list[int] = []

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 5))
    def sends(self, count: int) -> None:
        for _ in range(count):
            sent = self.throttle.admit(float(self.now), 1.0)
            assert sent == self.now // self.width
            self.sent.append(sent)
            self.requests.append(sent)
            self.accepts.append(sent)

    @rule(seconds=st.integers(1, 100))
    def the_clock_goes_back(self, seconds: int) -> None:
        number = max([*self.requests, 0])
        sent = self.throttle.admit(float(self.now - seconds), 1.0)
        assert sent is not None and sent >= number
        self.requests.append(sent)
        self.accepts.append(sent)
        self.sent.append(sent)

    @rule(data=st.data(), refused=st.booleans())
    def ends(self, data: st.DataObject, refused: bool) -> None:
        if not self.sent:
            return
        sent = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        self.accepts.remove(sent)
        if refused:
            self.throttle.refused(sent)
        else:
            self.requests.remove(sent)
            self.throttle.unsent(sent)

    @rule()
    def rejects(self) -> None:
        if self.throttle.probability(float(self.now)) > 0:
            assert self.throttle.admit(float(self.now), 0.0) is None

    @invariant()
    def it_counts_what_the_window_holds(self) -> None:
        if not hasattr(self, "throttle"):
            return
        self.throttle.probability(float(self.now))
        oldest = self.now // self.width - BUCKETS
        assert self.throttle.requests == sum(number > oldest for number in self.requests)
        assert self.throttle.accepts == sum(number > oldest for number in self.accepts)


TestWindow = pytest.mark.slow(Window.TestCase)
TestWindow.settings = settings(max_examples=often(60), stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"k": 0.9}, "k"),
        ({"k": 0}, "k"),
        ({"window": 0}, "window"),
        ({"min_requests": 0}, "min_requests"),
        ({"max_rejection": 1.1}, "max_rejection"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Throttle(**values)


def test_the_defaults() -> None:
    throttle = Throttle()
    assert (throttle.k, throttle.window, throttle.min_requests, throttle.max_rejection) == (2.0, 120.0, 10, 0.99)
    assert rejection(100, 10) == rejection(100, 10, 2.0)


def test_the_least_number_of_requests_is_enough() -> None:
    assert fed(Throttle(min_requests=10), 9, 0).probability(0.0) == 0.0
    assert fed(Throttle(min_requests=10), 10, 0).probability(0.0) == pytest.approx(10 / 11)


def test_one_request_for_each_that_is_accepted_is_the_least() -> None:
    assert Throttle(k=1).k == 1


def test_below_the_least_number_not_even_the_smallest_chance_rejects() -> None:
    assert fed(Throttle(), 9, 0).admit(0.0, 0.0) is not None


def test_after_a_long_pause_every_bucket_is_empty() -> None:
    throttle = Throttle(window=60.0)
    throttle.send(1.0)
    throttle.probability(120.0)
    assert (throttle.requests, throttle.accepts) == (0, 0)


def test_what_was_sent_a_window_ago_is_no_longer_known() -> None:
    throttle = Throttle(window=60.0)
    old, new = throttle.send(0.0), throttle.send(60.0)
    throttle.refused(old)
    assert (throttle.requests, throttle.accepts) == (1, 1)
    throttle.refused(new)
    throttle.refused(new)
    assert (throttle.requests, throttle.accepts) == (1, 0)
