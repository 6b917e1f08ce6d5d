"""What flows from a request to every call made for it: the deadline, the criticality, the record."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import Criticality, Deadline, DeadlineExceeded, Dependency, Timeout, current_criticality, current_deadline
from resilient.context import RECORD, criticality, current_partition, current_record, deadline_scope, partition
from resilient.core.degradation import DegradationRecord
from resilient.testing import FakeClock


def test_a_deadline_counts_down_on_its_clock(clock: FakeClock) -> None:
    deadline = Deadline.after(2, clock)
    assert deadline.remaining == pytest.approx(2) and not deadline.expired and not deadline.inbound
    clock.advance(1.5)
    assert repr(deadline) == "<Deadline +0.500 s>"
    clock.advance(0.5)
    assert deadline.expired
    clock.advance(1)
    assert deadline.remaining == pytest.approx(-1) and repr(deadline) == "<Deadline -1.000 s>"


def test_without_a_clock_it_is_the_systems() -> None:
    assert 1.9 < Deadline.after(2).remaining <= 2
    assert Deadline.after(math.inf).remaining == math.inf


@pytest.mark.parametrize("seconds", ["2", None, True, math.nan])
def test_seconds_are_a_number(seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="^seconds"):
        Deadline.after(seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("at", value) for value in ("2", None, True, math.nan, [], 2j)),
        *(("clock", value) for value in (None, 5, "now", math)),
        *(("inbound", value) for value in (None, 1, "yes")),
    ],
)
def test_what_a_deadline_is_not_made_of_is_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Deadline(**{"at": 2.0, name: value})
    if name == "clock":
        with pytest.raises(TypeError, match="^clock"):
            Deadline.after(2, value)


@pytest.mark.parametrize("at", [0, -1.5, 10**9, math.inf, -math.inf])
def test_any_moment_will_do(at: float) -> None:
    assert Deadline(at).at == at


def test_a_scope_is_entered_and_left(clock: FakeClock) -> None:
    assert current_deadline() is None
    with deadline_scope(Deadline.after(2, clock)) as outer:
        assert current_deadline() is outer
        with pytest.raises(KeyError), deadline_scope(Deadline.after(1, clock)) as inner:
            assert current_deadline() is inner
            raise KeyError
        assert current_deadline() is outer
    assert current_deadline() is None


def test_an_inner_scope_can_only_shorten(clock: FakeClock) -> None:
    with deadline_scope(Deadline.after(1, clock)) as outer, deadline_scope(Deadline.after(5, clock)) as inner:
        assert inner is outer and current_deadline() is outer


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 100), st.floats(0, 10)), max_size=8))
def test_deadlines_only_ever_come_nearer(steps: list[tuple[bool, float, float]]) -> None:
    """Scopes and calls within each other, in any order, with time passing in between: whoever is inside has no more time."""
    clock = FakeClock()
    seen = [math.inf]

    def go_in(steps: list[tuple[bool, float, float]]) -> None:
        now = current_deadline()
        seen.append(math.inf if now is None else now.at)
        if not steps:
            return
        (is_call, seconds, pause), *further = steps
        clock.advance(pause)
        if is_call:
            Dependency("dep", Timeout(total=seconds), clock=clock).call_sync(go_in, further)
        else:
            with deadline_scope(Deadline.after(seconds, clock)):
                go_in(further)

    try:
        go_in(steps)
    except DeadlineExceeded:
        assert current_deadline() is None
    assert all(inside <= outside for outside, inside in itertools.pairwise(seen))
    assert len(seen) == 2 or max(seen[2:]) < math.inf


@pytest.mark.parametrize("deadline", [2, None, "2 s"])
def test_a_scope_takes_a_deadline(deadline: Any) -> None:
    with pytest.raises(TypeError, match="^deadline"), deadline_scope(deadline):
        pass


def test_criticality_is_ordered_and_critical_unless_said_otherwise() -> None:
    assert list(Criticality) == sorted(Criticality)
    assert current_criticality() is Criticality.CRITICAL
    with criticality(Criticality.SHEDDABLE):
        assert current_criticality() is Criticality.SHEDDABLE < Criticality.CRITICAL_PLUS
    assert current_criticality() is Criticality.CRITICAL


@pytest.mark.parametrize("member", list(Criticality))
def test_criticality_by_its_name(member: Criticality) -> None:
    name: Any = member.name.lower()
    assert Criticality.of(name) is Criticality.of(member) is member
    with criticality(name):
        assert current_criticality() is member


@pytest.mark.parametrize(("value", "kind"), [(2, TypeError), (None, TypeError), ("important", ValueError), ("SHEDDABLE", ValueError)])
def test_criticality_is_one_of_four(value: Any, kind: type[Exception]) -> None:
    message = f"value: expected a Criticality or one of sheddable, sheddable_plus, critical, critical_plus, got {value!r}"
    with pytest.raises(kind) as raised, criticality(value):
        pass
    assert str(raised.value) == message


def test_the_record_of_the_request() -> None:
    assert current_record() is None
    record = DegradationRecord()
    token = RECORD.set(record)
    assert current_record() is record
    RECORD.reset(token)
    assert current_record() is None


def test_it_flows_into_tasks_and_threads_that_are_started_inside(clock: FakeClock) -> None:
    seen: list[Any] = []

    async def task() -> None:
        seen.append(current_deadline())

    async def main() -> None:
        with deadline_scope(Deadline.after(2, clock)) as deadline:
            started = asyncio.create_task(task())
            await asyncio.to_thread(lambda: seen.append(current_deadline()))
        await started  # after the scope was left: it had its context from the start
        assert seen == [deadline, deadline]
        assert current_deadline() is None

    asyncio.run(main())


def test_it_does_not_flow_into_a_bare_thread_or_another_context(clock: FakeClock) -> None:
    seen: list[Any] = []
    with deadline_scope(Deadline.after(2, clock)):
        thread = threading.Thread(target=contextvars.Context().run, args=(lambda: seen.append(current_deadline()),))
        thread.start()
        thread.join()
    assert seen == [None]


def test_a_partition_is_in_force_inside() -> None:
    assert current_partition() is None
    with partition("tenant-7"):
        assert current_partition() == "tenant-7"
        with partition("tenant-8"):
            assert current_partition() == "tenant-8"
        with partition(None):
            assert current_partition() is None
        assert current_partition() == "tenant-7"
    assert current_partition() is None


@pytest.mark.parametrize("value", [7, b"tenant", "", "x" * 201, True])
def test_a_partition_is_a_word(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="^value"), partition(value):
        pass
