"""Who is let in: slots are kept, ranks are kept, and the limit follows what the server can do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from resilient.core.admission import SHARES, Admission, OwnLimit
from resilient.core.codel import Line
from resilient.core.limiter import FAILED, Seen

from ..thorough import often

RANKS = range(4)


def lines() -> list[Line]:
    return [Line(0.1, 0.1, 0.005), Line(0.1, 0.1, 0.005), Line(1.0, 1.0, 0.1), Line(1.0, 1.0, 0.1)]


def admission(limit: int = 10, queue: int = 100, streams: int = 2, most: int = 1000) -> Admission:
    return Admission(OwnLimit(initial=limit, least=1, most=most, queue=2), lines(), queue=queue, streams=streams)


def filled(rank: int = 3, **settings: Any) -> Admission:
    made = admission(**settings)
    filled_up(made, rank)
    return made


def filled_up(made: Admission, rank: int) -> int:
    for _ in range(10_000):
        if not made.enter(rank):
            return made.in_flight
    raise AssertionError("there is no end of slots")


@pytest.mark.parametrize(("rank", "share"), list(enumerate(SHARES)))
def test_a_rank_fills_its_share(rank: int, share: float) -> None:
    assert filled(rank, limit=100).in_flight == 100 * share


def test_what_matters_more_finds_a_slot_where_the_others_have_filled_theirs() -> None:
    made = filled(0)
    assert made.in_flight == 7
    assert not made.enter(0) and made.enter(1) and not made.enter(1) and made.enter(2) and not made.enter(2) and made.enter(3)


def test_even_the_least_limit_lets_everybody_in() -> None:
    for rank in RANKS:
        assert admission(limit=1).enter(rank)


def test_who_waits_is_let_in_by_rank_and_then_by_turn() -> None:
    made = filled()
    waiting = [("a", 0), ("b", 2), ("c", 3), ("d", 2), ("e", 1)]
    entries = {name: [name] for name, _ in waiting}
    for name, rank in waiting:
        assert made.join(entries[name], rank, 10.0) is None
    for _ in range(10):
        made.release()
    assert made.grant(2) == [["c"], ["b"]]
    assert made.grant(9) == [["d"], ["e"], ["a"]]
    assert made.queued == 0 and made.in_flight == 5


def test_nobody_overtakes_his_equal() -> None:
    made = filled()
    made.join(["first"], 2, 10.0)
    made.release()
    made.release()
    assert not made.enter(2) and not made.enter(1)
    assert made.enter(3)


def test_in_a_full_queue_the_last_of_the_lowest_makes_room() -> None:
    made = filled(queue=2)
    low, lower, high = ["low"], ["lower"], ["high"]
    assert made.join(low, 1, 10.0) is None
    assert made.join(lower, 0, 10.0) is None
    assert made.join(["x"], 0, 10.0) == ("full", ["x"])
    assert made.join(high, 2, 10.0) == ("displaced", lower)
    assert made.join(["again"], 2, 10.0) == ("displaced", low)
    assert made.join(["too many"], 2, 10.0) == ("full", ["too many"])
    assert made.queued == 2


def test_without_a_queue_nobody_waits() -> None:
    assert filled(queue=0).join(["x"], 3, 10.0) == ("full", ["x"])


def test_who_would_stand_in_a_standing_line_of_milliseconds_is_told_at_once() -> None:
    made = filled()
    made.join(["first"], 0, 10.0)
    made.join(["critical"], 2, 10.0)
    assert made.join(["x"], 0, 10.11) == ("standing", ["x"])
    assert made.join(["y"], 1, 10.11) is None  # its line is another
    assert made.join(["z"], 2, 11.0) is None
    assert made.patience(0, 10.05) == 0.1 and made.patience(0, 10.11) == 0.005


def test_twenty_milliseconds_are_worth_waiting_for_also_in_a_standing_line() -> None:
    law = OwnLimit(initial=1, least=1, most=1)
    made = Admission(law, [Line(0.1, 0.1, 0.02)], [1.0], queue=10, streams=0)
    assert made.enter(0) and made.join(["first"], 0, 10.0) is None
    assert made.patience(0, 10.2) == 0.02
    assert made.join(["second"], 0, 10.2) is None


def test_who_has_waited_for_too_long_is_swept_out() -> None:
    made = filled()
    assert made.sweep(10.0) == []
    made.join(["sheddable"], 0, 10.0)
    made.join(["critical"], 2, 10.0)
    assert made.sweep(10.05) == []
    assert made.sweep(10.11) == [["sheddable"]]
    assert made.sweep(10.9) == []
    assert made.sweep(11.2) == [["critical"]]
    assert made.queued == 0


def test_streams_have_places_of_their_own() -> None:
    made = filled()
    assert made.open_stream() and made.open_stream() and not made.open_stream()
    made.close_stream()
    assert made.open_stream() and not made.open_stream()
    made.close_stream()
    made.close_stream()
    assert made.open_streams == 0


@pytest.mark.parametrize(
    ("give_back", "message"),
    [("release", "a slot was released that nobody had taken"), ("close_stream", "a stream was closed that nobody had opened")],
)
def test_what_nobody_has_cannot_be_given_back(give_back: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"^{message}$"):
        getattr(admission(), give_back)()


def test_there_is_a_line_for_each_share() -> None:
    with pytest.raises(ValueError, match="lines"):
        Admission(OwnLimit(initial=10), lines()[:3], queue=1, streams=1)


@pytest.mark.parametrize(("settings", "name"), [({"queue": -1}, "queue"), ({"streams": -1}, "max_streams")])
def test_a_bad_setting_is_named(settings: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        admission(**settings)


# -- the limit --------------------------------------------------------------------------------------------------------


def taught(initial: int = 500) -> OwnLimit:
    """It knows that requests usually take 20 ms."""
    law = OwnLimit(initial=initial, least=4, most=1000, queue=2)
    for _ in range(20):
        law.weigh(Seen(0.02, 3), late=False)
    assert law.limit == initial
    return law


def test_a_late_loop_with_slow_requests_costs_what_is_not_needed_at_once() -> None:
    law = taught()
    law.weigh(Seen(0.2, 60), late=True)
    assert law.limit == int(1.5 * 60 * 0.02 / 0.2)  # Little's law, with the tolerance


def test_before_anything_is_usual_nothing_is_slow() -> None:
    law = OwnLimit(initial=500, least=4, most=1000, queue=2)
    for _ in range(3):
        law.weigh(Seen(0.2, 60), late=True)
    assert law.limit == 500


@pytest.mark.parametrize(("seconds", "limit"), [(0.75, 500), (0.9, 50)])
def test_what_is_within_the_tolerance_is_not_slow(seconds: float, limit: int) -> None:
    law = OwnLimit(initial=500, least=4, most=1000, queue=2)
    for _ in range(20):
        law.weigh(Seen(0.5, 3), late=False)
    law.weigh(Seen(seconds, 60), late=True)
    assert law.limit == limit


def test_it_never_falls_below_the_least() -> None:
    law = taught()
    for _ in range(20):
        law.weigh(Seen(2.0, 5), late=True)
    assert law.limit == 4


def test_nor_at_once_below_what_may_queue_twice() -> None:
    law = OwnLimit(initial=500, least=1, most=1000, queue=8)
    for _ in range(20):
        law.weigh(Seen(0.02, 3), late=False)
    law.weigh(Seen(2.0, 5), late=True)
    assert law.limit == 16


def test_as_long_as_the_loop_is_late_the_limit_does_not_double() -> None:
    law = taught()
    law.weigh(Seen(0.2, 60), late=True)
    assert law.limit == 9
    law.weigh(Seen(0.02, 9), late=True)
    assert 9 <= law.limit < 18


def test_slowness_alone_is_that_of_a_dependency() -> None:
    law = taught()
    for _ in range(50):
        law.weigh(Seen(2.0, 200), late=False)
    assert law.limit == 500


def test_lateness_alone_is_that_of_somebody_else() -> None:
    law = taught()
    for _ in range(50):
        law.weigh(Seen(0.025, 200), late=True)
    assert law.limit == 500


def test_once_the_loop_is_on_time_the_limit_doubles_while_it_is_needed() -> None:
    law = taught()
    law.weigh(Seen(0.2, 60), late=True)
    law.weigh(Seen(0.02, 1), late=False)
    assert law.limit == 9  # nobody needs more
    seen = []
    for _ in range(6):
        law.weigh(Seen(0.02, law.limit), late=False)
        seen.append(law.limit)
    assert seen[-1] >= 250 and seen == sorted(seen)


def test_what_is_steered_by_is_a_window_of_samples() -> None:
    made = admission(limit=500)
    for window in range(5):
        for _ in range(20):
            made.samples.add(0.02, 3)
        made.steer(10.0 + window, late=False)
    for _ in range(20):
        made.samples.add(0.2, 60)
    made.samples.add(FAILED, 60)
    made.steer(16.0, late=True)
    assert made.limit == 9
    made.steer(16.01, late=True)
    assert filled_up(made, 0) == 7  # ceil(9 * 0.7): the shares follow
    made.clear()
    assert made.limit == 500


def test_what_a_new_limit_does_is_judged_two_round_trips_later() -> None:
    made = admission()
    for _ in range(20):
        made.samples.add(1.0, 3)
    made.steer(10.0, late=False)
    for _ in range(20):
        made.samples.add(1.0, 3)
    assert not made.samples.over(11.9) and made.samples.over(12.0)


# -- everything at once -----------------------------------------------------------------------------------------------


class Server(RuleBasedStateMachine):
    """Requests come, wait, leave, are granted, swept out, and end, in any order, while the limit moves."""

    inside: Bundle[Any] = Bundle("inside")
    waiting: Bundle[Any] = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.made = admission(limit=5, queue=6)
        self.now = 100.0
        self.taken = 0
        self.line: dict[int, tuple[Any, int]] = {}

    @rule(target=inside, rank=st.sampled_from(RANKS))
    def enter(self, rank: int) -> Any:
        before = self.made.in_flight
        if not self.made.enter(rank):
            assert before >= self.made.law.limit * SHARES[rank] or any(other >= rank for _, other in self.line.values())
            return None
        assert before + 1 <= self.made.limit
        assert not any(other >= rank for _, other in self.line.values())
        self.taken += 1
        return object()

    @rule(rank=st.sampled_from(RANKS))
    def join(self, rank: int) -> None:
        entry = [rank]
        turned_away = self.made.join(entry, rank, self.now)
        if turned_away is not None:
            reason, who = turned_away
            if who is entry:
                assert reason in ("full", "standing")
                return
            assert reason == "displaced"
            assert self.line.pop(id(who))[1] < rank
        self.line[id(entry)] = entry, rank

    @rule(most=st.integers(1, 4))
    def grant(self, most: int) -> None:
        granted = self.made.grant(most)
        assert len(granted) <= most
        for entry in granted:
            rank = self.line.pop(id(entry))[1]
            assert not any(other > rank for _, other in self.line.values())
            self.taken += 1
        if granted:
            assert self.made.in_flight <= self.made.limit

    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        if self.line:
            key = data.draw(st.sampled_from(sorted(self.line)))
            entry, rank = self.line.pop(key)
            assert self.made.leave(entry, rank)
            assert not self.made.leave(entry, rank)

    @rule()
    def release(self) -> None:
        if self.taken:
            self.taken -= 1
            self.made.release()

    @rule(seconds=st.floats(0.001, 0.5))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for entry in self.made.sweep(self.now):
            del self.line[id(entry)]

    @rule(rtt=st.floats(0.001, 1.0), late=st.booleans())
    def steer(self, rtt: float, late: bool) -> None:
        for _ in range(12):
            self.made.samples.add(rtt, max(self.made.in_flight, 1))
        self.made.steer(self.now, late)

    @invariant()
    def slots_are_kept(self) -> None:
        assert self.made.in_flight == self.taken
        assert self.made.queued == len(self.line) <= self.made.queue
        assert 1 <= self.made.limit <= 1000


Server.TestCase.settings = settings(max_examples=often(60), stateful_step_count=40, deadline=None)
TestServer = pytest.mark.slow(Server.TestCase)
