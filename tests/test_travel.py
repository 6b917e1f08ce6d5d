"""Context in tasks, threads, executors and the payloads of jobs."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import Criticality, Deadline, DeadlineExceeded, Dependency, current_criticality, current_deadline
from resilient.context import (
    Trace,
    carry,
    criticality,
    current_partition,
    current_trace,
    deadline_scope,
    dump,
    ignored_fields,
    load,
    partition,
    travel,
)
from resilient.testing import FakeClock

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = Trace(PARENT, "vendor=1")


def seen() -> tuple[float, Criticality, Trace | None]:
    """The context, as it can be told to another process."""
    deadline = current_deadline()
    return math.inf if deadline is None else round(deadline.remaining, 3), current_criticality(), current_trace()


# -- tasks and threads ------------------------------------------------------------------------------------------------


async def in_a_task(work: Callable[[], Any]) -> Any:
    async def task() -> Any:
        return work()

    return await asyncio.create_task(task())


async def in_a_nursery(work: Callable[[], Any]) -> Any:
    got = []

    async def task() -> None:
        got.append(work())

    async with anyio.create_task_group() as group:
        group.start_soon(task)
    return got[0]


async def in_a_carried_thread(work: Callable[[], Any]) -> Any:
    got: list[Any] = []
    carried = carry(work)
    thread = threading.Thread(target=lambda: got.append(carried()))
    thread.start()
    while thread.is_alive():
        await anyio.sleep(0.001)
    return got[0]


async def in_a_carried_executor(work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, carry(work))


async def in_a_task_started_from_a_carried_thread(work: Callable[[], Any]) -> Any:
    async def task() -> Any:
        return work()

    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(task(), loop).result(10))


WAYS: dict[str, list[Callable[..., Any]]] = {
    "asyncio": [
        in_a_task,
        in_a_nursery,
        asyncio.to_thread,
        anyio.to_thread.run_sync,
        in_a_carried_thread,
        in_a_carried_executor,
        in_a_task_started_from_a_carried_thread,
    ],
    "trio": [in_a_nursery, anyio.to_thread.run_sync, in_a_carried_thread],
}


@pytest.mark.parametrize(("backend", "way"), [(backend, way) for backend, ways in WAYS.items() for way in ways])
def test_it_is_there(backend: str, way: Callable[..., Any]) -> None:
    async def main() -> Any:
        clock = FakeClock()
        with deadline_scope(Deadline.after(2, clock)), criticality(Criticality.SHEDDABLE), load(job(traceparent=PARENT)):
            return await way(seen)

    remaining, value, trace = anyio.run(main, backend=backend)
    assert (remaining, value) == (2, Criticality.SHEDDABLE) and trace is not None and trace.parent == PARENT


def test_executors_do_not_inherit_it_by_themselves() -> None:
    async def main() -> Any:
        with deadline_scope(Deadline.after(2, FakeClock())):
            return await asyncio.get_running_loop().run_in_executor(None, seen)

    assert asyncio.run(main())[0] == math.inf


def test_a_carried_deadline_bounds_the_calls_made_in_the_thread() -> None:
    clock = FakeClock()
    shop = Dependency("shop", timeout=30, clock=clock)
    with deadline_scope(Deadline.after(2, clock)):
        work = carry(lambda: shop.call_sync(clock.advance, 5))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
        assert shop.stats.snapshot().counts["failure"] == 1  # it came late
        with pytest.raises(DeadlineExceeded):
            pool.submit(work).result()


def test_one_carried_function_in_many_threads_at_once() -> None:
    """Each in a context of its own: what one sets the others do not see."""
    mine: ContextVar[int] = ContextVar("mine", default=0)
    together = threading.Barrier(8)

    def work(number: int) -> tuple[int, int]:
        before = mine.get()
        mine.set(number)
        together.wait(10)
        return before, mine.get()

    mine.set(100)
    carried = carry(work)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(carried, range(8))) == [(100, number) for number in range(8)]
    assert mine.get() == 100


def test_a_carried_function_is_called_as_it_was() -> None:
    def work(one: int, *, two: int) -> int:
        """Adds."""
        return one + two

    carried = carry(work)
    assert carried(1, two=2) == 3 and carried.__doc__ == "Adds." and carry(functools.partial(work, 1))(two=4) == 5
    with pytest.raises(TypeError):
        carried(1)  # type: ignore[call-arg]


class AsyncCallable:
    async def __call__(self) -> None: ...


async def coroutine() -> None: ...


async def generator() -> Any:
    yield


@pytest.mark.parametrize("fn", [coroutine, generator, AsyncCallable(), functools.partial(coroutine), 7, None])
def test_only_plain_functions_are_carried(fn: Any) -> None:
    with pytest.raises(TypeError, match="^fn: expected a plain function"):
        carry(fn)


# -- payloads ---------------------------------------------------------------------------------------------------------


def job(**fields: Any) -> dict[str, Any]:
    return {"v": 1, **fields}


def test_what_is_told_of(clock: FakeClock) -> None:
    with deadline_scope(Deadline.after(2.5, clock)), criticality(Criticality.SHEDDABLE_PLUS):
        payload = dump(trace=TRACE)
    assert abs(payload.pop("sent_at") - time.time()) < 5
    assert payload == {"v": 1, "remaining": 2.5, "criticality": "sheddable_plus", "traceparent": PARENT, "tracestate": "vendor=1"}


def test_without_anything_in_force() -> None:
    payload = dump()
    assert set(payload) == {"v", "criticality", "sent_at"} and payload["criticality"] == "critical"
    with deadline_scope(Deadline(math.inf)):
        assert "remaining" not in dump()


def test_a_job_that_may_outlive_its_request(clock: FakeClock) -> None:
    with deadline_scope(Deadline.after(2.5, clock)):
        payload = dump(deadline=False, trace=TRACE)
    assert "remaining" not in payload and payload["traceparent"] == PARENT


def test_a_deadline_that_has_passed_leaves_nothing(clock: FakeClock) -> None:
    with deadline_scope(Deadline.after(1, clock)):
        clock.advance(5)
        assert dump()["remaining"] == 0.0
    with load(job(remaining=0.0), clock=clock) as loaded:
        assert loaded.deadline is not None and loaded.deadline.expired
        with pytest.raises(DeadlineExceeded):
            Dependency("shop", clock=clock).call_sync(str)


def test_as_json_to_another_machine() -> None:
    """Whose clock shows something else: only the seconds that remain mean anything there."""
    here, there = FakeClock(start=1e9), FakeClock(start=5.0)
    with deadline_scope(Deadline.after(2, here)), criticality(Criticality.CRITICAL_PLUS):
        sent = json.dumps(dump(trace=TRACE))
    assert len(sent) < 400
    here.advance(100)
    with load(json.loads(sent), clock=there) as loaded:
        assert seen() == (2, Criticality.CRITICAL_PLUS, TRACE)
        assert loaded.deadline is current_deadline() and loaded.criticality is current_criticality() and loaded.trace == TRACE
        assert loaded.ignored == ()
    assert seen() == (math.inf, Criticality.CRITICAL, None)


def test_a_second_hop_tells_of_the_rest(clock: FakeClock) -> None:
    with load(job(remaining=3, traceparent=PARENT, tracestate="vendor=1", criticality="sheddable"), clock=clock):
        clock.advance(1)
        payload = dump()
    assert payload["remaining"] == 2 and payload["traceparent"] == PARENT
    assert (payload["tracestate"], payload["criticality"]) == ("vendor=1", "sheddable")


def test_it_is_left_again_whatever_happens(clock: FakeClock) -> None:
    with pytest.raises(KeyError), load(job(remaining=3, criticality="sheddable", traceparent=PARENT), clock=clock):
        raise KeyError
    assert seen() == (math.inf, Criticality.CRITICAL, None)


def test_a_payload_can_only_shorten(clock: FakeClock) -> None:
    with deadline_scope(Deadline.after(2, clock)):
        for remaining, left in ((60, 2), (1, 1)):
            with load(job(remaining=remaining)):
                assert seen()[0] == left  # read against the clock of the deadline that is in force


def test_the_systems_clock_by_default() -> None:
    with load(job(remaining=60)):
        assert 59 < seen()[0] <= 60


def test_no_payload_changes_nothing(clock: FakeClock) -> None:
    with deadline_scope(Deadline.after(2, clock)), criticality(Criticality.SHEDDABLE):
        for payload in (None, job()):
            with load(payload) as loaded:
                assert seen() == (2, Criticality.SHEDDABLE, None) and loaded.ignored == ()


# -- time in the queue ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent_at", "queue_time", "left"),
    [
        (990.0, None, 30.0),
        (990.0, "wall", 20.0),
        (900.0, "wall", 0.0),
        (1010.0, "wall", 30.0),  # sent in the future: a clock is wrong, and that lengthens nothing
        (None, "wall", 30.0),
    ],
)
def test_time_in_the_queue_counts_only_if_asked(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, sent_at: float | None, queue_time: Any, left: float
) -> None:
    monkeypatch.setattr(travel.time, "time", lambda: 1000.0)
    payload = job(remaining=30) | ({} if sent_at is None else {"sent_at": sent_at})
    with load(payload, queue_time=queue_time, clock=clock):
        assert seen()[0] == left


def test_queue_time_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="^queue_time: expected None or 'wall'"), load(None, queue_time="broker"):  # type: ignore[arg-type]
        pass


# -- garbage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "ignored"),
    [
        ("text", ("payload",)),
        ([1, 2], ("payload",)),
        (7, ("payload",)),
        ({}, ("v",)),
        ({"v": 2, "remaining": 1}, ("v",)),
        ({"v": "1", "remaining": 1}, ("v",)),
        (job(remaining="2"), ("remaining",)),
        (job(remaining=-1), ("remaining",)),
        (job(remaining=True), ("remaining",)),
        (job(remaining=math.nan), ("remaining",)),
        (job(remaining=math.inf), ("remaining",)),
        (job(remaining=10**400), ("remaining",)),
        (job(criticality="vital"), ("criticality",)),
        (job(criticality=["critical"]), ("criticality",)),
        (job(traceparent="x" * 10_000), ("traceparent",)),
        (job(traceparent=7, tracestate="a=1"), ("traceparent",)),
        (job(traceparent=PARENT.replace("00-", "ff-", 1)), ("traceparent",)),
        (job(traceparent=PARENT + "-more"), ("traceparent",)),
        (job(traceparent="00-" + "0" * 32 + PARENT[35:]), ("traceparent",)),
        (job(traceparent=PARENT[:36] + "0" * 16 + "-01"), ("traceparent",)),
        (job(traceparent=PARENT.upper()), ("traceparent",)),
        (job(traceparent=PARENT, tracestate="a" * 513), ("tracestate",)),
        (job(traceparent=PARENT, tracestate="a=\n1"), ("tracestate",)),
        (job(remaining=2, criticality=None, traceparent=None, other="unknown"), ()),
    ],
)
def test_garbage_is_left_out_and_counted(clock: FakeClock, payload: Any, ignored: tuple[str, ...]) -> None:
    before = ignored_fields()
    with load(payload, queue_time="wall", clock=clock) as loaded:
        assert loaded.ignored == ignored
        for field in ignored:
            assert {"remaining": loaded.deadline, "criticality": loaded.criticality, "traceparent": loaded.trace}.get(field) is None
    after = ignored_fields()
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == dict.fromkeys(ignored, 1)


def test_garbage_in_the_time_of_sending(clock: FakeClock) -> None:
    with load(job(remaining=2, sent_at="noon"), queue_time="wall", clock=clock) as loaded:
        assert loaded.ignored == ("sent_at",) and seen()[0] == 2


def test_a_later_version_of_a_traceparent_may_have_more() -> None:
    with load(job(traceparent="01" + PARENT[2:] + "-more")) as loaded:
        assert loaded.trace is not None


def test_a_trace_state_of_ours_is_bounded_too() -> None:
    assert "tracestate" not in dump(trace=Trace(PARENT, "a" * 513))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("v", "remaining", "criticality", "sent_at", "traceparent", "tracestate")
OF_OURS = st.fixed_dictionaries({"v": st.just(1)}, optional=dict.fromkeys(FIELDS[1:], JSON))
PAYLOADS = JSON | OF_OURS | st.dictionaries(st.sampled_from(FIELDS), JSON)


@given(
    payload=PAYLOADS,
    queue_time=st.sampled_from([None, "wall"]),
    outer=st.none() | st.floats(-10, 1e6),
)
def test_nothing_in_a_payload_raises_or_lengthens(payload: Any, queue_time: Any, outer: float | None) -> None:
    clock = FakeClock()
    with deadline_scope(Deadline.after(math.inf if outer is None else outer, clock)) as before:
        with load(payload, queue_time=queue_time, clock=clock):
            now = current_deadline()
            assert now is not None and now.at <= before.at
            assert isinstance(current_criticality(), Criticality)
        assert current_deadline() is before


@given(seconds=st.floats(0, 1e6), value=st.sampled_from(Criticality))
def test_what_is_dumped_is_loaded(seconds: float, value: Criticality) -> None:
    clock = FakeClock()
    with deadline_scope(Deadline.after(seconds, clock)), criticality(value):
        payload = json.loads(json.dumps(dump(trace=TRACE)))
    with load(payload, clock=clock) as loaded:
        assert loaded.deadline is not None and loaded.deadline.remaining == pytest.approx(seconds, abs=0.001)
        assert (loaded.criticality, loaded.trace, loaded.ignored) == (value, TRACE, ())


# -- OpenTelemetry ----------------------------------------------------------------------------------------------------


def test_a_span_is_told_of_and_found_again() -> None:
    otel = pytest.importorskip("opentelemetry.trace")
    context = otel.SpanContext(
        trace_id=0x0AF7651916CD43DD8448EB211C80319C,
        span_id=0xB7AD6B7169203331,
        is_remote=False,
        trace_flags=otel.TraceFlags(1),
        trace_state=otel.TraceState([("vendor", "1")]),
    )
    with otel.use_span(otel.NonRecordingSpan(context)):
        payload = json.loads(json.dumps(dump()))
    assert (payload["traceparent"], payload["tracestate"]) == (PARENT, "vendor=1")
    with load(payload):
        found = otel.get_current_span().get_span_context()
        assert (found.trace_id, found.span_id, found.is_remote) == (context.trace_id, context.span_id, True)
        assert current_trace() == TRACE
    assert not otel.get_current_span().get_span_context().is_valid


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import resilient.context.trace as module

    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    module._otel.cache_clear()
    try:
        with load(job(traceparent=PARENT, tracestate="vendor=1")):
            assert current_trace() == TRACE
            assert dump()["traceparent"] == PARENT
        assert current_trace() is None
    finally:
        module._otel.cache_clear()


# -- partitions -------------------------------------------------------------------------------------------------------


def test_a_job_is_of_the_partition_that_sends_it() -> None:
    assert "partition" not in dump()
    with partition("tenant-7"):
        payload = json.loads(json.dumps(dump()))
        assert carry(current_partition)() == "tenant-7"
    with load(payload) as loaded:
        assert loaded.partition == current_partition() == "tenant-7"
    assert current_partition() is None


def test_a_job_without_a_partition_changes_none() -> None:
    with partition("tenant-7"), load(job()) as loaded:
        assert loaded.partition is None and current_partition() == "tenant-7"


@pytest.mark.parametrize("value", [7, "", "x" * 201, ["a"], True])
def test_a_partition_that_is_no_word_is_left_out(value: Any) -> None:
    with load(job(partition=value)) as loaded:
        assert loaded.ignored == ("partition",) and loaded.partition is None and current_partition() is None
