from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.window import CountWindow, TimeWindow

from ..thorough import often

Step = tuple[float, str, bool, bool]

# Eighths of a second; standing still, going back, idling for long, and the edges of buckets of 1 s or 0.25 s.
pauses = st.one_of(st.integers(-20, 40), st.sampled_from([0, 8, 72, 80, 88, 10_000, 10**9])).map(lambda eighths: eighths / 8)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(pauses, st.sampled_from(["record", "success", "totals", "totals", "clear"]), st.booleans(), st.booleans()), max_size=60
)


class Remembered:
    """Every call, with the latest time that was known when it was recorded."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, bool, bool]] = []
        self.latest = -math.inf

    def see(self, now: float) -> float:
        self.latest = max(self.latest, now)
        return self.latest

    def totals(self, above: float, place: Callable[[float], float] = float) -> tuple[int, int, int]:
        """Of the calls whose place in time is above a limit."""
        kept = [call for call in self.calls if place(call[0]) > above]
        return len(kept), sum(failed for _, failed, _ in kept), sum(slow for _, _, slow in kept)


def succeed(window: TimeWindow | CountWindow, now: float) -> None:
    """A success in line, as the module says."""
    if now >= window.ends:
        window.turn(now)
    window.calls += 1


def play(window: TimeWindow | CountWindow, remembered: Remembered, now: float, step: Step) -> None:
    _, act, failed, slow = step
    if act == "record":
        window.record(now, failed, slow)
        remembered.calls.append((remembered.see(now), failed, slow))
    elif act == "success":
        succeed(window, now)
        remembered.calls.append((remembered.see(now), False, False))
    elif act == "clear":
        window.clear()
        remembered.calls.clear()
        remembered.latest = -math.inf


@pytest.mark.slow
@settings(max_examples=often(150), deadline=None)
@given(steps, st.sampled_from([(10.0, 10), (10.0, 1), (1.0, 4), (3.0, 3)]), st.sampled_from([0.0, -50.0, 12345.625]))
def test_a_time_window_agrees_with_a_list(steps: list[Step], shape: tuple[float, int], start: float) -> None:
    seconds, buckets = shape
    width = seconds / buckets
    window, remembered, now = TimeWindow(seconds, buckets), Remembered(), start
    for step in steps:
        now += step[0]
        play(window, remembered, now, step)
        if step[1] == "totals":
            oldest = math.floor(remembered.see(now) / width) - buckets
            assert window.totals(now) == remembered.totals(oldest, lambda at: math.floor(at / width))


@pytest.mark.slow
@settings(max_examples=often(100), deadline=None)
@given(steps, st.floats(0.01, 1e4), st.integers(1, 20))
def test_a_time_window_sees_what_it_says(steps: list[Step], seconds: float, buckets: int) -> None:
    """Whatever the width: all of the last `seconds` less a bucket, nothing older than `seconds`, but for rounding."""
    window, remembered, now = TimeWindow(seconds, buckets), Remembered(), 1000.0
    for step in steps:
        now += step[0] * seconds / 10
        play(window, remembered, now, step)
        if step[1] == "totals":
            present = remembered.see(now)
            certain = remembered.totals(present - (seconds - seconds / buckets) * (1 - 1e-6) + 1e-6)
            possible = remembered.totals(present - seconds * (1 + 1e-6) - 1e-6)
            for low, seen, high in zip(certain, window.totals(now), possible, strict=True):
                assert low <= seen <= high


@pytest.mark.slow
@settings(max_examples=often(100), deadline=None)
@given(steps, st.integers(1, 30))
def test_a_count_window_agrees_with_a_list(steps: list[Step], size: int) -> None:
    window, remembered, now = CountWindow(size), Remembered(), 0.0
    for step in steps:
        now += step[0]
        play(window, remembered, now, step)
        remembered.calls = remembered.calls[-size:]
        assert window.totals(now) == remembered.totals(-math.inf)


@pytest.mark.slow
@settings(max_examples=often(50), deadline=None)
@given(steps, st.sampled_from([TimeWindow, lambda: CountWindow(7)]))
def test_a_success_is_a_record_of_one(steps: list[Step], make: Callable[[], TimeWindow | CountWindow]) -> None:
    """In both ways: by `record`, and in line as a breaker does it."""
    windows, now = [make(), make()], 0.0
    for pause, _, failed, slow in steps:
        now += pause
        if failed or slow:
            for window in windows:
                window.record(now, failed, slow)
        else:
            windows[0].record(now, False, False)
            succeed(windows[1], now)
        assert windows[0].totals(now) == windows[1].totals(now)


def test_pitfall_11_a_time_window_expires() -> None:
    window = TimeWindow(10.0, 10)
    for second in range(10):
        window.record(100.0 + second, True, False)
    assert window.totals(109.5) == (10, 10, 0)
    assert window.totals(110.0) == (9, 9, 0)
    assert window.totals(118.999) == (1, 1, 0)
    assert window.totals(119.0) == (0, 0, 0)


def test_a_bucket_ends_even_where_division_is_rounded() -> None:
    """3 * 0.7 is a little less than 2.1: the moment that ends bucket 2 still lies in bucket 2 by division."""
    window, end = TimeWindow(7.0, 10), 3 * 0.7
    assert end // 0.7 == 2.0
    succeed(window, 1.5)
    succeed(window, end)
    assert window.totals(end) == (2, 0, 0)
    assert window.totals(8.5) == (1, 0, 0)
    assert window.totals(9.2) == (0, 0, 0)


def test_counts_do_not_overflow_their_four_bytes() -> None:
    window = TimeWindow(10.0, 10)
    succeed(window, 0.0)
    window.calls = 2**40
    succeed(window, 1.0)
    assert window.totals(1.0) == (2**32, 0, 0)
    assert window.totals(10.0) == (1, 0, 0)


@pytest.mark.parametrize("window", [TimeWindow(), CountWindow(100)], ids=["time", "count"])
def test_memory_does_not_grow_with_traffic(window: TimeWindow | CountWindow) -> None:
    weights = set()
    for call in range(5000):
        window.record(call / 100, call % 2 == 0, call % 3 == 0)
        if call >= 1000:
            weights.add(sys.getsizeof(window._ring))
    assert len(weights) == 1


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TimeWindow(0), "seconds"),
        (lambda: TimeWindow(math.inf), "seconds"),
        (lambda: TimeWindow(10, 0), "buckets"),
        (lambda: CountWindow(0), "size"),
    ],
)
def test_a_bad_setting_is_named(make: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make()


def test_what_a_count_window_forgets_it_no_longer_counts() -> None:
    window, seen = CountWindow(3), []
    for failed, slow in [(True, False), (True, True), (False, True), (False, False), (True, False), (False, False), (False, False)]:
        window.record(0.0, failed, slow)
        seen.append(window.totals(0.0))
    assert seen == [(1, 1, 0), (2, 2, 1), (3, 2, 2), (3, 1, 2), (3, 1, 1), (3, 1, 0), (3, 1, 0)]
    window.record(0.0, True, True)
    assert window.totals(0.0) == (3, 1, 1)


def test_a_bucket_that_nobody_called_in_is_empty_the_next_time_too() -> None:
    window = TimeWindow(10.0, 10)
    window.record(0.5, True, True)
    window.record(9.5, False, False)
    assert [window.totals(now) for now in (9.5, 11.5, 15.5, 20.5)] == [(2, 1, 1), (1, 0, 0), (1, 0, 0), (0, 0, 0)]
    assert len(window._ring) == 3 * 10


def test_ten_seconds_in_ten_parts_by_default() -> None:
    assert (TimeWindow().seconds, TimeWindow().buckets) == (10.0, 10)
