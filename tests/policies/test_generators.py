"""Generators under a pipeline: permits are held to the last item, and only the first one is retried."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, CircuitBreaker, DeadlineExceeded, Fallback, Outcome, Pipeline, Retry, Timeout
from resilient.core.backoff import Constant
from resilient.testing import FakeClock

AT_ONCE = Constant(0, jitter="none")


class Guarded:
    """A pipeline whose every part can be looked at."""

    def __init__(self, clock: FakeClock, *outer: Any, limit: int = 2) -> None:
        self.bulkhead = Bulkhead(max_concurrent=limit, queue=0)
        self.breaker = CircuitBreaker(fail_max=100)
        self.pipeline = Pipeline(*outer, self.bulkhead, self.breaker, clock=clock)

    @property
    def counts(self) -> tuple[int, int, int]:
        counts = self.pipeline.stats.snapshot().counts
        return counts["success"], counts["failure"], counts["ignored"]


def both(*scripts: Any) -> Any:
    """The same generator function, plain and async; each use takes the next script, the last one again and again."""
    uses = iter(range(1000))

    def items() -> Iterator[Any]:
        for item in scripts[min(next(uses), len(scripts) - 1)]:
            if isinstance(item, type) and issubclass(item, Exception):
                raise item("scripted")
            yield item

    async def async_items() -> AsyncIterator[Any]:
        for item in items():
            await anyio.sleep(0)
            yield item

    return items, async_items


async def collect(generator: Any) -> list[Any]:
    return [item async for item in generator] if hasattr(generator, "__anext__") else list(generator)


async def step(generator: Any) -> Any:
    return await anext(generator) if hasattr(generator, "__anext__") else next(generator)


async def close(generator: Any) -> None:
    if hasattr(generator, "aclose"):
        await generator.aclose()
    else:
        generator.close()


async def throw(generator: Any, error: BaseException) -> Any:
    return await generator.athrow(error) if hasattr(generator, "athrow") else generator.throw(error)


pytestmark = pytest.mark.anyio
each_kind = pytest.mark.parametrize("kind", [0, 1], ids=["plain", "async"])


@each_kind
async def test_pitfall_09_permits_are_held_to_the_last_item(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    guarded = Guarded(clock)
    generator = guarded.pipeline(both([1, 2, 3])[kind])()
    assert guarded.bulkhead.in_use == 0  # nothing has run yet
    for item in (1, 2, 3):
        assert await step(generator) == item
        assert guarded.bulkhead.in_use == 1 and guarded.counts == (0, 0, 0)
    assert await collect(generator) == []
    assert guarded.bulkhead.in_use == 0 and guarded.counts == (1, 0, 0)


@each_kind
async def test_pitfall_09_an_error_in_the_middle_is_a_failure(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    guarded = Guarded(clock, Retry(on=ValueError, backoff=AT_ONCE))
    generator = guarded.pipeline(both([1, ValueError], [1, 2])[kind])()
    assert await step(generator) == 1
    with pytest.raises(ValueError, match="scripted"):
        await step(generator)
    assert guarded.counts == (0, 1, 0) and guarded.breaker.fail_counter == 1
    assert guarded.bulkhead.in_use == 0


@each_kind
async def test_the_first_item_is_retried(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    guarded = Guarded(clock, Retry(on=ValueError, backoff=AT_ONCE), limit=1)
    assert await collect(guarded.pipeline(both([ValueError], [ValueError], [1, 2])[kind])()) == [1, 2]
    assert guarded.counts == (1, 0, 0) and guarded.bulkhead.in_use == 0


@each_kind
async def test_closed_early_the_beginning_decides(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    guarded = Guarded(clock)
    generator = guarded.pipeline(both([1, 2, 3])[kind])()
    await step(generator)
    await close(generator)
    assert guarded.bulkhead.in_use == 0 and guarded.counts == (1, 0, 0)
    assert guarded.pipeline.stats.snapshot().buckets[-1] == 0  # with no latency to learn from


@each_kind
async def test_an_empty_one_is_a_success(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    guarded = Guarded(clock)
    assert await collect(guarded.pipeline(both([])[kind])()) == []
    assert guarded.counts == (1, 0, 0) and guarded.bulkhead.in_use == 0


@each_kind
async def test_one_that_was_never_begun_holds_nothing(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    guarded = Guarded(clock)
    await close(guarded.pipeline(both([1])[kind])())
    assert guarded.counts == (0, 0, 0) and guarded.bulkhead.in_use == 0


class Judge:
    """A `classify` that remembers what it was asked."""

    def __init__(self, *bad: Any) -> None:
        self.bad = bad
        self.seen: list[tuple[Any, Any]] = []

    def __call__(self, result: Any, error: BaseException | None) -> Outcome | None:
        self.seen.append((result, None if error is None else type(error)))
        return Outcome.FAILURE if result in self.bad else None


@each_kind
@pytest.mark.parametrize(
    ("script", "seen", "counts"),
    [
        ([1, 2, 3], [(1, None)], (1, 0, 0)),
        (["bad", 2], [("bad", None)], (0, 1, 0)),
        ([1, "bad", 3], [(1, None)], (1, 0, 0)),
        ([None, 2], [(None, None)], (1, 0, 0)),
        ([], [], (1, 0, 0)),
        ([ValueError], [(None, ValueError)], (0, 1, 0)),
        ([1, 2, ValueError], [(1, None), (None, ValueError)], (0, 1, 0)),
    ],
    ids=["items", "a bad first one", "a bad later one", "None", "empty", "an error at once", "an error later"],
)
async def test_classify_sees_the_first_item_and_the_error_that_ends_it(
    anyio_backend: Any, clock: FakeClock, kind: int, script: list[Any], seen: list[Any], counts: tuple[int, int, int]
) -> None:
    judge = Judge("bad")
    breaker = CircuitBreaker(fail_max=100)
    pipeline = Pipeline(breaker, clock=clock, classify=judge)
    with contextlib.suppress(ValueError):
        await collect(pipeline(both(script)[kind])())
    assert judge.seen == seen
    told = pipeline.stats.snapshot().counts
    assert (told["success"], told["failure"], told["ignored"]) == counts
    assert breaker.fail_counter == counts[1]


@each_kind
async def test_classify_sees_no_generator_whatever_policies_ask(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    """Retries and fallbacks look at a result as well, each on its own."""
    judge = Judge("bad")
    pipeline = Pipeline(Fallback(["instead"]), Retry(on=ValueError, backoff=AT_ONCE), clock=clock, classify=judge)
    assert await collect(pipeline(both([ValueError], [1, 2])[kind])()) == [1, 2]
    assert await collect(pipeline(both([])[kind])()) == []
    assert await collect(pipeline(both(["bad", 2])[kind])()) == ["instead"]
    assert set(judge.seen) == {(None, ValueError), (1, None), ("bad", None)}
    assert pipeline.classify_errors == 0


@each_kind
async def test_a_generator_whose_first_item_was_replaced_is_closed(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    closed = []

    def items() -> Iterator[str]:
        try:
            yield "bad"
        finally:
            closed.append("plain")

    async def async_items() -> AsyncIterator[str]:
        try:
            yield "bad"
        finally:
            await anyio.sleep(0)
            closed.append("async")

    pipeline = Pipeline(Fallback(["instead"]), clock=clock, classify=Judge("bad"))
    generator = pipeline((items, async_items)[kind])()
    assert await step(generator) == "instead"
    assert closed == [("plain", "async")[kind]]
    assert await collect(generator) == []


@each_kind
async def test_a_fallback_yields_in_its_place(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    for fallback in (["a", "b"], lambda: iter("ab"), both("ab")[kind]):
        guarded = Guarded(clock, Fallback(fallback))
        assert await collect(guarded.pipeline(both([ValueError])[kind])()) == ["a", "b"]
        assert guarded.pipeline.stats.snapshot().counts["fallback"] == 1 and guarded.breaker.fail_counter == 1
    guarded = Guarded(clock, Fallback(5))
    with pytest.raises(TypeError, match="fallback: expected items"):
        await collect(guarded.pipeline(both([ValueError])[kind])())
    assert guarded.bulkhead.in_use == 0


@each_kind
async def test_what_the_reader_throws_in_reaches_the_generator_and_blames_nobody(anyio_backend: Any, clock: FakeClock, kind: int) -> None:
    rolled_back = []

    def session() -> Iterator[int]:
        try:
            yield 1
        except KeyError as error:
            rolled_back.append(error)
            raise

    async def async_session() -> AsyncIterator[int]:
        for item in (1,):
            try:
                yield item
            except KeyError as error:
                rolled_back.append(error)
                raise

    guarded = Guarded(clock)
    generator = guarded.pipeline((session, async_session)[kind])()
    await step(generator)
    with pytest.raises(KeyError):
        await throw(generator, KeyError("in the endpoint"))
    assert len(rolled_back) == 1
    assert guarded.counts == (0, 0, 1) and guarded.breaker.fail_counter == 0 and guarded.bulkhead.in_use == 0


async def test_a_dependency_as_a_context_manager(anyio_backend: Any, clock: FakeClock) -> None:
    guarded = Guarded(clock)

    @contextlib.asynccontextmanager
    @guarded.pipeline
    async def connection() -> AsyncIterator[str]:
        yield "connection"

    async with connection() as value:
        assert value == "connection" and guarded.bulkhead.in_use == 1
    with pytest.raises(KeyError):
        async with connection():
            raise KeyError
    assert guarded.counts == (1, 0, 1) and guarded.bulkhead.in_use == 0


@pytest.mark.parametrize("enabled", [True, False])
async def test_values_are_sent_in_and_returned(anyio_backend: Any, clock: FakeClock, enabled: bool) -> None:
    guarded = Guarded(clock)
    guarded.pipeline.enabled = enabled

    @guarded.pipeline
    def adder() -> Any:
        total = 0
        while (number := (yield total)) is not None:
            total += number
        return total

    @guarded.pipeline
    async def async_adder() -> Any:
        total = 0
        while (number := (yield total)) is not None:
            total += number

    def outer() -> Any:
        return (yield from adder())

    generator = outer()
    assert [next(generator), generator.send(2), generator.send(3)] == [0, 2, 5]
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == 5
    stream = async_adder()
    assert [await anext(stream), await stream.asend(2), await stream.asend(3)] == [0, 2, 5]
    assert await anext(stream, "end") == "end"
    assert guarded.counts == ((2, 0, 0) if enabled else (0, 0, 0))


async def test_a_pause_between_items_is_bounded(anyio_backend: Any, clock: FakeClock) -> None:
    guarded = Guarded(clock, Timeout(total=30, idle=2))

    @guarded.pipeline
    async def trickle() -> AsyncIterator[int]:
        for number in range(100):
            yield number
            await anyio.sleep(1.5 if number < 30 else 5)

    items = []
    with pytest.raises(DeadlineExceeded) as caught:
        async for item in trickle():
            items.append(item)  # noqa: PERF401  # what came before the error is looked at
    assert caught.value.reason == "idle" and items == list(range(31))  # 45 s: the total ends with the first item
    assert guarded.counts == (0, 1, 0) and guarded.bulkhead.in_use == 0


async def test_a_reader_that_is_cancelled_is_neutral(anyio_backend: Any, clock: FakeClock) -> None:
    guarded = Guarded(clock)

    @guarded.pipeline
    async def hang() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    with anyio.move_on_after(5) as scope:
        async for _ in hang():
            pass
    assert scope.cancelled_caught
    assert guarded.counts == (0, 0, 1) and guarded.bulkhead.in_use == 0


async def test_pitfall_09_what_has_yet_to_run_is_no_success(anyio_backend: Any) -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)
    items, async_items = both([1])

    async def work() -> None: ...

    for function in (items, async_items, work):
        with pytest.raises(TypeError, match="yet to run"):
            pipeline.call_sync(function)
    with pytest.raises(TypeError, match="decorate a generator function"):
        await pipeline.call(async_items)
    assert list(pipeline.call_sync(lambda: (number for number in (1, 2)))) == [1, 2]  # a value like any other
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 4}


def test_an_async_generator_that_is_dropped_gives_everything_back() -> None:
    guarded = Guarded(FakeClock())
    generator = both([1, 2])[1]

    async def main() -> None:
        async for _ in guarded.pipeline(generator)():
            break

    asyncio.run(main())
    assert guarded.bulkhead.in_use == 0
