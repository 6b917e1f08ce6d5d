from __future__ import annotations

import math
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.degradation import Degradation, DegradationRecord, Hysteresis, Level, LevelChange, service_level, worse

from ..thorough import often

FULL, REDUCED, STATIC, OFF = Level


# -- levels ---------------------------------------------------------------------------------------------------------


def test_levels_are_words_and_have_an_order() -> None:
    assert [str(level) for level in Level] == ["full", "reduced", "static", "off"]
    assert [level.severity for level in Level] == [0, 1, 2, 3]
    assert f"{Level.STATIC}" == "static"


@pytest.mark.parametrize(
    ("features", "word"),
    [
        ([], "healthy"),
        ([(OFF, False)], "healthy"),
        ([(FULL, True), (OFF, False)], "healthy"),
        ([(REDUCED, True), (FULL, True)], "degraded"),
        ([(STATIC, True)], "degraded"),
        ([(OFF, True), (FULL, True)], "critical"),
    ],
)
def test_the_service_is_as_well_as_its_critical_features(features: list[tuple[Level, bool]], word: str) -> None:
    assert service_level(features) == word


def test_of_two_levels_the_worse() -> None:
    assert worse(STATIC, REDUCED) is worse(REDUCED, STATIC) is STATIC
    assert worse(FULL, FULL) is FULL and worse(OFF, FULL) is OFF


# -- the record -----------------------------------------------------------------------------------------------------


def test_an_empty_record() -> None:
    record = DegradationRecord()
    assert record.entries == ()
    assert record.close() == ()


def test_entries_keep_what_they_were_given() -> None:
    record = DegradationRecord()
    assert record.add("reviews", "reduced", "status_503", dependency="reviews-api", age=3.5)
    assert record.entries == (Degradation("reviews", REDUCED, "status_503", "reviews-api", 3.5),)


def test_a_feature_is_kept_once_at_its_worst_and_in_its_place() -> None:
    record = DegradationRecord()
    record.add("a", REDUCED, "first")
    record.add("b", OFF, "x")
    record.add("a", STATIC, "worse")
    record.add("a", REDUCED, "milder")
    record.add("a", STATIC, "as bad")
    assert [(entry.feature, entry.level, entry.cause) for entry in record.close()] == [("a", STATIC, "worse"), ("b", OFF, "x")]


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="broken"):
        DegradationRecord().add("a", "broken", "x")


def test_it_is_bounded() -> None:
    record = DegradationRecord()
    added = [record.add(f"f{number}", STATIC, "x") for number in range(100)]
    assert added == [True] * 32 + [False] * 68
    assert record.dropped == 68
    assert record.add("f0", OFF, "y"), "one that is known can still get worse"
    assert len(record.close()) == 32


def test_after_the_end_additions_are_only_counted() -> None:
    record = DegradationRecord()
    record.add("a", STATIC, "x")
    told = record.close()
    assert not record.add("b", STATIC, "x")
    assert record.late == 1
    assert record.close() == record.entries == told


def test_threads_lose_nothing() -> None:
    record = DegradationRecord()
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(2000):
            record.add(f"f{(turn + number) % 40}", STATIC, "x")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(record.entries) == 32
    kept = {entry.feature for entry in record.entries}
    assert record.dropped == sum(8 * 2000 // 40 for number in range(40) if f"f{number}" not in kept)


# -- hysteresis -----------------------------------------------------------------------------------------------------


def pairs(changes: list[LevelChange]) -> list[tuple[Level, Level, str]]:
    return [tuple(change) for change in changes]


@pytest.fixture
def hysteresis() -> Hysteresis:
    return Hysteresis(dwell=1.0, recover_after=10.0)


def test_the_first_degraded_use_is_told_at_once_and_the_next_is_not(hysteresis: Hysteresis) -> None:
    assert pairs(hysteresis.degraded(STATIC, "circuit_open", 100)) == [(FULL, STATIC, "circuit_open")]
    assert hysteresis.degraded(STATIC, "circuit_open", 100.1) == []
    assert hysteresis.level is STATIC


def test_it_recovers_ten_seconds_after_the_last_degraded_use(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(STATIC, "x", 100)
    assert hysteresis.degraded(STATIC, "x", 105) == []
    assert hysteresis.look(114.999) == []
    assert pairs(hysteresis.look(115)) == [(STATIC, FULL, "recovered")]
    assert hysteresis.look(1000) == []


def test_it_falls_further_but_not_within_the_dwell(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(REDUCED, "x", 100)
    assert hysteresis.degraded(OFF, "y", 100.5) == []
    assert hysteresis.level is REDUCED
    assert hysteresis.degraded(STATIC, "z", 100.6) == []
    assert pairs(hysteresis.look(101)) == [(REDUCED, OFF, "y")]


def test_it_rises_to_the_worst_that_was_served_meanwhile(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(OFF, "x", 100)
    hysteresis.degraded(REDUCED, "y", 103)
    hysteresis.degraded(STATIC, "z", 104)
    hysteresis.degraded(REDUCED, "y", 108)
    assert pairs(hysteresis.look(110)) == [(OFF, STATIC, "recovered")]
    assert hysteresis.look(113.9) == []
    assert pairs(hysteresis.look(114)) == [(STATIC, REDUCED, "recovered")]
    assert hysteresis.look(117.9) == []
    assert pairs(hysteresis.look(118)) == [(REDUCED, FULL, "recovered")]


def test_changes_that_nobody_looked_at_are_told_in_order(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(REDUCED, "x", 100)
    hysteresis.degraded(OFF, "y", 100.5)
    assert pairs(hysteresis.look(500)) == [(REDUCED, OFF, "y"), (OFF, FULL, "recovered")]


def test_a_failure_long_after_the_last_one_is_a_new_fall(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(STATIC, "x", 100)
    assert pairs(hysteresis.degraded(STATIC, "y", 200)) == [(STATIC, FULL, "recovered"), (FULL, STATIC, "y")]


def test_a_failure_right_after_a_recovery_waits_for_the_dwell(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(STATIC, "x", 100)
    assert pairs(hysteresis.look(110)) == [(STATIC, FULL, "recovered")]
    assert hysteresis.steady
    assert hysteresis.degraded(STATIC, "y", 110.5) == []
    assert hysteresis.level is FULL
    assert not hysteresis.steady, "somebody has to look again"
    assert pairs(hysteresis.look(111)) == [(FULL, STATIC, "y")]


def test_reset_forgets(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(STATIC, "x", 100)
    hysteresis.degraded(OFF, "x", 100.1)
    hysteresis.reset()
    assert hysteresis.level is FULL and hysteresis.steady is True
    assert hysteresis.look(1000) == []


STEP = st.tuples(st.floats(0, 15), st.sampled_from([None, REDUCED, STATIC, OFF]))


@settings(deadline=None)
@given(st.lists(STEP, max_size=60), st.sampled_from([0.0, 1.0, 5.0]))
def test_whatever_happens_changes_join_up_and_keep_their_distance(steps: list[tuple[float, Level | None]], dwell: float) -> None:
    hysteresis = Hysteresis(dwell, 10.0)
    now, level, changed_at, last_degraded = 0.0, FULL, -math.inf, -math.inf
    worst_recent = FULL
    for seconds, use in steps:
        now += seconds
        changes = hysteresis.look(now) if use is None else hysteresis.degraded(use, "x", now)
        for change in changes:
            assert change.old is level
            assert change.new is not level
            level = change.new
        assert hysteresis.level is level
        if use is not None:
            last_degraded = now
            worst_recent = max(worst_recent, use, key=lambda one: one.severity)
            # never better than what this very use was served, unless the dwell after a change holds it back
            assert level.severity >= use.severity or changes or now - changed_at < dwell
        if changes:
            changed_at = now
        assert level.severity <= worst_recent.severity
        if now - last_degraded >= 10 + 3 * dwell:
            assert level is FULL
            worst_recent = FULL


@settings(deadline=None, max_examples=often(50))
@given(st.lists(STEP, max_size=20))
def test_when_it_is_watched_no_level_is_shorter_than_the_dwell(steps: list[tuple[float, Level | None]]) -> None:
    hysteresis = Hysteresis(1.0, 10.0)
    now, changes = 0.0, []
    for seconds, use in steps:
        until = now + seconds
        while now < until:  # somebody looks every 100 ms
            now = min(now + 0.1, until)
            changes += [now] * len(hysteresis.look(now))
        if use is not None:
            changes += [now] * len(hysteresis.degraded(use, "x", now))
    assert all(later - earlier >= 1.0 - 0.101 for earlier, later in pairwise(changes))


def test_a_new_record_is_empty_and_knows_no_dependency() -> None:
    record = DegradationRecord()
    assert record.add("recs", Level.STATIC, "timeout") and record.add("page", "off", "error")
    assert record.entries == (Degradation("recs", Level.STATIC, "timeout", "", None), Degradation("page", Level.OFF, "error", "", None))


def test_each_late_addition_and_each_one_too_many_counts() -> None:
    record = DegradationRecord()
    for number in range(DegradationRecord.CAPACITY + 2):
        record.add(f"feature {number}", Level.OFF, "error")
    record.close()
    assert [record.add("late", Level.OFF, "error") for _ in range(2)] == [False, False]
    assert (record.dropped, record.late) == (2, 2)


def test_it_rises_from_the_last_use_at_the_level_that_it_rises_to(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(OFF, "x", 100)
    hysteresis.degraded(REDUCED, "y", 103)
    hysteresis.degraded(REDUCED, "y", 108)
    assert pairs(hysteresis.look(110)) == [(OFF, REDUCED, "recovered")]
    assert hysteresis.look(117.9) == []
    assert pairs(hysteresis.look(118)) == [(REDUCED, FULL, "recovered")]


def test_what_was_served_as_long_ago_as_recovery_takes_is_no_hindrance(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(OFF, "x", 100)
    hysteresis.degraded(REDUCED, "y", 100)
    assert pairs(hysteresis.look(110)) == [(OFF, FULL, "recovered")]


def test_a_fall_that_waited_has_the_cause_of_its_last_use(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(REDUCED, "x", 100)
    hysteresis.degraded(OFF, "y", 100.5)
    hysteresis.degraded(OFF, "z", 100.6)
    assert pairs(hysteresis.look(101)) == [(REDUCED, OFF, "z")]


def test_a_level_that_waited_for_its_fall_is_kept_for_the_dwell() -> None:
    hysteresis = Hysteresis(dwell=5.0, recover_after=1.0)
    hysteresis.degraded(REDUCED, "x", 100)
    hysteresis.degraded(OFF, "y", 101)
    assert pairs(hysteresis.look(105)) == [(REDUCED, OFF, "y")]
    assert hysteresis.look(109.9) == []
    assert pairs(hysteresis.look(110)) == [(OFF, FULL, "recovered")]


# -- what lasts -----------------------------------------------------------------------------------------------------


def test_a_hold_falls_at_once_and_its_end_is_where_recovery_begins(hysteresis: Hysteresis) -> None:
    assert pairs(hysteresis.hold(STATIC, "dependency:a", 100)) == [(FULL, STATIC, "dependency:a")]
    assert not hysteresis.steady
    assert hysteresis.look(500) == [], "held all that time, though nobody looked"
    assert hysteresis.hold(FULL, "", 600) == []
    assert hysteresis.look(609.9) == []
    assert pairs(hysteresis.look(610)) == [(STATIC, FULL, "recovered")]
    assert hysteresis.steady


def test_an_end_that_is_noticed_late_is_no_recovery_yet(hysteresis: Hysteresis) -> None:
    hysteresis.hold(STATIC, "x", 100)
    assert hysteresis.hold(FULL, "", 200) == [], "nobody knows since when it is over"
    assert hysteresis.look(205) == []


def test_a_hold_within_the_dwell_waits_for_it(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(REDUCED, "x", 100)
    assert hysteresis.hold(OFF, "y", 100.5) == []
    assert pairs(hysteresis.look(101)) == [(REDUCED, OFF, "y")]
    assert hysteresis.look(200) == []


def test_a_hold_tells_first_what_nobody_looked_at(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(STATIC, "x", 100)
    assert pairs(hysteresis.hold(OFF, "y", 200)) == [(STATIC, FULL, "recovered"), (FULL, OFF, "y")]


def test_from_below_a_hold_it_rises_no_further_than_to_it(hysteresis: Hysteresis) -> None:
    hysteresis.degraded(OFF, "x", 100)
    hysteresis.hold(REDUCED, "y", 100.5)
    assert pairs(hysteresis.look(110)) == [(OFF, REDUCED, "recovered")]
    assert hysteresis.look(1000) == []
    hysteresis.hold(FULL, "", 1000)
    assert pairs(hysteresis.look(1010)) == [(REDUCED, FULL, "recovered")]


HELD = st.tuples(st.floats(0.01, 6), st.sampled_from(["use", "hold", "release"]), st.sampled_from([REDUCED, STATIC, OFF]))


@pytest.mark.slow
@settings(deadline=None, max_examples=often(100))
@given(st.lists(HELD, max_size=25))
def test_oscillating_faults_never_flap(steps: list[tuple[float, str, Level]]) -> None:
    """Somebody looks every 100 ms: a level lasts a second at least, and full comes only after ten seconds of health."""
    hysteresis = Hysteresis(1.0, 10.0)
    now, held, ill_at, changed_at = 0.0, FULL, -math.inf, -math.inf

    def check(changes: list[LevelChange]) -> None:
        nonlocal changed_at
        for change in changes:
            assert now - changed_at >= 1.0 - 0.101
            changed_at = now
            if change.new is FULL:
                assert now - ill_at >= 10.0 - 1e-6

    for seconds, what, level in [*steps, (30.0, "release", FULL)]:
        until = now + seconds
        while now < until:
            now = min(now + 0.1, until)
            check(hysteresis.look(now))
            if held is not FULL:
                ill_at = now
        if what == "use":
            ill_at = now
            check(hysteresis.degraded(level, "x", now))
        else:
            held = level if what == "hold" else FULL
            ill_at = now if held is not FULL else ill_at
            check(hysteresis.hold(held, "y", now))
        assert hysteresis.steady == (hysteresis.level is hysteresis._held is hysteresis._pending is FULL)
    for _ in range(400):
        now += 0.1
        check(hysteresis.look(now))
    assert hysteresis.level is FULL
