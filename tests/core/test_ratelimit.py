"""The meter (GCRA) against a model that keeps the whole history, and the line in front of it against a list."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import resilient.core.ratelimit
from resilient.core.pushback import Allowance
from resilient.core.ratelimit import SLACK, Limiter, Meter, Place

from ..thorough import often

NEAR = 1e-6


@dataclass
class Went:
    """What went: when, for how much, and how much of it has been given back since."""

    ticket: int
    at: Fraction
    cost: Fraction


class History:
    """A meter that remembers everything: its state is worked out anew from all that ever went, as it is known now."""

    def __init__(self, interval: Fraction, burst: Fraction) -> None:
        self.interval, self.burst = interval, burst
        self.went: list[Went] = []

    def level(self, now: Fraction) -> Fraction:
        """Seconds of work in the queue: Lindley's recursion."""
        level, before = Fraction(0), Fraction(0)
        for one in self.went:
            level = max(Fraction(0), level - (one.at - before)) + one.cost * self.interval
            before = one.at
        return max(Fraction(0), level - (now - before))

    def earliest(self, cost: Fraction, now: Fraction) -> Fraction:
        return max(now, now + self.level(now) + cost * self.interval - self.burst * self.interval)


# In eighths, which floats hold exactly: pauses of seconds, costs of units.
eighths = st.integers(0, 40).map(lambda n: Fraction(n, 8))
pauses = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, 12, 20, 100]).map(lambda n: Fraction(n, 8))
steps = st.lists(st.tuples(pauses, st.sampled_from(["take", "take", "take", "back", "charge"]), eighths, st.integers(0, 30)), max_size=40)


def play(meter: Meter, history: History, moves: list[tuple[Fraction, str, Fraction, int]]) -> Fraction:
    """Play moves on both. Takes only what may go."""
    now = Fraction(1000)
    tickets: list[Went] = []
    for pause, what, amount, index in moves:
        now += pause
        if what == "take" and meter.earliest(float(amount), float(now)) <= now:
            one = Went(meter.take(float(amount), float(now)), now, amount)
            tickets.append(one)
            history.went.append(one)
        elif what == "charge":
            history.went.append(Went(meter.take(float(amount), float(now)), now, amount))
        elif what == "back" and tickets:
            one = tickets[index % len(tickets)]
            back = min(amount, one.cost)
            meter.give_back(one.ticket, float(back))
            one.cost -= back
    return now


@pytest.mark.slow
@settings(max_examples=often(300), deadline=None)
@given(steps, st.sampled_from([Fraction(1, 4), Fraction(1), Fraction(5, 2)]), st.sampled_from([1, 3, 8]), eighths)
def test_it_stands_where_a_meter_would_that_had_known_the_real_costs(
    moves: list[tuple[Fraction, str, Fraction, int]], interval: Fraction, burst: int, asked: Fraction
) -> None:
    """Whatever went, was given back or was booked on top, in any order and at any time."""
    meter, history = Meter(1 / float(interval), 1.0, burst), History(interval, Fraction(burst))
    now = play(meter, history, moves)
    assert max(meter.tat - float(now), 0.0) == pytest.approx(float(history.level(now)), abs=NEAR)
    assert meter.earliest(float(asked), float(now)) == pytest.approx(float(history.earliest(asked, now)), abs=NEAR)


@pytest.mark.slow
@settings(max_examples=often(100), deadline=None)
@given(steps, st.sampled_from([1, 3, 8]), st.data())
def test_never_more_than_the_rate_and_a_burst_in_any_window(
    moves: list[tuple[Fraction, str, Fraction, int]], burst: int, data: st.DataObject
) -> None:
    meter, history = Meter(2.0, 1.0, burst), History(Fraction(1, 2), Fraction(burst))
    play(meter, history, [move for move in moves if move[1] != "charge"])
    went = history.went
    for first in went:
        for last in went:
            inside = sum(one.cost for one in went if first.at <= one.at <= last.at)
            assert last.at < first.at or inside <= burst + 2 * (last.at - first.at) + Fraction(1, 10**5)


@pytest.mark.slow
@settings(max_examples=often(100), deadline=None)
@given(steps)
def test_with_little_memory_less_is_given_back_and_never_more(moves: list[tuple[Fraction, str, Fraction, int]]) -> None:
    meter, history = Meter(1.0, 1.0, 30), History(Fraction(1), Fraction(30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resilient.core.ratelimit, "_MARKS", 2)
        now = play(meter, history, moves)
    assert len(meter._marks) <= 2
    assert max(meter.tat - float(now), 0.0) >= float(history.level(now)) - NEAR


def test_the_memory_of_low_levels_is_bounded() -> None:
    meter = Meter(1.0, 1.0, 1e6)
    meter.take(1e5, 0.0)
    for number in range(10_000):
        meter.take(1.0, number / 1e4)
        assert len(meter._marks) <= 64


def test_what_the_rate_would_have_let_go_by_now_is_not_given_back() -> None:
    """A token bucket that adds the whole would let 11 go at once."""
    meter = Meter(1.0, 1.0, 10)
    early = meter.take(1, 0.0)
    for _ in range(10):
        assert meter.earliest(1, 5.0) == 5.0
        meter.take(1, 5.0)
    meter.give_back(early, 1)
    assert meter.earliest(1, 5.0) == 6.0


def test_what_one_gives_back_makes_less_of_what_another_can() -> None:
    """Without an eighth of the second the meter would have been lower when the third came, and would have let that go sooner."""
    meter = Meter(1.0, 1.0, 3)
    first, second = meter.take(0.625, 0.0), meter.take(0.625, 0.0)
    meter.take(0.125, 0.625)
    meter.give_back(second, 0.125)
    meter.give_back(first, 0.625)
    assert meter.tat == 0.625 + 0.125


def test_settled_at_once_it_is_as_if_it_had_never_been() -> None:
    meter = Meter(1.0, 1.0, 10)
    tickets = [meter.take(2, 0.0) for _ in range(5)]
    for ticket in (tickets[2], tickets[0], tickets[4], tickets[1], tickets[3]):
        meter.give_back(ticket, 2)
    assert meter.earliest(10, 0.0) == 0.0


def test_a_debt_may_be_larger_than_the_burst() -> None:
    meter = Meter(10.0, 1.0, 10)
    meter.take(100, 0.0)
    assert meter.earliest(1, 0.0) == pytest.approx(9.1)


def test_after_a_reset_old_tickets_have_nothing_to_give_back() -> None:
    meter = Meter(1.0, 1.0, 2)
    old = meter.take(2, 0.0)
    meter.reset()
    assert meter.earliest(2, 0.0) == 0.0
    meter.take(2, 0.0)
    meter.give_back(old, 2)
    assert meter.earliest(1, 0.0) == 1.0


@pytest.mark.parametrize("settings", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (math.inf, 1, 1), (1, math.nan, 1)])
def test_settings_are_checked(settings: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"^(rate|per|burst) must"):
        Limiter(*settings)


# -- behaviours that other systems' tests assert (conformance) -----------------------------------------------------


def waits(limiter: Limiter, cost: float, times: int, now: float) -> float:
    """Join the line so often; the wait of the last."""
    for _ in range(times):
        place = limiter.join(cost, now, None)
    return place.at - now


@pytest.mark.parametrize("case", ["rate-01"])
def test_reservations_in_advance(case: str) -> None:
    """3 in 10 ms and a wait of at most 12 ms: three go at once, three wait no longer than the next cycle, three are refused.

    The source gives whole cycles at their beginning; here they come one by one over the cycle.
    """
    limiter = Limiter(3, 0.010, 3)
    verdicts = []
    for number in range(9):
        now = 0.010 + (number + 1) * 1e-9
        at = limiter.when(1, now)
        if at - now > 0.012:
            verdicts.append(-1.0)
        else:
            ticket = limiter.try_take(1, now)
            verdicts.append(0.0 if ticket is not None else limiter.join(1, now, None).at - now)
    assert verdicts == pytest.approx([0, 0, 0, 0.0033333, 0.0066667, 0.0099999, -1, -1, -1], abs=1e-6)


@pytest.mark.parametrize("case", ["rate-03"])
@pytest.mark.parametrize(
    ("interval", "steps"),
    [
        # (at, permits, times, wait of the last, next free), in ms. Where the source's limiter had been idle it goes on by a
        # grid of intervals (800, 1600 ...), ours from the call: the two steps after such a pause differ by what is said.
        (500, [(0, 1, 7, 3000, 3500), (800, 3, 1, 3700, 5000), (2300, 1, 1, 2700, 5500), (3500, 3, 1, 3000, 7000)]),
        (500, [(9100, 3, 1, 900 + 100, 10500 + 100), (11000, 1, 1, 0, 11500)]),
        (200, [(0, 3, 1, 400, 600), (550, 2, 1, 250, 1000), (2210, 2, 1, 190 + 10, 2600 + 10)]),
    ],
)
def test_a_smooth_limiter(case: str, interval: int, steps: list[tuple[int, int, int, int, int]]) -> None:
    meter = Meter(1, interval / 1000, 1)
    for at, permits, times, wait, free in steps:
        for _ in range(permits * times):
            goes = meter.earliest(1, at / 1000)
            meter.take(1, at / 1000)
        assert goes - at / 1000 == pytest.approx(wait / 1000)
        assert meter.earliest(1, at / 1000) == pytest.approx(free / 1000)
        assert free == at + wait + interval


@pytest.mark.parametrize("case", ["rate-05"])
def test_a_smooth_limiter_that_does_not_wait(case: str) -> None:
    """One in an interval. The source lets go at 210 what is 60 after the last, by its grid; here the interval is kept."""
    limiter = Limiter(1, 100, 1)
    went = [limiter.try_take(1, now) is not None for now in (0, 0, 150, 150, 210, 250, 250)]
    assert went == [True, False, True, False, False, True, False]
    limiter = Limiter(1, 0.1, 1)
    assert limiter.try_take(1, 0.0) is not None
    assert limiter.join(1, 0.0, None).at == pytest.approx(0.1)  # a wait of 100 ms is accepted where that is the longest
    assert limiter.when(1, 0.0) == pytest.approx(0.2)  # and one of 200 is refused


# -- the line ----------------------------------------------------------------------------------------------------


class Line(RuleBasedStateMachine):
    """A limiter against a list of those who wait and a history of those who went."""

    @initialize(burst=st.integers(1, 4), interval=st.sampled_from([Fraction(1, 2), Fraction(1)]))
    def begin(self, burst: int, interval: Fraction) -> None:
        self.limiter = Limiter(1 / float(interval), 1.0, burst)
        self.history = History(interval, Fraction(burst))
        self.burst, self.interval = burst, interval
        self.now = Fraction(50)
        self.not_before = Fraction(0)
        self.waiting: list[tuple[Place, Fraction]] = []
        self.granted: list[tuple[Place, Went]] = []

    def due(self, cost: Fraction) -> Fraction:
        return self.history.earliest(cost, max(self.now, self.not_before))

    def advance(self) -> None:
        woken = self.limiter.advance(float(self.now))
        expected = []
        while self.waiting and self.due(self.waiting[0][1]) <= self.now:
            place, cost = self.waiting.pop(0)
            assert place.ticket is not None
            one = Went(place.ticket, self.now, cost)
            self.history.went.append(one)
            self.granted.append((place, one))
            expected.append(place)
        # Besides those who go, the next is woken if his turn has moved up.
        assert [id(place) for place in woken[: len(expected)]] == [id(place) for place in expected]
        assert woken[len(expected) :] in ([], [place for place, _ in self.waiting[:1]])

    @rule(quarters=st.integers(0, 12))
    def time_passes(self, quarters: int) -> None:
        self.now += Fraction(quarters, 4)
        self.advance()

    @rule(halves=st.integers(0, 8))
    def somebody_comes(self, halves: int) -> None:
        cost = min(Fraction(halves, 2), Fraction(self.burst))
        at = max(self.history.earliest(sum((cost for _, cost in self.waiting), cost), max(self.now, self.not_before)), self.now)
        assert self.limiter.when(float(cost), float(self.now)) == pytest.approx(float(at), abs=NEAR)
        ticket = self.limiter.try_take(float(cost), float(self.now))
        assert (ticket is not None) is (not self.waiting and at <= self.now)
        if ticket is not None:
            self.history.went.append(Went(ticket, self.now, cost))
            return
        place = self.limiter.join(float(cost), float(self.now), None)
        assert place.at == pytest.approx(float(at), abs=NEAR)
        self.waiting.append((place, cost))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_gives_up(self, data: st.DataObject) -> None:
        place, _ = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.limiter.drop(place, float(self.now))
        self.limiter.drop(place, float(self.now))
        self.advance()

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def a_turn_that_came_too_late_is_passed_on(self, data: st.DataObject) -> None:
        place, one = self.granted.pop(data.draw(st.integers(0, len(self.granted) - 1)))
        self.limiter.drop(place, float(self.now))
        one.cost = Fraction(0)
        self.advance()

    @rule(quarters=st.integers(1, 12))
    def the_server_pushes_back(self, quarters: int) -> None:
        self.not_before = max(self.not_before, self.now + Fraction(quarters, 4))
        self.limiter.push_back(float(self.now + Fraction(quarters, 4)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), quarters=st.integers(1, 40))
    def somebody_looks_again(self, data: st.DataObject, quarters: int) -> None:
        self.advance()
        if not self.waiting:
            return
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        latest = self.now + Fraction(quarters, 4)
        first = self.due(self.waiting[0][1])
        assert self.limiter.in_time(self.waiting[index][0], float(self.now), float(latest)) is (float(first) <= float(latest) + SLACK)

    @invariant()
    def nobody_is_told_a_time_that_is_too_early(self) -> None:
        if not hasattr(self, "limiter"):
            return
        assert self.limiter.queued == len(self.waiting)

    @invariant()
    def never_over_the_rate(self) -> None:
        if not hasattr(self, "limiter"):
            return
        went = self.history.went
        for first in went:
            inside = sum(one.cost for one in went if one.at >= first.at)
            assert inside <= self.burst + (self.now - first.at) / self.interval


TestLine = pytest.mark.slow(Line.TestCase)
TestLine.settings = settings(max_examples=often(60), stateful_step_count=40, deadline=None)


def test_who_waits_goes_at_the_time_he_was_told() -> None:
    limiter = Limiter(1, 1.0, 1)
    assert limiter.try_take(1, 0.0) is not None
    places = [limiter.join(1, 0.0, name) for name in "abc"]
    assert [place.at for place in places] == pytest.approx([1, 2, 3])
    for place in places:
        assert limiter.advance(place.at - 0.01) == []
        assert limiter.advance(place.at) == [place] and place.ticket is not None
    assert limiter.queued == 0


def test_who_leaves_lets_the_others_move_up() -> None:
    limiter = Limiter(1, 1.0, 1)
    limiter.try_take(1, 0.0)
    first, second, third = (limiter.join(1, 0.0, name) for name in "abc")
    limiter.drop(first, 0.5)
    assert limiter.advance(0.5) == [second] and second.at == pytest.approx(1) and second.ticket is None
    assert limiter.advance(1.0) == [second, third] and second.ticket is not None  # the third learns that he is the next
    assert third.ticket is None and third.at == pytest.approx(2)
    assert limiter.when(1, 1.0) == pytest.approx(3)


def test_a_storm_of_those_who_give_up_leaves_nothing_behind() -> None:
    limiter = Limiter(10, 1.0, 1)
    limiter.try_take(1, 0.0)
    places = [limiter.join(1, 0.0, None) for _ in range(1000)]
    for place in places:
        limiter.drop(place, 0.05)
    assert limiter.when(1, 0.05) == pytest.approx(0.1)


def test_what_costs_more_than_the_burst_never_goes() -> None:
    limiter = Limiter(10, 1.0, 5)
    assert limiter.when(5.5, 0.0) == math.inf and limiter.try_take(5.5, 0.0) is None
    assert limiter.try_take(5, 0.0) is not None


def test_after_a_pause_that_the_server_asked_for_a_burst_goes_and_the_rest_in_turn() -> None:
    limiter = Limiter(1, 1.0, 2)
    limiter.push_back(10.0)
    assert limiter.try_take(1, 9.9) is None
    assert limiter.held_back(1, 9.9)
    assert [limiter.join(1, 5.0, None).at for _ in range(4)] == pytest.approx([10, 10, 11, 12])
    assert len(limiter.advance(10.0)) == 2
    assert limiter.queued == 2


def test_who_waits_sees_that_it_became_hopeless() -> None:
    limiter = Limiter(1, 1.0, 1)
    limiter.try_take(1, 0.0)
    places = [limiter.join(1, 0.0, None) for _ in range(3)]
    limiter.push_back(30.0)
    limiter.advance(1.0)
    assert not limiter.in_time(places[0], 1.0, 5.0) and not limiter.in_time(places[2], 1.0, 5.0)
    assert limiter.in_time(places[2], 1.0, 40.0)
    assert [place.at for place in places] == pytest.approx([30, 2, 32])


def test_who_waits_for_what_the_server_allows_looks_again_when_that_changes() -> None:
    limiter = Limiter(10, 1.0, 1)
    limiter.try_take(1, 0.0)
    places = [limiter.join(1, 0.0, None) for _ in range(3)]
    limiter.allow(2, 10.0, 0.05, 60.0)
    assert limiter.advance(0.1) == [places[0]]
    assert limiter.in_time(places[2], 0.2, 30.0)
    assert (places[1].at, places[2].at) == (pytest.approx(10.05), pytest.approx(10.05))
    assert not limiter.in_time(places[2], 0.2, 10.0)


# -- what the server allows --------------------------------------------------------------------------------------


def test_half_of_what_remains_goes_at_once_and_the_other_half_evenly() -> None:
    limiter = Limiter(1000, 1.0, 1000)
    limiter.allow(10, 5.0, 100.0, 60.0)
    assert [limiter.try_take(1, 100.0) is not None for _ in range(6)] == [True] * 5 + [False]
    assert [limiter.join(1, 100.0, None).at for _ in range(6)] == pytest.approx([101, 102, 103, 104, 105, 105])
    limiter.advance(104.9)
    assert limiter.queued == 2  # nine have gone, and it was all the time
    assert len(limiter.advance(105.0)) == 2
    assert limiter.try_take(1, 105.0) is not None  # the limit is reset, and the own rate alone holds


@settings(max_examples=often(100), deadline=None)
@given(st.integers(1, 30), st.integers(1, 200), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=30))
def test_never_more_than_remain_until_the_reset(remaining: int, reset: int, moves: list[tuple[int, int]]) -> None:
    limiter = Limiter(1000, 1.0, 1000)
    now = 0.0
    limiter.allow(remaining, float(reset), now, math.inf)
    went: list[tuple[float, int]] = []
    for pause, calls in moves:
        now += pause
        for _ in range(calls):
            ticket = limiter.try_take(1, now)
            if ticket is not None:
                went.append((now, ticket))
        if calls == 3 and went and went[-1][0] == now < reset:
            limiter.give_back(went.pop()[1], 1, now, unsent=True)
    before = sum(at < reset for at, _ in went)
    assert before <= remaining
    # Not a call less than the line allows, at any of the moments that anybody asked.
    assert before == 0 or limiter.when(1, min(now, reset)) <= max(now, reset) + SLACK


def test_nothing_left_is_a_pause() -> None:
    limiter = Limiter(10, 1.0, 10)
    limiter.allow(0, 7.0, 100.0, 60.0)
    assert limiter.when(1, 100.0) == 107.0


def test_no_word_is_believed_for_longer_than_the_longest() -> None:
    limiter = Limiter(10, 1.0, 10)
    limiter.allow(0, 1e9, 100.0, 60.0)
    assert limiter.when(1, 100.0) == 160.0
    limiter = Limiter(10, 1.0, 10)
    limiter.allow(1, 1e9, 100.0, 60.0)
    assert limiter.try_take(1, 100.0) is not None and limiter.when(1, 100.0) == 160.0


def test_a_ticket_from_before_gives_nothing_back_to_what_the_server_allows_now() -> None:
    limiter = Limiter(10, 1.0, 10)
    before = limiter.try_take(1, 0.0)
    assert before is not None
    limiter.allow(2, 10.0, 0.0, 60.0)
    assert limiter.try_take(1, 0.0) is not None
    limiter.give_back(before, 1, 0.0, unsent=True)
    assert limiter.when(1, 0.0) == pytest.approx(10)


def test_at_rest() -> None:
    limiter = Limiter(1, 1.0, 1)
    assert limiter.at_rest(0.0)
    limiter.try_take(1, 0.0)
    place = limiter.join(1, 0.0, None)
    assert not limiter.at_rest(5.0)  # somebody waits
    limiter.drop(place, 0.5)
    assert not limiter.at_rest(0.5) and limiter.at_rest(1.0)
    limiter.push_back(3.0)
    assert not limiter.at_rest(2.9) and limiter.at_rest(3.0)
    limiter.allow(5, 2.0, 3.0, 60.0)
    assert not limiter.at_rest(4.9) and limiter.at_rest(5.0)


def test_reset_forgets_what_went_and_what_was_said() -> None:
    limiter = Limiter(1, 1.0, 1)
    limiter.try_take(1, 0.0)
    limiter.push_back(50.0)
    waiter: Any = limiter.join(1, 0.0, None)
    limiter.reset()
    assert limiter.advance(0.0) == [waiter]


def test_a_charge_goes_before_those_who_wait() -> None:
    limiter = Limiter(1, 1.0, 1)
    ticket = limiter.charge(3, 10.0)
    assert limiter.when(1, 10.0) == pytest.approx(13.0)
    limiter.give_back(ticket, 1, 10.0)
    assert limiter.when(1, 10.0) == pytest.approx(12.0)


def test_what_the_own_rate_asks_for_is_not_held_back_by_the_server() -> None:
    limiter = Limiter(1, 1.0, 1)
    limiter.try_take(1, 0.0)
    assert not limiter.held_back(1, 0.5)
    limiter.join(1, 0.5, None)
    assert not limiter.held_back(1, 0.5)
    limiter.push_back(2.5)
    assert limiter.held_back(1, 0.5)


def test_who_waits_is_told_by_what_is_still_ahead() -> None:
    limiter = Limiter(1, 1.0, 2)
    limiter.try_take(2, 0.0)
    places = [limiter.join(2, 0.0, None) for _ in range(4)]
    assert limiter.advance(2.0) == [places[0]]
    assert limiter.in_time(places[2], 2.0, 10.0)
    assert [place.at for place in places] == pytest.approx([2, 4, 6, 8])
    assert limiter.advance(4.0) == [places[1]]
    assert limiter.in_time(places[3], 4.0, 10.0)
    assert [place.at for place in places] == pytest.approx([2, 4, 6, 8])
    assert not limiter.in_time(places[1], 10.0, 10.0)


def test_who_waits_for_the_server_is_told_by_what_is_still_ahead() -> None:
    limiter = Limiter(1000, 1.0, 1000)
    limiter.allow(10, 5.0, 100.0, 60.0)
    for _ in range(5):
        limiter.try_take(1, 100.0)
    places = [limiter.join(1, 100.0, None) for _ in range(4)]
    assert limiter.advance(101.0) == [places[0]]
    assert limiter.in_time(places[2], 101.0, 200.0)
    assert [place.at for place in places] == pytest.approx([101, 102, 103, 104])


def test_what_was_granted_and_not_used_goes_back_to_what_the_server_allows() -> None:
    limiter = Limiter(1000, 1.0, 1000)
    limiter.allow(4, 10.0, 0.0, 60.0)
    assert [limiter.try_take(1, 0.0) is not None for _ in range(3)] == [True, True, False]
    place = limiter.join(1, 0.0, None)
    assert limiter.advance(5.0) == [place]
    assert limiter.when(1, 5.0) == pytest.approx(10)
    limiter.drop(place, 5.0)
    assert limiter.when(1, 5.0) == 5.0


def test_half_of_an_odd_number_goes_at_once() -> None:
    allowance = Allowance(5, 6.0, 100.0, 160.0, 0)
    assert [allowance.earliest(number) for number in range(1, 6)] == [-math.inf, -math.inf, 102.0, 104.0, 106.0]


def test_the_next_line_begins_anew() -> None:
    limiter = Limiter(1, 1.0, 2)
    limiter.try_take(2, 0.0)
    place = limiter.join(2, 0.0, None)
    assert limiter.advance(2.0) == [place]
    places = [limiter.join(2, 2.0, name) for name in "ab"]
    assert [place.owner for place in places] == ["a", "b"]
    assert limiter.in_time(places[1], 2.0, 20.0)
    assert [place.at for place in places] == pytest.approx([4, 6])


def test_the_next_line_begins_anew_for_the_server_too() -> None:
    limiter = Limiter(1000, 1.0, 1000)
    limiter.allow(10, 5.0, 100.0, 60.0)
    for _ in range(5):
        limiter.try_take(1, 100.0)
    place = limiter.join(1, 100.0, None)
    assert limiter.advance(101.0) == [place]
    places = [limiter.join(1, 101.0, None) for _ in range(2)]
    assert limiter.in_time(places[1], 101.0, 200.0)
    assert [place.at for place in places] == pytest.approx([102, 103])


def test_what_went_has_used_what_the_server_allows_whatever_it_cost() -> None:
    limiter = Limiter(1000, 1.0, 1000)
    limiter.allow(4, 10.0, 0.0, 60.0)
    tickets = [limiter.try_take(1, 0.0) for _ in range(2)]
    assert tickets[0] is not None
    limiter.give_back(tickets[0], 1, 0.0)
    assert limiter.when(1, 0.0) == pytest.approx(5)


def test_a_level_that_was_lowered_is_the_lowest_for_those_before_it_too() -> None:
    meter = Meter(1.0, 1.0, 100)
    first = meter.take(10, 0.0)
    meter.take(1, 3.75)  # at a level of 6.25
    third = meter.take(2, 4.5)  # 6.5
    meter.take(1, 5.0)  # 8, and 6 without the third
    meter.give_back(third, 2)
    meter.give_back(first, 10)
    assert meter.tat == 14 - 2 - 6


def test_a_level_that_was_lowered_leaves_those_that_were_lower_still() -> None:
    meter = Meter(1.0, 1.0, 100)
    meter.take(10, 0.0)
    second = meter.take(12, 9.0)  # at a level of 1
    third = meter.take(2, 15.5)  # 6.5
    meter.take(1, 16.0)  # 8, and 6 without the third
    meter.give_back(third, 2)
    meter.give_back(second, 12)
    assert meter.tat == 25 - 2 - 6


def test_of_too_many_low_levels_every_other_moment_is_forgotten() -> None:
    meter = Meter(1.0, 1.0, 1e6)
    meter.take(1000, 0.0)
    levels = {meter.take(1, 0.0): 1000.0 + number for number in range(64)}
    assert meter._marks == list(levels.items())
    last = meter.take(1, 0.0)
    first = min(levels)
    assert meter._marks == [*((ticket + 1, levels[ticket]) for ticket in range(first, last, 2)), (last, 1064.0)]
