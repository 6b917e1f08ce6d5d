"""What is not kept: exceptions, tracebacks, callers' locals, calls, pipelines, timestamps."""

from __future__ import annotations

import contextlib
import gc
import traceback
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient import Bulkhead, Chaos, CircuitBreaker, CircuitOpen, Fallback, Pipeline, ResilienceError, Retry, Timeout, standard
from resilient.core.backoff import Constant
from resilient.errors import BulkheadFull

from .driver import WORLDS, takes

AT_ONCE = Constant(0, jitter="none")


class Large:
    """A caller's local variable, or its argument."""


class Mine(KeyError):
    """An error that can be referred to weakly."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is free must be so at once: no cycle may wait for the collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def forced() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.open()
    return breaker


def broken(*args: Any) -> None:
    raise Mine


PIPELINES = {
    "open circuit": lambda: (Pipeline(forced()), int),
    "full bulkhead": lambda: (Pipeline(full()), int),
    "its own error": lambda: (Pipeline(*standard()), broken),
    "retried": lambda: (Pipeline(Retry(on=KeyError, backoff=AT_ONCE), CircuitBreaker(fail_max=10**6)), broken),
    "retried and rejected": lambda: (Pipeline(Retry(on=KeyError, backoff=AT_ONCE), CircuitBreaker(fail_max=1, reset_timeout=1e-6)), broken),
    "no time to start": lambda: (Pipeline(Timeout(total=1, min_useful=0.9999999)), int),
    "injected": lambda: (Pipeline(CircuitBreaker(fail_max=10**6), Chaos(rate=1, fault=Mine), chaos=True), int),
    "injected copy": lambda: (Pipeline(CircuitBreaker(fail_max=10**6), Chaos(rate=1, fault=Mine("x")), chaos=True), int),
    "injected hang": lambda: (Pipeline(Timeout(total=0.02), Chaos(rate=1, hang=True), chaos=True), int),
    "listened to": lambda: (Pipeline(CircuitBreaker(fail_max=10**6, listeners=[Deaf()])), broken),
}


class Deaf:
    def before_call(self, *args: Any, **kwargs: Any) -> None: ...

    success = failure = state_change = before_call


def full() -> Bulkhead:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    bulkhead._slots.try_acquire()
    return bulkhead


@pytest.mark.parametrize("case", PIPELINES)
def test_pitfall_10_nothing_pins_an_error_or_the_callers_locals(case: str, no_collector: None) -> None:
    pipeline, function = PIPELINES[case]()

    def caller() -> tuple[weakref.ref[Any], ...]:
        large = Large()
        try:
            pipeline.call_sync(function)
        except (ResilienceError, KeyError) as error:
            return weakref.ref(large), weakref.ref(error)
        raise AssertionError("it was to fail")

    references = caller()
    assert [reference() for reference in references] == [None, None]


def test_pitfall_10_the_same_for_a_cut_call(no_collector: None) -> None:
    world = WORLDS["asyncio"]()
    pipeline = world.pipeline(Timeout(total=1), Retry(on=TimeoutError, backoff=AT_ONCE))

    def caller() -> weakref.ref[Any]:
        error = world.fails(pipeline, takes(5))
        return weakref.ref(error)

    reference = caller()
    gc.collect()  # the event loop of the test has cycles of its own
    assert reference() is None


@pytest.mark.parametrize(("make", "kind"), [(forced, CircuitOpen), (full, BulkheadFull)])
def test_pitfall_10_no_error_is_raised_twice(make: Callable[[], Any], kind: type[ResilienceError]) -> None:
    pipeline = Pipeline(make())
    errors = []
    for _ in range(100):
        with pytest.raises(kind) as caught:
            pipeline.call_sync(int)
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 100
    depths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert len(depths) == 1  # and no traceback grows


def grown_by(act: Callable[[int], None], times: int) -> int:
    """Bytes that are still there after `act` was done so often, beyond what the first few hundred times needed."""
    act(300)
    gc.collect()
    tracemalloc.start()
    try:
        act(times)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_pitfall_10_ten_thousand_rejections_leave_nothing() -> None:
    pipeline = Pipeline(Fallback("instead"), Timeout(total=30), Retry(on=Exception), forced())

    def reject(times: int) -> None:
        for _ in range(times):
            assert pipeline.call_sync(int) == "instead"

    assert grown_by(reject, 10_000) < 20_000


@pytest.mark.slow
def test_pitfall_10_memory_does_not_grow_with_traffic() -> None:
    """No timestamp is stored a call: a few hundred wait to be counted, and of 20,000 there would be some 500 KB."""
    pipeline = Pipeline(*standard(breaker=CircuitBreaker(failure_rate=1.0)))
    calls = iter(range(10**9))

    def flaky() -> None:
        if next(calls) % 3 == 0:
            raise KeyError

    def serve(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(KeyError):
                pipeline.call_sync(flaky)

    assert grown_by(serve, 20_000) < 60_000


@pytest.mark.parametrize("case", PIPELINES)
def test_a_calls_arguments_are_gone_when_it_has_ended(case: str, no_collector: None) -> None:
    pipeline, function = PIPELINES[case]()

    def caller() -> weakref.ref[Any]:
        large = Large()
        with pytest.raises((ResilienceError, KeyError, TypeError)):
            pipeline.call_sync(function, large)
        return weakref.ref(large)

    assert caller()() is None
    for policies in ((), standard(), (CircuitBreaker(listeners=[Deaf()]),)):
        large = Large()
        pipeline = Pipeline(*policies)
        assert pipeline.call_sync(id, large)
        reference = weakref.ref(large)
        del large
        assert reference() is None


def test_a_breaker_keeps_no_pipeline_alive() -> None:
    breaker = CircuitBreaker()
    reference = weakref.ref(Pipeline(breaker))
    gc.collect()
    assert reference() is None
