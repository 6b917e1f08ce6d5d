"""The breaker against a model that remembers everything and counts it anew each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from resilient.core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Permit, Rules, Transition
from resilient.core.outcome import Outcome

from ..thorough import often

SUCCESS, FAILURE, OUTAGE, THROTTLED, IGNORED = Outcome

RULES = [
    Rules(minimum_calls=6, lease=4.0),
    Rules(outage_failures=2, minimum_calls=10, failure_rate=0.5, trials=1, lease=2.0),
    Rules(minimum_calls=4, count_window=5, trials=4, trial_failure_rate=0.75, max_break=8.0, lease=4.0),
    Rules(minimum_calls=4, slow_call=1.0, slow_rate=0.5, failure_rate=1.0, outage_failures=50, trials=2, lease=4.0, stall_calls=None),
    Rules(consecutive=3, trials=2, break_time=2.0, max_break=2.0, growth=1.0, jitter=0.0, lease=4.0),
]
LONGEST_LEASE = 6.0


@dataclass(eq=False)
class Call:
    """A call that was admitted, with what the model knows of it."""

    permit: Permit
    generation: int
    trial: bool
    expires: float = math.inf
    lost: bool = False


@dataclass
class Model:
    """Plain lists: every counted call since the circuit closed, every trial of the round, every break."""

    rules: Rules
    state: str = CLOSED
    generation: int = 0
    reason: str = ""
    calls: list[tuple[float, Outcome, bool]] = field(default_factory=list)
    row: list[tuple[float, Outcome]] = field(default_factory=list)
    last_success: float | None = None
    out: list[Call] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)
    rounds_failed: int = 0
    open_until: float = 0.0

    def move(self, state: str, reason: str, retry_after: float | None = None) -> Transition:
        transition = Transition(self.state, state, reason, retry_after)
        self.state, self.generation = state, self.generation + 1
        self.out, self.verdicts = [], []
        return transition

    def open(self, reason: str, now: float, random: float) -> Transition:
        base = min(self.rules.max_break, self.rules.break_time * self.rules.growth**self.rounds_failed)
        pause = base * (1 + self.rules.jitter * (2 * random - 1))
        self.rounds_failed += 1
        self.open_until = now + pause
        self.reason = reason if self.reason in ("", "forced") else self.reason
        return self.move(OPEN, reason, pause)

    def close(self, reason: str) -> Transition | None:
        self.calls, self.row, self.rounds_failed, self.reason = [], [], 0, ""
        return None if self.state == CLOSED else self.move(CLOSED, reason)

    def places(self, now: float) -> int:
        """Free places of the round, those of lost trials included."""
        held = [call for call in self.out if now < call.expires]
        return self.rules.trials - len(self.verdicts) - len(held)

    def totals(self, now: float) -> tuple[int, int, int]:
        seen = self.calls
        if self.rules.count_window:
            seen = seen[-self.rules.count_window :]
        else:
            width = self.rules.window / self.rules.buckets
            seen = [call for call in seen if math.floor(call[0] / width) > math.floor(now / width) - self.rules.buckets]
        return len(seen), sum(outcome.failed for _, outcome, _ in seen), sum(slow for _, _, slow in seen)

    def record(self, outcome: Outcome, slow: bool, now: float, random: float, duration: float | None) -> Transition | None:
        self.calls.append((now, outcome, slow))
        if not outcome.failed:
            self.last_success, self.row = now, []
        else:
            self.row.append((now - (duration or 0.0), outcome))
        reason = self.broken(outcome, slow, now)
        return self.open(reason, now, random) if reason else None

    def broken(self, outcome: Outcome, slow: bool, now: float) -> str:
        rules = self.rules
        if rules.consecutive is not None:
            return "consecutive" if outcome.failed and len(self.row) >= rules.consecutive else ""
        outages: list[float] = []
        for at, kind in self.row:
            outages = [*outages, at] if kind is OUTAGE else []
        if outcome is OUTAGE and len(outages) >= rules.outage_failures:
            row, quiet = now - outages[0], rules.outage_quiet
            if row >= quiet or (self.last_success is not None and now - self.last_success >= quiet and row >= quiet / 2):
                return "outage"
        calls, failures, slow_calls = self.totals(now)
        if calls >= rules.minimum_calls:
            if outcome.failed and failures / calls >= rules.failure_rate:
                return "failure_rate"
            if slow and rules.slow_rate is not None and slow_calls / calls >= rules.slow_rate:
                return "slow_rate"
        return ""

    def judge(self, call: Call, outcome: Outcome, slow: bool, now: float, random: float) -> Transition | None:
        if call not in self.out:
            return None
        self.out.remove(call)
        if now >= call.expires or outcome is IGNORED:
            return None
        good = outcome is SUCCESS and not slow
        self.verdicts.append(good)
        if good:
            self.last_success = now
        bad = self.verdicts.count(False)
        if bad / self.rules.trials >= self.rules.trial_failure_rate:
            return self.open("trial", now, random)
        return self.close("recovered") if len(self.verdicts) == self.rules.trials else None


class Circuit(RuleBasedStateMachine):
    calls = Bundle("calls")

    @initialize(rules=st.sampled_from(RULES))
    def begin(self, rules: Rules) -> None:
        self.breaker, self.model, self.now = Breaker(rules), Model(rules), 500.0

    @rule(eighths=st.integers(0, 12) | st.sampled_from([8, 16, 32, 80, 800]))
    def time_passes(self, eighths: int) -> None:
        self.now += eighths / 8

    @rule(target=calls, number=st.integers(1, 6), lease=st.sampled_from([None, 1.0, 6.0]))
    def calls_begin(self, number: int, lease: float | None):  # type: ignore[no-untyped-def]
        admitted = [self.admit(lease) for _ in range(number)]
        return multiple(*(call for call in admitted if call is not None))

    def admit(self, lease: float | None) -> Call | None:
        model, was_open = self.model, self.model.state == OPEN
        permit = self.breaker.admit(self.now)
        if model.state == CLOSED:
            assert permit == model.generation
            return Call(model.generation, model.generation, trial=False)
        expected = self.now >= model.open_until if was_open else model.places(self.now) > 0
        assert (permit is not None) is expected
        if permit is None:
            return None
        if was_open:
            model.move(HALF_OPEN, "break_over")
        assert not isinstance(permit, int)
        assert permit.transition == (Transition(OPEN, HALF_OPEN, "break_over") if was_open else None)
        if len(model.out) + len(model.verdicts) == model.rules.trials:
            # Its place is that of a lost trial.
            lost = next(call for call in model.out if self.now >= call.expires)
            lost.lost = True
            model.out.remove(lost)
        assert permit.expires == self.now + model.rules.lease
        if lease is not None:
            permit.expires = self.now + lease
        call = Call(permit, model.generation, trial=True, expires=permit.expires)
        model.out.append(call)
        return call

    @rule(
        call=consumes(calls),
        outcome=st.sampled_from([SUCCESS, SUCCESS, FAILURE, OUTAGE, OUTAGE, THROTTLED, IGNORED]),
        duration=st.sampled_from([None, 0.5, 1.0, 3.0]),
        random=st.sampled_from([0.0, 0.25, 0.5, 0.875]),
    )
    def a_call_ends(self, call: Call, outcome: Outcome, duration: float | None, random: float) -> None:
        model, rules = self.model, self.model.rules
        slow = rules.slow_call is not None and duration is not None and duration >= rules.slow_call
        expected = None
        if call.trial:
            expected = model.judge(call, outcome, slow, self.now, random)
        elif call.generation == model.generation and outcome.counted:
            expected = model.record(outcome, slow, self.now, random, duration)
        if outcome is SUCCESS and not slow and isinstance(call.permit, int):
            self.breaker.record_success(call.permit, self.now)
            assert expected is None
            return
        got = self.breaker.record(call.permit, outcome, self.now, duration, random)
        assert_same(got, expected)
        if call.lost:
            assert got is None

    @rule(calls_lost=consumes(calls))
    def a_call_never_ends(self, calls_lost: Call) -> None:
        """Its task was killed: nobody will ever record it."""

    @rule(
        waits=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, 100.0]), max_size=8),
        p95=st.sampled_from([0.0, 0.05, 0.1, 0.2, 5.0]),
    )
    def somebody_looks_for_a_stall(self, waits: list[float], p95: float) -> None:
        model, rules = self.model, self.model.rules
        quiet = model.last_success is None or self.now - model.last_success >= rules.stall_after
        hanging = [wait for wait in waits if wait > 10 * p95 and wait > 1]
        expected = quiet and rules.consecutive is None and rules.stall_calls is not None and len(hanging) >= rules.stall_calls
        stalled = self.breaker.stalled(waits, p95, self.now)
        assert stalled is expected
        if stalled:
            got = self.breaker.trip(self.now, "stall", 0.25)
            assert_same(got, None if model.state == OPEN else model.open("stall", self.now, 0.25))

    @rule(act=st.sampled_from(["open", "half_open", "close", "trip"]), sure=st.integers(0, 3))
    def by_hand(self, act: str, sure: int) -> None:
        if sure:
            return  # seldom, or no circuit would ever live long enough to trip by itself
        model = self.model
        if act == "open":
            got, model.reason, model.open_until = self.breaker.open(self.now), "forced", math.inf
            assert_same(got, None if model.state == OPEN else model.move(OPEN, "forced"))
        elif act == "half_open":
            got, model.reason = self.breaker.half_open(self.now), model.reason or "forced"
            assert_same(got, None if model.state == HALF_OPEN else model.move(HALF_OPEN, "forced"))
        elif act == "close":
            got, model.last_success = self.breaker.close(self.now), None
            assert_same(got, model.close("forced"))
        else:
            got = self.breaker.trip(self.now, "stall", 0.5)
            assert_same(got, None if model.state == OPEN else model.open("stall", self.now, 0.5))

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "breaker"):
            return
        breaker, model = self.breaker, self.model
        assert (breaker.state, breaker.generation, breaker.reason) == (model.state, model.generation, model.reason)
        assert breaker.breaks == model.rounds_failed
        assert breaker.trial_successes == model.verdicts.count(True)
        assert breaker._window.totals(self.now) == model.totals(self.now)
        if model.state == CLOSED:
            assert breaker.retry_after(self.now) is None
            assert breaker.consecutive_failures == len(model.row)
        elif model.state == OPEN:
            until = breaker.retry_after(self.now)
            assert until == (None if model.open_until == math.inf else pytest.approx(max(0.0, model.open_until - self.now)))
        else:
            # Never more than the round allows, and never wedged: a place is free, or will be when a lease ends.
            assert breaker.trials_out + len(model.verdicts) <= model.rules.trials
            assert model.places(self.now + LONGEST_LEASE) > 0
            until = breaker.retry_after(self.now)
            assert until is not None and 0 <= until <= model.rules.max_break


def assert_same(got: Transition | None, expected: Transition | None) -> None:
    assert (got is None) is (expected is None)
    if got is not None and expected is not None:
        assert (got.old, got.new, got.reason) == (expected.old, expected.new, expected.reason)
        assert got.retry_after == (None if expected.retry_after is None else pytest.approx(expected.retry_after))


TestCircuit = pytest.mark.slow(Circuit.TestCase)
TestCircuit.settings = settings(max_examples=often(80), stateful_step_count=50, deadline=None)
