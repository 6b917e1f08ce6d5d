"""What a dependency's calls came to."""

from __future__ import annotations

import sys
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import stats as module
from resilient.stats import EXPORTED_BOUNDS, CallSnapshot, CallStats

from ..thorough import often

DURATIONS = st.floats(0.0001, 100.0, allow_nan=False)


def succeed(stats: CallStats, durations: list[float], now: float = 0.0) -> None:
    for seconds in durations:
        stats.record("success", seconds, now)


def append(stats: CallStats, seconds: float, now: float) -> None:
    """As a runner does on its way."""
    durations = stats.successes
    assert durations is not None
    durations.append(seconds)
    if len(durations) >= module.BATCH:
        stats.fold(now)


def test_fine_buckets_are_narrow_and_hold_every_exported_bound() -> None:
    assert max(high / low for low, high in pairwise(module.BOUNDS)) <= 1.125
    assert set(EXPORTED_BOUNDS) <= set(module.BOUNDS)
    assert sorted(module.BOUNDS) == module.BOUNDS


def test_outcomes_are_counted_from_the_first_call_on() -> None:
    stats = CallStats()
    assert stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 0}
    stats.record("failure", 0.2, 1.0)
    stats.record("ignored", None, 1.0)
    snapshot = stats.snapshot()
    assert snapshot.counts == {"success": 0, "failure": 1, "ignored": 1}
    assert snapshot.buckets[-1] == 1
    assert snapshot.seconds == 0.2


def test_ground_55_each_call_is_counted_exactly_once_from_many_threads() -> None:
    stats = CallStats()
    told: list[str] = []
    stats.on_record = lambda outcome, _: told.append(outcome)
    start = threading.Barrier(9)
    done = threading.Event()

    def call(outcome: str) -> None:
        start.wait()
        for turn in range(4000):
            stats.record(outcome, 0.01 if turn % 2 else None, turn / 10)

    def read() -> None:
        start.wait()
        before = 0
        while not done.is_set():
            total = sum(stats.snapshot().counts.values())
            assert total >= before
            before = total
            stats.p95()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        callers = [threading.Thread(target=call, args=(outcome,)) for outcome in ("success", "failure", "ignored", "rejected") * 2]
        reader = threading.Thread(target=read)
        for thread in (*callers, reader):
            thread.start()
        for thread in callers:
            thread.join(30)
        done.set()
        reader.join(30)
    finally:
        sys.setswitchinterval(interval)
    snapshot = stats.snapshot()
    assert snapshot.counts == {"success": 8000, "failure": 8000, "ignored": 8000, "rejected": 8000}
    assert snapshot.buckets[-1] == 16_000
    assert snapshot.seconds == pytest.approx(160)
    assert len(told) == 32_000


def test_ground_55_queued_durations_are_counted_exactly_once_from_many_threads() -> None:
    stats = CallStats()
    start = threading.Barrier(5)

    def call(read: bool) -> None:
        start.wait()
        for turn in range(5000):
            append(stats, 0.001 * (turn % 100), turn / 10)
            if read and turn % 50 == 0:
                stats.p95()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        callers = [threading.Thread(target=call, args=(number == 0,)) for number in range(4)]
        for thread in callers:
            thread.start()
        start.wait()
        for thread in callers:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    snapshot = stats.snapshot()
    assert snapshot.counts["success"] == snapshot.buckets[-1] == 20_000
    assert snapshot.seconds == pytest.approx(20_000 * 0.0495)


@given(st.lists(st.tuples(st.sampled_from(["success", "failure"]), DURATIONS, st.floats(0, 200)), max_size=300))
def test_the_exported_histogram_loses_nothing_whenever_halves_are_closed(calls: list[tuple[str, float, float]]) -> None:
    stats = CallStats()
    now = 0.0
    for outcome, seconds, pause in calls:
        now += pause
        stats.record(outcome, seconds, now)
    snapshot = stats.snapshot()
    durations = [seconds for _, seconds, _ in calls]
    assert snapshot.buckets == [sum(seconds <= bound for seconds in durations) for bound in EXPORTED_BOUNDS] + [len(durations)]
    assert snapshot.seconds == pytest.approx(sum(durations))


def test_no_estimate_below_twenty_successes() -> None:
    stats = CallStats()
    succeed(stats, [0.1] * 19)
    for _ in range(100):
        stats.record("failure", 5.0, 0.0)
    stats.record("success", None, 0.0)
    assert stats.p95() is None
    succeed(stats, [0.1])
    assert stats.p95() == pytest.approx(0.1, rel=0.125)


@settings(max_examples=often(50))
@given(st.lists(DURATIONS, min_size=20, max_size=400))
def test_p95_is_within_a_bucket_of_the_true_one(durations: list[float]) -> None:
    stats = CallStats()
    succeed(stats, durations)
    estimate = stats.p95()
    exact = sorted(durations)[-(-95 * len(durations) // 100) - 1]
    assert estimate is not None
    assert exact / 1.13 <= estimate <= exact * 1.13


def test_p95_is_interpolated_inside_its_bucket() -> None:
    stats = CallStats()
    succeed(stats, [0.001 + index * 1.9e-5 for index in range(1000)])  # 1 to 20 ms, evenly
    assert stats.p95() == pytest.approx(0.01905, rel=0.005)


def test_p95_of_what_is_off_the_scale_is_its_end() -> None:
    stats = CallStats()
    succeed(stats, [600.0] * 20)
    assert stats.p95() == 120.0


def test_failures_do_not_touch_the_estimate() -> None:
    stats = CallStats()
    succeed(stats, [0.1] * 40)
    before = stats.p95()
    for _ in range(1000):
        stats.record("failure", 10.0, 1.0)
    assert stats.p95() == before


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("rate", [10, 1000])
def test_slow_times_are_forgotten_after_a_minute(rate: int, queued: bool) -> None:
    now = 0.0
    stats = CallStats(lambda: now)

    def pass_second(seconds: float) -> None:
        nonlocal now
        now += 1
        for _ in range(rate):
            if queued:
                append(stats, seconds, now)
            else:
                stats.record("success", seconds, now)
        stats.snapshot()  # as often as readers come, they must not keep it from forgetting

    for _ in range(100):
        pass_second(2.0)
    assert stats.p95() == pytest.approx(2.0, rel=0.125)
    for _ in range(65):
        pass_second(0.1)
    assert stats.p95() == pytest.approx(0.1, rel=0.125)
    assert stats.snapshot().buckets[-1] == 165 * rate


@given(st.lists(st.tuples(st.sampled_from(["queued", "success", "failure", "read"]), DURATIONS, st.floats(0, 30)), max_size=300))
def test_queued_durations_come_to_the_same_numbers(calls: list[tuple[str, float, float]]) -> None:
    now = 0.0
    queued, recorded = CallStats(lambda: now), CallStats(lambda: now)
    for kind, seconds, pause in calls:
        now += pause
        if kind == "read":
            queued.p95()
        elif kind == "queued":
            append(queued, seconds, now)
            recorded.record("success", seconds, now)
        else:
            queued.record(kind, seconds, now)
            recorded.record(kind, seconds, now)
    one, other = queued.snapshot(), recorded.snapshot()
    assert (one.counts, one.buckets) == (other.counts, other.buckets)
    assert one.seconds == pytest.approx(other.seconds)


def test_a_hook_hears_of_every_call_so_nobody_may_queue() -> None:
    stats = CallStats()
    assert stats.successes is not None
    stats.on_record = lambda _outcome, _seconds: None
    assert stats.successes is None
    assert stats.on_record is not None
    stats.on_record = None
    assert stats.successes is not None


def test_at_low_traffic_the_last_forty_decide_however_old() -> None:
    stats = CallStats()
    now = 0.0
    for seconds in [2.0] * 50 + [0.1] * 40:
        now += 600.0
        stats.record("success", seconds, now)
        estimate = stats.p95()
        assert estimate is not None or now < 20 * 600
    assert estimate == pytest.approx(0.1, rel=0.125)


def test_an_estimate_that_is_asked_for_again_follows_new_successes() -> None:
    stats = CallStats()
    succeed(stats, [0.1] * 20)
    assert stats.p95() == stats.p95()
    succeed(stats, [1.0] * 20)
    assert stats.p95() == pytest.approx(1.0, rel=0.125)


@pytest.mark.slow
def test_pitfall_10_memory_does_not_grow_with_calls() -> None:
    def size() -> int:
        return sum(sys.getsizeof(getattr(stats, slot)) for slot in CallStats.__slots__)

    stats = CallStats()
    for turn in range(1000):
        stats.record("success", 0.01, turn / 100)
    stats.snapshot()
    before = size()
    for turn in range(100_000):
        stats.record("success" if turn % 3 else "failure", 0.0001 * (turn % 997), turn / 100)
        append(stats, 0.01, turn / 100)
        assert len(stats._pending) < module.BATCH
        assert len(stats._successes) < module.BATCH
    stats.snapshot()
    assert size() <= before


def test_invented_outcome_words_become_other() -> None:
    stats = CallStats()
    for index in range(1000):
        stats.record(f"word {index}", None, 0.0)
    counts = stats.snapshot().counts
    assert len(counts) == module.MAX_OUTCOMES + 1
    assert sum(counts.values()) == 1000
    assert counts["other"] == 1000 - (module.MAX_OUTCOMES - 3)


def test_a_record_in_the_middle_of_a_fold_is_neither_lost_nor_a_deadlock() -> None:
    stats = CallStats()
    nested = 3 * module.BATCH

    class Finalized(float):
        """As when garbage collection runs at this very place and a finalizer settles a dropped response."""

        left = nested

        def __gt__(self, other: object) -> bool:
            if stats._folding and Finalized.left:
                Finalized.left -= 1
                stats.record("ignored", None, 0.0)
                stats.p95()
            return float(self) > other  # type: ignore[operator]

    for _ in range(nested):
        stats.record("success", Finalized(0.05), 0.0)
    assert Finalized.left == 0
    snapshot = stats.snapshot()
    assert snapshot.counts == {"success": nested, "failure": 0, "ignored": nested}
    assert snapshot.buckets[-1] == nested


def test_the_hook_is_called_outside_the_lock() -> None:
    stats = CallStats()
    seen: list[dict[str, int]] = []

    def hook(outcome: str, seconds: float | None) -> None:
        other = threading.Thread(target=lambda: seen.append(stats.snapshot().counts))
        other.start()
        other.join(10)

    for _ in range(module.BATCH - 1):
        stats.record("failure", None, 0.0)
    stats.on_record = hook
    stats.record("success", 0.1, 0.0)
    assert seen == [{"success": 1, "failure": module.BATCH - 1, "ignored": 0}]


def test_reset_forgets_everything_but_the_hook() -> None:
    stats = CallStats()
    told: list[str] = []
    stats.on_record = lambda outcome, _: told.append(outcome)
    succeed(stats, [0.1] * 30)
    assert stats.p95() is not None
    stats.record("success", 0.1, 0.0)
    stats.reset()
    assert stats.p95() is None
    assert stats.snapshot() == CallStats().snapshot()
    stats.record("success", 0.1, 0.0)
    assert len(told) == 32


def test_snapshots_add_up() -> None:
    one, two = CallStats(), CallStats()
    one.record("success", 0.1, 0.0)
    two.record("success", 0.2, 0.0)
    two.record("rejected", None, 0.0)
    both = one.snapshot() + two.snapshot()
    assert both.counts == {"success": 2, "failure": 0, "ignored": 0, "rejected": 1}
    assert both.buckets == [0] * 6 + [1] + [2] * 8
    assert both.seconds == pytest.approx(0.3)
    assert isinstance(both, CallSnapshot)


def test_the_difference_of_two_looks_is_what_came_between_them() -> None:
    stats = CallStats()
    succeed(stats, [0.001] * 40)
    stats.record("failure", 5.0, 0.0)
    counts, fine = stats.fine()
    assert counts == stats.counts() == {"success": 40, "failure": 1, "ignored": 0}
    assert sum(fine) == 41
    succeed(stats, [0.2] * 100, now=100.0)  # which closes a half
    later, buckets = stats.fine()
    assert later["success"] == 140
    between = [after - before for before, after in zip(fine, buckets, strict=True)]
    assert sum(between) == 100
    middle = module.quantile(between, 0.5)
    assert middle is not None and 0.18 < middle < 0.22
    assert module.quantile([0] * module.SIZE, 0.5) is None
    assert module.quantile(between, 0.5, least=101) is None
