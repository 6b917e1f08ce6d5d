"""The published control laws, number for number, and the windows that they are fed with."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.limiter import AIMD, DROPPED, FAILED, Gradient2, LongTerm, Samples, Seen, seen

# -- published test values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "most", "sample", "expected"),
    [
        pytest.param(20, 200, (0.001, 10, False), 21, id="limit-01-increase_on_success"),
        pytest.param(30, 200, (0.0, 0, True), 27, id="limit-01-decrease_on_drops"),
        pytest.param(21, 21, (0.001, 10, False), 21, id="limit-01-success_overflow"),
    ],
)
def test_aimd(limit: int, most: int, sample: tuple[float, int, bool], expected: int) -> None:
    law = AIMD(initial=limit, least=20 if most == 200 else 1, most=most, backoff=0.9, timeout=5)
    assert law.update(*sample) == expected == law.limit


def test_limit_01_only_what_is_used_grows_and_a_timeout_is_a_drop() -> None:
    law = AIMD(initial=20, timeout=5)
    assert [law.update(0.001, inflight) for inflight in (9, 10, 10, 11)] == [20, 21, 21, 22]
    assert law.update(5.0, 22) == 23
    assert law.update(5.001, 22) == int(23 * 0.9)


GRADIENT2 = [
    *[(0.010, 20, limit) for limit in (20, 21, 22, 23, 24, 24)],
    (0.010, 5, 24),
    *[(0.040, 30, limit) for limit in (23, 22, 21, 21)],
    *[(0.010, 30, limit) for limit in (22, 22, 23)],
]


@pytest.mark.parametrize("samples", [pytest.param(GRADIENT2, id="limit-05")])
def test_gradient2(samples: list[tuple[float, int, int]]) -> None:
    law = Gradient2(initial=20, least=20, most=200, smoothing=0.2, queue=4, tolerance=1.5, long_window=600, warmup=10)
    assert [law.update(rtt, inflight) for rtt, inflight, _ in samples] == [limit for _, _, limit in samples]


# -- the laws ----------------------------------------------------------------------------------------------------


def settings(draw_most: int = 1000) -> st.SearchStrategy[dict[str, int]]:
    return (
        st.tuples(st.integers(1, draw_most), st.integers(1, draw_most), st.integers(1, draw_most))
        .map(sorted)
        .map(lambda three: {"least": three[0], "initial": three[1], "most": three[2]})
    )


fed = st.lists(st.tuples(st.floats(1e-6, 100.0), st.integers(0, 1000), st.booleans()), max_size=60)


@pytest.mark.slow
@given(settings(), fed)
def test_no_law_leaves_its_limits(given_settings: dict[str, int], fed: list[tuple[float, int, bool]]) -> None:
    for law in (AIMD(**given_settings), Gradient2(**given_settings)):
        for rtt, inflight, dropped in fed:
            limit = law.update(rtt, inflight, dropped) if isinstance(law, AIMD) else law.update(rtt, inflight)
            assert given_settings["least"] <= limit == law.limit <= given_settings["most"]
        law.clear()
        assert law.limit == given_settings["initial"]


@given(settings(), st.lists(st.floats(1e-6, 100.0), max_size=60), st.floats(0, 0.499))
def test_gradient2_stays_as_it_is_while_less_than_a_half_is_used(given_settings: dict[str, int], rtts: list[float], used: float) -> None:
    law = Gradient2(**given_settings)
    for rtt in rtts:
        assert law.update(rtt, int(law.limit * used)) == given_settings["initial"]


@given(st.floats(1e-4, 10.0), st.integers(20, 1000))
def test_gradient2_grows_while_latency_stays_and_never_shrinks_by_more_than_a_tenth(rtt: float, initial: int) -> None:
    law = Gradient2(initial=initial, most=2000)
    for _ in range(20):
        before = law.estimate
        law.update(rtt, 2000)
        assert law.estimate == pytest.approx(before + 0.8)
    for _ in range(20):
        before = law.estimate
        law.update(rtt * 1000, 2000)
        assert before * 0.9 <= law.estimate


def test_the_worst_latency_brings_gradient2_to_twice_its_queue() -> None:
    law = Gradient2(initial=500)
    law.update(0.01, 500)
    for _ in range(200):
        law.update(1000.0, 1000, learn=False)
    assert law.limit == 8


def test_what_is_usual_comes_down_fast() -> None:
    law = Gradient2()
    for _ in range(10):
        law.update(1.0, 1)
    for _ in range(30):
        law.update(0.1, 1)
    assert law.usual.value < 0.3  # the average alone would still be above 0.9


def test_the_long_term() -> None:
    average = LongTerm(window=99, warmup=3)
    assert [average.add(sample) for sample in (1.0, 2.0, 3.0)] == [1.0, 1.5, 2.0]
    assert average.add(3.0) == pytest.approx(2.0 * 0.98 + 3.0 * 0.02)


def test_a_window_is_a_sample_of_aimd() -> None:
    law = AIMD(initial=20)
    assert law.decide(Seen(0.1, 20)) == 21
    assert law.decide(Seen(0.1, 20, dropped=0.05)) == 22  # a page that always fails is no overload
    assert law.decide(Seen(0.1, 20, dropped=0.1)) == 19
    assert law.decide(Seen(None, 20, dropped=1.0)) == 17
    assert law.decide(Seen(None, 20)) == 17  # nothing but failures that were answered


# -- windows -----------------------------------------------------------------------------------------------------


def test_ten_samples_or_a_second() -> None:
    window = Samples()
    ends = []
    for number in range(10):
        window.add(0.01, number)
        ends.append(window.over(50.0))
    assert ends == [False] * 9 + [True]
    durations, peak = window.turn(50.0)
    assert len(durations) == 10 and peak == 9
    window.add(0.01, 1)
    assert not window.over(50.999) and window.over(51.0)


def test_the_first_window_may_end_with_a_single_sample_after_a_second() -> None:
    window = Samples()
    window.add(0.01, 1)
    assert not window.over(50.0)
    assert not window.over(50.9) and window.over(51.0)


def test_two_round_trips() -> None:
    window = Samples()
    window.turn(10.0)
    window.lengthen(0.4)
    for _ in range(50):
        window.add(0.4, 20)
    assert not window.over(10.79) and window.over(10.8)
    window.turn(20.0)
    window.lengthen(3.0)
    window.add(3.0, 20)
    assert not window.over(25.9) and window.over(26.0)  # a second is too short to tell
    window.turn(30.0)
    assert window.due == 30.1  # and judging one takes some time


def test_calls_are_measured_until_there_are_enough() -> None:
    window = Samples()
    for number in range(300):
        assert window.wanted is (number < 128)
        window.add(0.01, 1)
    assert len(window.durations) == 256
    window.turn(10.0)
    assert window.wanted


def test_what_a_window_comes_to() -> None:
    assert seen(deque(), 3) == Seen(None, 3)
    assert seen(deque([DROPPED, DROPPED]), 3) == Seen(None, 3, 1.0)
    found = seen(deque([0.01, 1.0, FAILED, DROPPED, -0.5]), 3)
    assert found.rtt == pytest.approx(0.1) and found.mean == pytest.approx(0.505)
    assert (found.peak, found.dropped) == (3, 0.2)


@given(st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=100))
def test_the_geometric_mean_lies_between_and_scales(durations: list[float]) -> None:
    rtt = seen(deque(durations), 1).rtt
    assert rtt is not None
    assert min(durations) * 0.999 <= rtt <= max(durations) * 1.001
    longer = seen(deque(2 * duration for duration in durations), 1).rtt
    assert longer == pytest.approx(2 * rtt)


# -- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "values", "name"),
    [
        (AIMD, {"least": 0}, "least"),
        (AIMD, {"most": 5, "least": 6}, "most"),
        (AIMD, {"most": 0}, "most"),
        (AIMD, {"initial": 5, "least": 6}, "initial"),
        (AIMD, {"initial": 5, "most": 4}, "initial"),
        (AIMD, {"backoff": 0}, "backoff"),
        (AIMD, {"timeout": 0}, "timeout"),
        (Gradient2, {"smoothing": 0}, "smoothing"),
        (Gradient2, {"queue": 0}, "queue"),
        (Gradient2, {"tolerance": 0.9}, "tolerance"),
        (Gradient2, {"tolerance": math.nan}, "tolerance"),
        (Gradient2, {"long_window": 0}, "window"),
        (Gradient2, {"warmup": 0}, "warmup"),
        (Samples, {"least": 0}, "least"),
        (Samples, {"seconds": 0}, "seconds"),
    ],
)
def test_a_bad_setting_is_named(make: Any, values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make(**values)


def test_an_empty_window_has_no_peak() -> None:
    window = Samples()
    assert window.turn(10.0) == (deque(), 0)
    assert window.turn(11.0) == (deque(), 0)


def test_a_window_holds_the_latest_durations() -> None:
    window = Samples()
    window.turn(10.0)
    for number in range(300):
        window.add(float(number), 1)
    durations, _ = window.turn(20.0)
    assert list(durations) == [float(number) for number in range(44, 300)]


def test_a_slow_window_is_a_bad_one_and_one_without_an_answer_is_none() -> None:
    assert AIMD(initial=20).decide(Seen(6.0, 20)) == 18
    assert AIMD(initial=20, timeout=0.5).decide(Seen(None, 20, dropped=0.05)) == 21


def test_the_defaults() -> None:
    aimd, gradient = AIMD(), Gradient2()
    assert (aimd.initial, aimd.least, aimd.most, aimd.backoff, aimd.timeout) == (20, 1, 1000, 0.9, 5.0)
    assert (gradient.initial, gradient.least, gradient.most) == (20, 1, 1000)
    assert (gradient.smoothing, gradient.queue, gradient.tolerance) == (0.2, 4, 1.5)
    assert (Samples().least, Samples().seconds) == (10, 1.0)


def test_the_long_term_is_600_samples_after_ten_by_default() -> None:
    average = LongTerm()
    for _ in range(10):
        average.add(1.0)
    assert average.add(0.0) == pytest.approx(1 - 2 / 601)


@pytest.mark.parametrize(("rtts", "usual"), [((1.5, 0.5), 1.0), ((1.0, 0.25), 0.625 * 0.95)])
def test_what_is_more_than_twice_as_long_as_now_comes_down(rtts: tuple[float, float], usual: float) -> None:
    law = Gradient2()
    for rtt in rtts:
        law.update(rtt, 1)
    assert law.usual.value == usual


def test_a_half_of_the_limit_in_flight_is_enough_to_grow() -> None:
    law = Gradient2()
    law.update(0.1, 9)
    assert law.estimate == 20
    law.update(0.1, 10)
    assert law.estimate == pytest.approx(20.8)


def test_gradient2_takes_the_mean_of_ten_and_the_average_of_600_for_usual_by_default() -> None:
    law = Gradient2()
    for rtt in [1.0] * 10 + [0.75]:
        law.update(rtt, 1)
    assert law.usual.value == pytest.approx(1 - 0.25 * 2 / 601)


def test_a_tolerance_of_1_tolerates_nothing() -> None:
    assert Gradient2(tolerance=1).tolerance == 1
