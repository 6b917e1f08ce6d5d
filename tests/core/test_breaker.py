from __future__ import annotations

import sys
from typing import Any

import pybreaker
import pytest

from resilient.core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Rules, Transition, Trial
from resilient.core.outcome import Outcome
from resilient.core.window import TimeWindow

SUCCESS, FAILURE, OUTAGE, THROTTLED, IGNORED = Outcome
MIDDLE = 0.5  # no jitter


class Circuit(Breaker):
    """A breaker with a shorthand for calls that begin and end at the same moment."""

    __slots__ = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(Rules(**settings))

    def call(self, outcome: Outcome, now: float, duration: float | None = None, random: float = MIDDLE) -> Transition | None:
        permit = self.admit(now)
        assert permit is not None
        return self.record(permit, outcome, now, duration, random)

    def totals(self, now: float) -> tuple[int, int, int]:
        return self._window.totals(now)

    def calls(self, count: int, outcome: Outcome, now: float, duration: float | None = None) -> Transition | None:
        transitions = [self.call(outcome, now, duration) for _ in range(count)]
        assert not any(transitions[:-1])
        return transitions[-1] if transitions else None


def opened(now: float = 0.0, **settings: Any) -> Circuit:
    circuit = Circuit(**settings)
    assert circuit.trip(now, "stall", MIDDLE) is not None
    return circuit


def half_open(now: float = 1.0, **settings: Any) -> Circuit:
    circuit = Circuit(**settings)
    assert circuit.half_open(now) is not None
    return circuit


def trial(circuit: Breaker, now: float) -> Trial:
    permit = circuit.admit(now)
    assert isinstance(permit, Trial)
    return permit


def test_the_states_are_pybreakers() -> None:
    assert (CLOSED, OPEN, HALF_OPEN) == (pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN, pybreaker.STATE_HALF_OPEN)


# -- outage ------------------------------------------------------------------------------------------------------


def test_five_outages_in_a_row_and_a_second_without_success() -> None:
    circuit = Circuit()
    circuit.call(SUCCESS, 10.0)
    assert circuit.calls(4, OUTAGE, 10.5) is None
    assert circuit.call(OUTAGE, 10.999) is None
    assert circuit.call(OUTAGE, 11.0) == Transition(CLOSED, OPEN, "outage", 1.0)
    assert (circuit.state, circuit.reason, circuit.consecutive_failures) == (OPEN, "outage", 6)


def test_a_success_ends_the_row() -> None:
    circuit = Circuit(minimum_calls=1000)
    circuit.calls(4, OUTAGE, 10.0)
    circuit.call(SUCCESS, 10.0)
    assert circuit.calls(4, OUTAGE, 12.0, duration=0.5) is None
    assert circuit.call(OUTAGE, 12.0) is not None


def test_four_outages_in_a_row_are_too_few() -> None:
    circuit = Circuit()
    circuit.call(SUCCESS, 10.0)
    assert circuit.calls(4, OUTAGE, 60.0, duration=0.5) is None
    assert circuit.call(OUTAGE, 60.0) is not None


def test_a_blip_after_an_idle_hour_trips_nothing() -> None:
    """Nobody had a success for long because nobody had asked; half a second of failures is what it takes then."""
    circuit = Circuit()
    circuit.call(SUCCESS, 10.0)
    assert circuit.calls(10, OUTAGE, 3600.0, duration=0.05) is None
    assert circuit.call(OUTAGE, 3600.44) is None
    assert circuit.call(OUTAGE, 3600.46) is not None


@pytest.mark.parametrize("had_success", [True, False])
def test_a_blip_trips_nothing(had_success: bool) -> None:
    """100 concurrent calls fail within 50 ms, in mid-traffic or at start-up."""
    circuit = Circuit(minimum_calls=1000)
    if had_success:
        circuit.call(SUCCESS, 99.99)
    for call in range(100):
        assert circuit.call(OUTAGE, 100.0 + call / 2000) is None
    circuit.call(SUCCESS, 100.2)
    assert circuit.call(OUTAGE, 101.1) is None
    assert circuit.state is CLOSED


def test_without_any_success_the_row_itself_must_last_a_second() -> None:
    circuit = Circuit()
    assert circuit.calls(5, OUTAGE, 100.0) is None
    assert circuit.call(OUTAGE, 100.9) is None
    assert circuit.call(OUTAGE, 101.0) is not None


def test_an_answer_ends_the_row_of_outages() -> None:
    """A 500 is an answer, not a success: whoever answers is not dead."""
    circuit = Circuit()
    circuit.call(SUCCESS, 10.0)
    assert circuit.calls(4, OUTAGE, 12.0, duration=0.5) is None
    assert circuit.call(FAILURE, 12.0) is None
    assert circuit.calls(4, OUTAGE, 12.0, duration=0.5) is None
    assert circuit.call(OUTAGE, 12.0) is not None
    assert circuit.consecutive_failures == 10


def test_pages_that_are_broken_are_no_outage() -> None:
    circuit = Circuit()
    assert circuit.calls(19, FAILURE, 10.0) is None
    transition = circuit.call(FAILURE, 15.0)
    assert transition is not None and transition.reason == "failure_rate"


def test_pitfall_13_a_dead_dependency_is_noticed_in_about_a_second_at_any_traffic() -> None:
    for rate in (5, 20, 100, 1000):
        circuit = Circuit()
        circuit.call(SUCCESS, 0.0)
        failures = next(n for n in range(1, 10_000) if circuit.call(OUTAGE, n / rate))
        assert failures / rate <= 1.0


def test_pitfall_13_a_dependency_that_answers_half_of_the_time_is_used() -> None:
    circuit = Circuit()
    for call in range(2000):
        assert circuit.call(OUTAGE if call % 2 else SUCCESS, call / 50) is None
    assert circuit.state is CLOSED


# -- rates -------------------------------------------------------------------------------------------------------


def test_seven_of_ten_failures_trip_from_twenty_calls_on() -> None:
    circuit = Circuit()
    circuit.calls(6, SUCCESS, 5.0)
    assert circuit.calls(13, FAILURE, 5.0) is None
    assert circuit.call(FAILURE, 5.0) == Transition(CLOSED, OPEN, "failure_rate", 1.0)


def test_just_below_the_rate_does_not_trip() -> None:
    circuit = Circuit()
    circuit.calls(7, SUCCESS, 5.0)
    assert circuit.calls(16, FAILURE, 5.0) is None  # 16 of 23 are 69.6 %
    assert circuit.call(FAILURE, 5.0) is not None  # 17 of 24 are 70.8 %


def test_failures_leave_the_window() -> None:
    circuit = Circuit()
    circuit.calls(19, FAILURE, 5.0)
    assert circuit.call(FAILURE, 15.0) is None
    assert circuit.totals(15.0) == (1, 1, 0)


def test_ground_31_half_failures_trip_where_so_set() -> None:
    circuit = Circuit(failure_rate=0.5)
    for call in range(19):
        assert circuit.call(FAILURE if call % 2 else SUCCESS, 5.0) is None
    assert circuit.call(FAILURE, 5.0) == Transition(CLOSED, OPEN, "failure_rate", 1.0)


def test_the_rate_of_the_last_calls() -> None:
    circuit = Circuit(count_window=20, failure_rate=0.5)
    circuit.calls(100, SUCCESS, 0.0)
    assert circuit.calls(9, FAILURE, 3600.0) is None
    transition = circuit.call(FAILURE, 7200.0)
    assert transition is not None and transition.reason == "failure_rate"


def test_slow_calls_trip_only_where_so_set() -> None:
    circuit = Circuit()
    for _ in range(100):
        assert circuit.call(SUCCESS, 5.0, duration=60.0) is None
    circuit = Circuit(slow_call=1.0, slow_rate=0.5)
    for _ in range(10):
        circuit.call(SUCCESS, 5.0, duration=0.999)
    for _ in range(9):
        assert circuit.call(SUCCESS, 5.0, duration=1.0) is None
    assert circuit.call(SUCCESS, 5.0, duration=1.0) == Transition(CLOSED, OPEN, "slow_rate", 1.0)


def test_slow_failures_are_slow_too() -> None:
    """Slow answers and timeouts together are as bad as either alone."""
    circuit = Circuit(slow_call=1.0, slow_rate=0.8, failure_rate=1.0, outage_failures=100)
    for call in range(19):
        assert circuit.call(FAILURE if call % 2 else SUCCESS, 5.0, duration=2.0) is None
    transition = circuit.call(FAILURE, 5.0, duration=2.0)
    assert transition is not None and transition.reason == "slow_rate"


def test_the_slow_rate_is_the_failure_rate_unless_given() -> None:
    circuit = Circuit(slow_call=1.0, failure_rate=0.9)
    for _ in range(2):
        circuit.call(SUCCESS, 5.0, duration=0.1)
    for _ in range(17):
        assert circuit.call(SUCCESS, 5.0, duration=2.0) is None
    transition = circuit.call(SUCCESS, 5.0, duration=2.0)
    assert transition is not None and transition.reason == "slow_rate"


def test_a_slow_success_is_a_success_for_the_other_rules() -> None:
    circuit = Circuit(slow_call=1.0)
    circuit.calls(4, OUTAGE, 5.0)
    circuit.call(SUCCESS, 5.9, duration=2.0)
    assert circuit.consecutive_failures == 0
    assert circuit.calls(5, OUTAGE, 6.5) is None


def test_a_duration_that_is_not_known_is_not_slow() -> None:
    circuit = Circuit(slow_call=1.0)
    circuit.calls(30, SUCCESS, 5.0)
    assert circuit.totals(5.0) == (30, 0, 0)


def test_consecutive_failures_alone() -> None:
    """pybreaker's `fail_max`: any failure, whatever the time or the rate."""
    circuit = Circuit(consecutive=3)
    for now in range(100):
        circuit.call(FAILURE, float(now))
        circuit.call(OUTAGE, float(now))
        circuit.call(SUCCESS, float(now))
    assert circuit.calls(2, OUTAGE, 100.0) is None
    assert circuit.call(FAILURE, 100.0) == Transition(CLOSED, OPEN, "consecutive", 1.0)
    many = Circuit(consecutive=1000)
    assert many.calls(999, OUTAGE, 50.0) is None


# -- what says nothing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [IGNORED, THROTTLED])
def test_ground_27_ignored_calls_count_nowhere(outcome: Outcome) -> None:
    circuit = Circuit(consecutive=3)
    circuit.calls(2, FAILURE, 0.0)
    assert circuit.calls(50, outcome, 0.0) is None
    assert circuit.consecutive_failures == 2
    assert circuit.totals(0.0) == (2, 2, 0)
    assert circuit.call(FAILURE, 0.0) is not None


def test_ground_27_an_ignored_trial_does_not_close() -> None:
    circuit = half_open()
    assert circuit.calls(50, IGNORED, 1.0) is None
    assert (circuit.state, circuit.trial_successes) == (HALF_OPEN, 0)


# -- open and half-open ----------------------------------------------------------------------------------------------


def test_an_open_circuit_rejects_until_its_break_is_over() -> None:
    circuit = opened(10.0)
    assert circuit.admit(10.999) is None
    assert circuit.retry_after(10.75) == 0.25
    permit = trial(circuit, 11.0)
    assert permit.transition == Transition(OPEN, HALF_OPEN, "break_over")
    assert trial(circuit, 11.0).transition is None
    assert (circuit.state, circuit.reason) == (HALF_OPEN, "stall")


def test_breaks_double_up_to_three_seconds_and_start_over_once_closed() -> None:
    circuit = opened(0.0)
    now, breaks = 0.0, [1.0]
    for _ in range(4):
        now += breaks[-1]
        assert circuit.call(OUTAGE, now) is None
        transition = circuit.call(OUTAGE, now)
        assert transition is not None and transition.reason == "trial" and transition.retry_after is not None
        assert circuit.reason == "stall"
        breaks.append(transition.retry_after)
    assert breaks == [1.0, 2.0, 3.0, 3.0, 3.0]
    circuit.calls(3, SUCCESS, now + 3.0)
    assert circuit.state is CLOSED
    transition = circuit.trip(now + 4.0, "shared", MIDDLE)
    assert transition == Transition(CLOSED, OPEN, "shared", 1.0)


@pytest.mark.parametrize(("random", "length"), [(0.0, 0.8), (0.25, 0.9), (0.5, 1.0), (1 - 2**-53, 1.2)])
def test_jitter_is_a_fifth_either_way(random: float, length: float) -> None:
    circuit = Circuit()
    transition = circuit.trip(100.0, "stall", random)
    assert transition is not None
    assert transition.retry_after == pytest.approx(length)
    assert circuit.retry_after(100.0) == pytest.approx(length)


def test_three_good_trials_close() -> None:
    circuit = half_open()
    assert circuit.calls(2, SUCCESS, 1.0) is None
    assert circuit.trial_successes == 2
    assert circuit.call(SUCCESS, 1.0) == Transition(HALF_OPEN, CLOSED, "recovered")
    assert (circuit.reason, circuit.consecutive_failures, circuit.retry_after(1.0)) == ("", 0, None)


@pytest.mark.parametrize(
    ("outcomes", "new"),
    [
        ([SUCCESS, SUCCESS, OUTAGE], CLOSED),  # 1 of 3 is below a half
        ([FAILURE, SUCCESS, SUCCESS], CLOSED),
        ([SUCCESS, FAILURE, OUTAGE], OPEN),
        ([OUTAGE, OUTAGE], OPEN),  # it can close no more: the third is not waited for
        ([THROTTLED, THROTTLED], OPEN),
        ([THROTTLED, SUCCESS, SUCCESS], CLOSED),
    ],
)
def test_a_sample_of_three(outcomes: list[Outcome], new: str) -> None:
    circuit = half_open()
    for outcome in outcomes[:-1]:
        assert circuit.call(outcome, 1.0) is None
    transition = circuit.call(outcomes[-1], 1.0)
    assert transition is not None and transition.new is new


def test_half_of_the_sample_failed_is_too_much() -> None:
    circuit = half_open(trials=4)
    circuit.calls(2, SUCCESS, 1.0)
    circuit.call(FAILURE, 1.0)
    transition = circuit.call(FAILURE, 1.0)
    assert transition is not None and transition.new is OPEN


def test_one_trial_decides_alone() -> None:
    circuit = half_open(trials=1)
    assert circuit.call(SUCCESS, 1.0) is not None
    circuit = half_open(trials=1)
    assert circuit.call(FAILURE, 1.0) is not None


def test_a_slow_trial_has_failed() -> None:
    """Or a circuit that opened for slowness would close on it."""
    circuit = half_open(slow_call=1.0, trials=1)
    transition = circuit.call(SUCCESS, 1.0, duration=1.5)
    assert transition is not None and transition.new is OPEN


def test_a_fresh_start_after_recovery() -> None:
    """Failures from before the break neither trip the closed circuit nor are they remembered."""
    circuit = Circuit()
    circuit.calls(20, OUTAGE, 0.0)
    assert circuit.state is OPEN
    circuit.calls(3, SUCCESS, 1.0)
    assert circuit.totals(1.0) == (0, 0, 0)
    assert circuit.calls(4, OUTAGE, 2.5, duration=0.5) is None
    assert circuit.call(OUTAGE, 2.5) is not None  # the last success was a trial, 1.5 s ago


@pytest.mark.parametrize("trials", [1, 3, 10])
def test_ground_28_half_open_admits_n_trials(trials: int) -> None:
    circuit = opened(0.0, trials=trials)
    admitted = [permit for _ in range(500) if (permit := circuit.admit(5.0)) is not None]
    assert len(admitted) == trials
    assert circuit.admit(6.0) is None


def test_pitfall_02_no_stampede_while_trials_end_and_begin() -> None:
    """Places come back with ignored results only; a round is never more than three verdicts."""
    circuit = opened(0.0)
    admitted = verdicts = 0
    out: list[Trial] = []
    for step in range(500):
        permit = circuit.admit(1.0)
        if isinstance(permit, Trial):
            admitted += 1
            out.append(permit)
        assert len(out) <= 3
        if step % 7 == 0 and out:
            ignored = step % 2 == 0
            circuit.record(out.pop(0), IGNORED if ignored else SUCCESS, 1.0, None, MIDDLE)
            verdicts += not ignored
            if circuit.state is CLOSED:
                break
    assert circuit.state is CLOSED
    assert verdicts == 3
    assert admitted < 20


def test_ground_29_stale_results_dropped() -> None:
    circuit = Circuit()
    before = [circuit.admit(0.0) for _ in range(60)]
    circuit.trip(0.0, "stall", MIDDLE)
    for permit in before[:20]:
        assert permit is not None
        assert circuit.record(permit, SUCCESS, 0.5, None, MIDDLE) is None
    assert circuit.state is OPEN
    circuit.admit(1.0)
    for permit in before[20:40]:
        assert permit is not None
        assert circuit.record(permit, SUCCESS, 1.0, None, MIDDLE) is None
        circuit.record_success(permit, 1.0)  # type: ignore[arg-type]
    assert (circuit.state, circuit.trial_successes) == (HALF_OPEN, 0)
    circuit.close(1.0)
    for permit in before[40:]:
        assert permit is not None
        assert circuit.record(permit, OUTAGE, 3.0, None, MIDDLE) is None
    assert (circuit.state, circuit.consecutive_failures, circuit.totals(3.0)) == (CLOSED, 0, (0, 0, 0))


def test_ground_29_a_trial_of_an_earlier_round_is_dropped() -> None:
    circuit = opened(0.0)
    first = [trial(circuit, 1.0) for _ in range(3)]
    circuit.record(first[0], OUTAGE, 1.5, None, MIDDLE)
    circuit.record(first[1], OUTAGE, 1.5, None, MIDDLE)
    assert circuit.state is OPEN
    second = trial(circuit, 3.5)
    assert circuit.record(first[2], OUTAGE, 3.6, None, MIDDLE) is None
    circuit.record(second, SUCCESS, 3.7, None, MIDDLE)
    assert circuit.trial_successes == 1


def test_pitfall_11_a_call_from_before_the_outage_does_not_close_a_half_open_circuit() -> None:
    circuit = Circuit(trials=1)
    early = circuit.admit(0.0)
    assert early is not None
    circuit.trip(0.0, "stall", MIDDLE)
    trial(circuit, 1.0)
    assert circuit.record(early, SUCCESS, 1.1, None, MIDDLE) is None
    assert circuit.state is HALF_OPEN


def test_a_permit_taken_in_the_middle_of_a_transition_changes_nothing() -> None:
    """State and generation are read without the lock: the generation may be an open one's by then."""
    circuit = opened(0.0)
    torn = circuit.generation
    circuit.record_success(torn, 0.5)
    assert circuit.totals(0.5) == (0, 0, 0)
    for _ in range(100):
        assert circuit.record(torn, OUTAGE, 5.0, None, MIDDLE) is None
    assert circuit.retry_after(0.5) == 0.5


def test_ground_30_late_failure_does_not_extend() -> None:
    circuit = Circuit()
    circuit.call(SUCCESS, 0.0)
    late = [circuit.admit(0.0) for _ in range(10)]
    assert circuit.calls(5, OUTAGE, 2.0, duration=0.5) is not None
    for permit in late:
        assert permit is not None
        assert circuit.record(permit, OUTAGE, 2.9, None, MIDDLE) is None
    assert circuit.retry_after(2.9) == pytest.approx(0.1)
    assert circuit.trip(2.9, "stall", MIDDLE) is None
    assert isinstance(circuit.admit(3.0), Trial)


def test_ground_32_a_cancelled_trial_gives_its_place_back() -> None:
    circuit = opened(0.0, trials=1)
    for _ in range(100):
        permit = trial(circuit, 1.0)
        assert circuit.admit(1.0) is None
        assert circuit.record(permit, IGNORED, 1.0, None, MIDDLE) is None
    assert circuit.call(SUCCESS, 1.0) == Transition(HALF_OPEN, CLOSED, "recovered")


def test_pitfall_03_a_lost_trial_cannot_wedge_it() -> None:
    """Its lease ends, and callers that were denied meanwhile do not prolong it."""
    circuit = opened(0.0, lease=5.0)
    lost = [trial(circuit, 1.0 + place) for place in range(3)]
    for step in range(49):
        assert circuit.admit(1.0 + step / 10) is None
    replacement = trial(circuit, 6.0)
    assert circuit.admit(6.5) is None
    # The late result is dropped, whether its place was given again or not.
    assert circuit.record(lost[0], OUTAGE, 6.5, None, MIDDLE) is None
    assert circuit.record(lost[1], OUTAGE, 7.0, None, MIDDLE) is None
    assert circuit.record(replacement, SUCCESS, 7.5, None, MIDDLE) is None
    assert circuit.trial_successes == 1
    circuit.calls(2, SUCCESS, 8.0)
    assert circuit.state is CLOSED


def test_leases_may_differ() -> None:
    """A call with a limit of its own: whoever admits it moves the end of its lease."""
    circuit = opened(0.0)
    for lease in (20.0, 5.0, 10.0):
        trial(circuit, 1.0).expires = 1.0 + lease
    assert circuit.admit(5.5) is None
    assert circuit.retry_after(5.5) == 0.5
    trial(circuit, 6.0)
    assert circuit.admit(6.0) is None
    trial(circuit, 11.0)
    assert circuit.admit(11.0) is None


def test_a_result_in_the_last_moment_of_a_lease_counts() -> None:
    circuit = opened(0.0, lease=5.0, trials=1)
    assert circuit.record(trial(circuit, 1.0), SUCCESS, 5.999, None, MIDDLE) is not None


def test_a_trial_is_told_once() -> None:
    circuit = half_open()
    permit = trial(circuit, 1.0)
    circuit.record(permit, SUCCESS, 1.0, None, MIDDLE)
    circuit.record(permit, SUCCESS, 1.0, None, MIDDLE)
    assert circuit.trial_successes == 1


def test_when_to_come_back() -> None:
    circuit = Circuit(lease=30.0)
    assert circuit.retry_after(0.0) is None
    circuit.trip(0.0, "stall", MIDDLE)
    assert circuit.retry_after(0.75) == 0.25
    assert circuit.retry_after(5.0) == 0.0
    for place in range(3):
        trial(circuit, 5.0 + place)
        assert circuit.retry_after(5.0 + place) == (1.0 if place == 2 else 0.0)
    # Half-open with all places taken: the length of the last break, or until the oldest lease ends.
    assert circuit.retry_after(34.5) == 0.5
    assert circuit.retry_after(50.0) == 0.0
    assert half_open(trials=1).retry_after(0.0) == 0.0


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_isolated_until_closed() -> None:
    circuit = Circuit()
    assert circuit.open(0.0) == Transition(CLOSED, OPEN, "forced")
    assert (circuit.forced, circuit.reason, circuit.retry_after(1e9)) == (True, "forced", None)
    assert circuit.admit(1e9) is None
    assert circuit.open(1e9) is None
    assert circuit.trip(1e9, "stall", MIDDLE) is None
    assert circuit.close(1e9) == Transition(OPEN, CLOSED, "forced")
    assert (circuit.forced, circuit.reason) == (False, "")
    assert circuit.call(SUCCESS, 1e9) is None


def test_an_open_circuit_can_be_isolated() -> None:
    circuit = opened(0.0)
    generation = circuit.generation
    assert circuit.open(0.5) is None
    assert (circuit.reason, circuit.generation) == ("forced", generation)
    assert circuit.admit(100.0) is None


def test_half_open_by_hand() -> None:
    circuit = Circuit()
    assert circuit.half_open(0.0) == Transition(CLOSED, HALF_OPEN, "forced")
    assert circuit.half_open(0.0) is None
    circuit.open(0.0)
    assert circuit.half_open(0.0) == Transition(OPEN, HALF_OPEN, "forced")
    assert not circuit.forced
    assert circuit.calls(2, OUTAGE, 0.0) == Transition(HALF_OPEN, OPEN, "trial", 1.0)
    assert circuit.reason == "trial"


def test_closing_a_closed_circuit_forgets() -> None:
    circuit = Circuit(consecutive=3)
    circuit.calls(2, FAILURE, 0.0)
    assert circuit.close(0.0) is None
    assert (circuit.consecutive_failures, circuit.totals(0.0)) == (0, (0, 0, 0))
    assert circuit.calls(2, FAILURE, 0.0) is None


def test_after_closing_by_hand_a_blip_trips_nothing() -> None:
    """The last success may have been long ago; it says nothing about what was repaired since."""
    circuit = Circuit()
    circuit.call(SUCCESS, 0.0)
    circuit.open(1.0)
    circuit.close(100.0)
    assert circuit.calls(10, OUTAGE, 100.0) is None


def test_every_transition_begins_a_generation() -> None:
    circuit = Circuit()
    seen = [circuit.generation]
    for act in (circuit.open, circuit.half_open, circuit.close, circuit.half_open, circuit.open, circuit.close):
        assert act(0.0) is not None
        seen.append(circuit.generation)
    assert seen == list(range(7))


def test_switched_off_it_admits_all_and_learns_nothing() -> None:
    circuit = opened(0.0, consecutive=1)
    out = trial(circuit, 1.0)
    circuit.enabled = False
    for _ in range(100):
        assert circuit.call(OUTAGE, 1.0) is None
    assert circuit.record(out, OUTAGE, 1.0, None, MIDDLE) is None
    assert (circuit.state, circuit.trial_successes) == (HALF_OPEN, 0)
    circuit.enabled = True
    assert len([permit for _ in range(10) if (permit := circuit.admit(1.0)) is not None]) == 3
    circuit.close(1.0)
    circuit.enabled = False
    assert circuit.calls(100, OUTAGE, 5.0) is None
    assert circuit.trip(5.0, "stall", MIDDLE) is None


def test_configuring_keeps_the_window() -> None:
    circuit = Circuit()
    circuit.calls(13, FAILURE, 0.0)
    circuit.configure(Rules(minimum_calls=14))
    assert circuit.totals(0.0) == (13, 13, 0)
    assert circuit.call(FAILURE, 0.0) is not None


@pytest.mark.parametrize("settings", [{"window": 20.0}, {"buckets": 5}, {"count_window": 50}])
def test_another_shape_of_window_begins_empty(settings: dict[str, Any]) -> None:
    circuit = Circuit()
    circuit.calls(13, FAILURE, 0.0)
    circuit.configure(Rules(**settings))
    assert circuit.totals(0.0) == (0, 0, 0)


def test_fewer_trials_in_mid_round_do_not_wedge_it() -> None:
    circuit = half_open(trials=10)
    circuit.calls(4, SUCCESS, 1.0)
    out = trial(circuit, 1.0)
    circuit.configure(Rules(trials=2))
    assert circuit.record(out, OUTAGE, 1.0, None, MIDDLE) is None
    assert circuit.calls(2, SUCCESS, 1.0) == Transition(HALF_OPEN, CLOSED, "recovered")


# -- clocks and weight -----------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_does_no_harm() -> None:
    circuit = Circuit()
    circuit.call(SUCCESS, 100.0)
    assert circuit.calls(10, OUTAGE, 50.0) is None
    assert circuit.call(OUTAGE, 101.0) == Transition(CLOSED, OPEN, "outage", 1.0)
    assert circuit.admit(0.0) is None
    assert isinstance(circuit.admit(1e9), Trial)
    assert circuit.admit(0.0) is not None
    assert circuit.retry_after(0.0) == 0.0


def test_an_idle_breaker_weighs_little() -> None:
    circuit = Circuit()
    for call in range(200):
        circuit.call(OUTAGE if call % 3 == 0 else SUCCESS, call / 10)
    window = circuit._window
    held = [getattr(owner, name) for owner, names in ((circuit, Breaker.__slots__), (window, TimeWindow.__slots__)) for name in names]
    # Rules are shared or weighed once, words and small ints are the interpreter's own.
    parts = [circuit, *(part for part in held if not isinstance(part, Rules | str | int))]
    assert sum(sys.getsizeof(part) for part in parts if part is not None) <= 850


def test_no_trial_is_kept_once_its_round_is_over() -> None:
    circuit = half_open()
    trial(circuit, 1.0)
    circuit.close(1.0)
    assert circuit.trials_out == 0


def test_a_trial_whose_body_outlasts_its_lease_is_no_lost_one() -> None:
    """Its answer has begun well: a dependency of long downloads must not stay half-open for ever."""
    circuit = half_open(trials=2, lease=1.0)
    trials = [trial(circuit, 1.0), trial(circuit, 1.0)]
    for answered in trials:
        answered.answered = True
    assert circuit.admit(1.9) is None
    assert circuit.admit(2.0) == circuit.generation and circuit.state is CLOSED
    assert circuit.recovered == Transition(HALF_OPEN, CLOSED, "recovered")
    assert circuit.record(trials[0], SUCCESS, 3.0, 2.0, MIDDLE) is None


def test_a_late_end_of_an_answered_trial_counts() -> None:
    circuit = half_open(trials=1, lease=1.0)
    one = trial(circuit, 1.0)
    one.answered = True
    transition = circuit.record(one, OUTAGE, 5.0, 4.0, MIDDLE)
    assert transition is not None and transition.new is OPEN


def test_an_answer_whose_body_outlasts_its_trial_was_the_last_success() -> None:
    circuit = half_open(trials=2, lease=1.0)
    trial(circuit, 1.0).answered = True
    trial(circuit, 1.0)
    assert isinstance(circuit.admit(2.0), Trial)  # in the place of the other one, which is lost
    assert (circuit.trial_successes, circuit.last_success) == (1, 2.0)


def test_a_success_at_the_end_of_a_bucket_belongs_to_the_next_one() -> None:
    circuit = Circuit()
    for now in (0.5, 1.0):
        permit = circuit.admit(now)
        assert isinstance(permit, int)
        circuit.record_success(permit, now)
    assert circuit.totals(10.5) == (1, 0, 0)


def test_trials_that_fail_lengthen_the_row_of_failures() -> None:
    circuit = Circuit(consecutive=3, slow_call=1.0, trials=2, trial_failure_rate=1.0)
    circuit.calls(3, FAILURE, 0.0)
    first, second = trial(circuit, 1.0), trial(circuit, 1.0)
    circuit.record(first, SUCCESS, 3.0, 2.0, MIDDLE)
    assert circuit.consecutive_failures == 3
    circuit.record(second, FAILURE, 3.0, 2.0, MIDDLE)
    assert (circuit.consecutive_failures, circuit.state) == (4, OPEN)


def test_half_open_the_last_break_says_when_to_come_back() -> None:
    circuit = opened(0.0, trials=1)
    circuit.record(trial(circuit, 1.0), OUTAGE, 1.0, None, MIDDLE)
    trial(circuit, 3.0)
    assert circuit.retry_after(3.0) == 2.0
    circuit = half_open(0.0, trials=1)
    assert circuit.forced is False
    trial(circuit, 0.0)
    assert circuit.retry_after(0.0) == 1.0


def test_calls_that_began_before_the_last_success_are_no_second_without_one() -> None:
    circuit = Circuit()
    circuit.call(SUCCESS, 10.0)
    assert circuit.calls(10, OUTAGE, 10.45, duration=0.55) is None


def test_a_single_slow_call_is_below_every_rate() -> None:
    circuit = Circuit(slow_call=1.0)
    circuit.calls(30, SUCCESS, 5.0)
    assert circuit.call(SUCCESS, 5.0, duration=2.0) is None


def test_a_new_circuit() -> None:
    circuit = Circuit()
    assert (circuit.state, circuit.reason, circuit.generation, circuit.breaks, circuit.open_until) == (CLOSED, "", 0, 0, 0.0)
    assert circuit.forced is False and circuit.recovered is None


def test_a_trial_knows_its_generation_and_nothing_of_an_answer() -> None:
    circuit = half_open()
    permit = trial(circuit, 1.0)
    assert permit.generation == circuit.generation == 1
    assert permit.answered is False


def test_only_a_break_has_a_number() -> None:
    circuit = opened()
    transition = circuit.close(0.5)
    assert transition is not None and transition.number == 0


def test_switched_off_in_mid_call_it_trips_no_more() -> None:
    circuit = Circuit(consecutive=1)
    permit = circuit.admit(0.0)
    assert permit is not None
    circuit.enabled = False
    assert circuit.record(permit, FAILURE, 0.0, None, MIDDLE) is None
    assert circuit.state is CLOSED
