from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilient.core.bulkhead import Slots

from ..thorough import often


class Waiter:
    """All waiters are equal and none has a hash: only identity tells them apart."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Waiter)


class Line(RuleBasedStateMachine):
    """Slots against a list of holders and a list of waiters."""

    @initialize(limit=st.integers(1, 4), queue=st.integers(0, 5))
    def begin(self, limit: int, queue: int) -> None:
        self.slots = Slots(limit, queue, standing_after=1.0, standing_wait=0.25)
        self.limit, self.queue = limit, queue
        self.holding = 0
        self.waiting: list[Waiter] = []
        self.granted: list[Waiter] = []
        self.now = 50.0
        self.last_empty = 50.0

    def settle(self) -> None:
        if not self.waiting:
            self.last_empty = self.now

    @rule(eighths=st.integers(0, 12))
    def time_passes(self, eighths: int) -> None:
        self.settle()
        self.now += eighths / 8
        self.settle()

    @rule()
    def somebody_comes(self) -> None:
        self.settle()
        free = self.holding < self.limit and not self.waiting
        assert self.slots.try_acquire() is free
        if free:
            self.holding += 1
            return
        standing = bool(self.waiting) and self.now - self.last_empty >= 1.0
        assert self.slots.wait_limit(self.now, 5.0) == (0.25 if standing else 5.0)
        waiter = Waiter()
        assert self.slots.enqueue(waiter, self.now) is (len(self.waiting) < self.queue)
        if len(self.waiting) < self.queue:
            self.waiting.append(waiter)

    @precondition(lambda self: self.granted)
    @rule()
    def a_woken_waiter_goes_on(self) -> None:
        self.granted.pop()

    @precondition(lambda self: self.holding > len(self.granted))
    @rule()
    def somebody_goes(self) -> None:
        woken = self.slots.release(self.now)
        if self.waiting and self.holding <= self.limit:
            oldest = self.waiting.pop(0)
            assert woken is oldest
            self.granted.append(oldest)
        else:
            assert woken is None
            self.holding -= 1

    @precondition(lambda self: not self.holding)
    @rule()
    def nobody_can_go(self) -> None:
        with pytest.raises(RuntimeError):
            self.slots.release(self.now)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_waiter_gives_up(self, data: st.DataObject) -> None:
        waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.slots.leave(waiter) is True

    @precondition(lambda self: self.granted)
    @rule()
    def a_waiter_gives_up_too_late(self) -> None:
        assert self.slots.leave(self.granted.pop()) is False
        self.somebody_goes()

    @rule(limit=st.integers(1, 5))
    def the_limit_changes(self, limit: int) -> None:
        self.limit = limit
        granted = self.slots.resize(limit)
        expected = self.waiting[: max(0, limit - self.holding)]
        assert [id(waiter) for waiter in granted] == [id(waiter) for waiter in expected]
        del self.waiting[: len(expected)]
        self.granted += expected
        self.holding += len(expected)

    @invariant()
    def the_counts_agree(self) -> None:
        if not hasattr(self, "slots"):
            return
        assert (self.slots.in_use, self.slots.queued) == (self.holding, len(self.waiting))
        assert self.slots.limit == self.limit
        # Nobody waits in front of a free slot.
        assert not self.waiting or self.holding >= self.limit


TestLine = pytest.mark.slow(Line.TestCase)
TestLine.settings = settings(max_examples=often(60), stateful_step_count=40, deadline=None)


def full(limit: int = 1, **settings: Any) -> Slots:
    slots = Slots(limit, **settings)
    while slots.try_acquire():
        pass
    return slots


def test_the_defaults() -> None:
    slots = Slots()
    assert (slots.limit, slots.queue, slots.standing_after, slots.standing_wait) == (100, 1000, 1.0, 0.05)


def test_a_burst_of_500_is_served_in_order() -> None:
    """100 at once, 400 in line, each of them with the whole wait."""
    slots = Slots()
    line: list[object] = []
    for _ in range(500):
        if slots.try_acquire():
            continue
        line.append(object())
        assert slots.wait_limit(0.0, 5.0) == 5.0
        assert slots.enqueue(line[-1], 0.0)
    assert (slots.in_use, slots.queued) == (100, 400)
    assert [slots.release(3.0) for _ in range(500)] == line + [None] * 100
    assert slots.in_use == 0


def test_who_joins_a_standing_line_may_not_wait_long() -> None:
    slots = full()
    slots.enqueue("first", 10.0)
    assert not slots.standing(10.999)
    assert slots.wait_limit(10.999, 5.0) == 5.0
    assert slots.standing(11.0)
    assert slots.wait_limit(11.0, 5.0) == 0.05
    assert slots.wait_limit(11.0, 0.01) == 0.01
    # Served and refilled, it stands all the same: it was never empty.
    slots.enqueue("second", 11.0)
    assert slots.release(11.0) == "first"
    assert slots.wait_limit(11.5, 5.0) == 0.05
    # Once empty it is a burst again.
    assert slots.leave("second")
    assert not slots.standing(11.5)
    slots.enqueue("third", 20.0)
    assert slots.wait_limit(20.5, 5.0) == 5.0


def test_a_full_line_refuses() -> None:
    slots = full(queue=2)
    assert [slots.enqueue(object(), 0.0) for _ in range(3)] == [True, True, False]
    assert slots.queued == 2
    assert not full(queue=0).enqueue(object(), 0.0)


def test_nobody_overtakes() -> None:
    slots = full()
    slots.enqueue("first", 0.0)
    assert slots.release(0.0) == "first"
    assert not slots.try_acquire()
    assert slots.release(0.0) is None
    assert slots.try_acquire()


def test_pitfall_04_a_cancelled_waiter_takes_no_capacity_along() -> None:
    slots = full(limit=2)
    for cancelled in range(100):
        waiter = object()
        slots.enqueue(waiter, 0.0)
        if cancelled % 2:
            # Cancelled while it waited.
            assert slots.leave(waiter)
        else:
            # Cancelled after a slot was handed to it: it owns one.
            assert slots.release(0.0) is waiter
            assert not slots.leave(waiter)
            assert slots.release(0.0) is None
            assert slots.try_acquire()
    assert (slots.in_use, slots.queued) == (2, 0)


def test_pitfall_04_a_slot_is_not_released_twice() -> None:
    slots = full(limit=1)
    slots.release(0.0)
    with pytest.raises(RuntimeError, match="^a slot was released that nobody had acquired$"):
        slots.release(0.0)
    assert sum(slots.try_acquire() for _ in range(50)) == 1


def test_fewer_slots_take_none_away() -> None:
    slots = full(limit=3)
    slots.enqueue("first", 0.0)
    assert slots.resize(1) == []
    assert slots.release(0.0) is None
    assert slots.release(0.0) is None
    assert slots.in_use == 1
    assert slots.release(0.0) == "first"


def test_more_slots_are_handed_out_at_once() -> None:
    slots = full(limit=1)
    for name in ("first", "second", "third"):
        slots.enqueue(name, 0.0)
    assert slots.resize(3) == ["first", "second"]
    assert (slots.in_use, slots.queued) == (3, 1)


def test_misuse_is_an_error() -> None:
    slots = Slots(1)
    with pytest.raises(RuntimeError, match="^a slot is free: acquire it instead of waiting$"):
        slots.enqueue("first", 0.0)
    slots.try_acquire()
    slots.enqueue("first", 0.0)
    with pytest.raises(RuntimeError, match="^this waiter is in the line already$"):
        slots.enqueue("first", 0.0)
    assert not slots.leave("a stranger")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"queue": -1}, "queue"),
        ({"standing_after": -1}, "standing_after"),
        ({"standing_wait": math.nan}, "standing_wait"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Slots(**values)
    with pytest.raises(ValueError, match="limit must be"):
        Slots().resize(0)
