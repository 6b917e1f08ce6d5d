"""The last good value of a function: fresh, shared by all who ask at once, and stale in place of a failure."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from resilient import (
    Bulkhead,
    Cache,
    CachedFallback,
    CircuitBreaker,
    CircuitOpen,
    ConfigurationWarning,
    Dependency,
    Fallback,
    Outcome,
    Pipeline,
    RateLimited,
    Timeout,
    standard,
)
from resilient.context import RECORD, partition
from resilient.core.degradation import DegradationRecord
from resilient.events import CacheUsed, FallbackServed
from resilient.httpx import AsyncResilientTransport
from resilient.stores.sqlite import SQLiteStore
from resilient.telemetry.families import CACHE_BYTES, CACHE_ENTRIES
from resilient.telemetry.source import gauges
from resilient.testing import FakeClock, FaultyTransport

from .driver import Arrival, Script, World, at, only_awaited, takes


def one(world: World, script: Script) -> str:
    """All calls of the driver's dependency are the same call."""
    return "one"


def cached(**settings: Any) -> CachedFallback:
    return Fallback.cached(**{"ttl": 10, "key": one, **settings})


def results(world: World) -> list[str]:
    return [event.result for event in world.listener.of(CacheUsed)]


def call(pipeline: Pipeline, script: Script, seconds: float) -> Arrival:
    return Arrival(seconds, script=script, pipeline=pipeline)


def nothing() -> None:
    """What happens when a scene goes on without anybody calling."""


# -- what is fresh ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["ok", lambda: None, lambda: 0, lambda: [0]])
def test_a_fresh_value_is_returned_again(world: World, value: Any) -> None:
    pipeline, script = world.pipeline(cached(), name="shop"), Script(value, value, "new")
    first = world.call(pipeline, script)
    assert world.call(pipeline, script) == first and len(script.asked) == 1
    world.sleep(8.9)  # up to a tenth of the time may be missing
    assert world.call(pipeline, script) == first and len(script.asked) == 1
    world.sleep(1.2)
    assert world.call(pipeline, script) == first and len(script.asked) == 2
    assert results(world) == ["miss", "hit", "hit", "miss"]
    assert pipeline.stats.snapshot().counts == {"success": 2, "failure": 0, "ignored": 0, "cached": 2}


def test_a_hit_costs_nothing_of_what_is_inside(world: World) -> None:
    circuit, bulkhead = CircuitBreaker(), Bulkhead(max_concurrent=1, queue=0)
    pipeline, script = world.pipeline(cached(), bulkhead, circuit), Script()
    world.call(pipeline, script)
    circuit.open()
    assert world.call(pipeline, script) == "ok"
    circuit.half_open()
    for _ in range(20):
        assert world.call(pipeline, script) == "ok"
    assert circuit.current_state == "half-open" and bulkhead.in_use == 0 and len(script.asked) == 1


def test_everybody_has_a_copy_of_his_own(world: World) -> None:
    pipeline = world.pipeline(cached())
    ends = world.together(pipeline, *[(0.0, takes(1, lambda: {"items": [1, (2, [3])]}))] * 5)
    values = [end.value for end in ends] + [world.call(pipeline, "never") for _ in range(3)]
    for value in values:
        assert value == {"items": [1, (2, [3])]}
        value["items"][1][1].append(4)
        value["items"].append(5)


def test_a_value_that_is_too_large_is_not_kept(world: World) -> None:
    policy = cached(max_size=10_000)
    pipeline, script = world.pipeline(policy), Script(lambda: ["x" * 500] + ["y" * 500] * 100 + [str(n) * 90 for n in range(100)])
    assert len(world.call(pipeline, script)) == len(world.call(pipeline, script)) == 201
    assert len(script.asked) == 2 and policy.store.count == 0  # type: ignore[attr-defined]


def test_the_store_is_bounded_and_knows_the_size_of_values(world: World) -> None:
    class Row:
        def __init__(self) -> None:
            self.text = "x" * 50_000

    policy = cached(key=None)
    pipeline = world.pipeline(policy)

    def load(number: int) -> Any:
        return Row() if number % 2 else [bytes(25_000)] * 1 + ["y" * 25_000]

    for number in range(10):
        pipeline.call_sync(load, number)
    assert policy.store.size == pytest.approx(10 * 51_200, rel=0.05)  # type: ignore[attr-defined]


# -- one call for everybody -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_many_who_ask_at_once_make_one_call(world: World) -> None:
    pipeline, script = world.pipeline(cached(), Timeout()), Script(takes(1, "ok"))
    ends = world.scene([at(0.5, nothing), *(call(pipeline, script, 0.0) for _ in range(1000))])
    assert [end.value for end in ends] == ["ok"] * 1000 and len(script.asked) == 1
    assert {round(end.at, 3) for end in ends} == {1.0}
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0, "cached": 999}
    assert sorted(results(world)) == ["collapsed"] * 999 + ["miss"]


def test_a_failure_is_for_everybody_and_each_has_one_of_his_own(world: World) -> None:
    circuit = CircuitBreaker()
    pipeline, script = world.pipeline(cached(), circuit), Script(takes(1, ConnectionError("down")))
    ends = world.scene([call(pipeline, script, n / 100) for n in range(50)])
    errors = [end.error for end in ends]
    assert {(type(error), str(error)) for error in errors} == {(ConnectionError, "down")} and len(script.asked) == 1
    assert len({id(error) for error in errors}) == 50
    assert circuit.fail_counter == 1


def test_a_value_that_is_a_failure_is_for_everybody_and_not_kept(world: World) -> None:
    pipeline = world.pipeline(cached(), classify=lambda result, error: Outcome.FAILURE if result == ["sorry"] else None)
    script = Script(takes(1, lambda: ["sorry"]), "fine")
    ends = world.scene([call(pipeline, script, 0.0) for _ in range(3)])
    assert [end.value for end in ends] == [["sorry"]] * 3 and len({id(end.value) for end in ends}) == 3
    assert len(script.asked) == 1
    assert world.call(pipeline, script) == "fine"


def test_a_failed_value_is_replaced_by_a_fallback_further_out(world: World) -> None:
    pipeline = world.pipeline(Fallback("instead"), cached(), classify=lambda result, error: Outcome.FAILURE if result == "sorry" else None)
    ends = world.together(pipeline, *[(0.0, takes(1, "sorry"))] * 3)
    assert [end.value for end in ends] == ["instead"] * 3


@pytest.mark.slow
@only_awaited
def test_the_first_caller_may_leave(world: World) -> None:
    script, got = Script(), []

    async def work() -> str:
        script.next(world.now)
        await anyio.sleep(1)
        return "ok"

    async def ask() -> None:
        got.append(await pipeline.call(work))

    async def ask_and_leave(scope: anyio.CancelScope) -> None:
        with scope:
            await ask()

    async def scene() -> None:
        async with anyio.create_task_group() as group:
            first = anyio.CancelScope()
            group.start_soon(ask_and_leave, first)
            await anyio.sleep(0.5)
            for _ in range(1000):
                group.start_soon(ask)
            await anyio.sleep(0.1)
            first.cancel()

    policy = Fallback.cached(ttl=10)
    pipeline = world.pipeline(policy, Timeout())
    world._run(world.clock, scene)  # type: ignore[attr-defined]
    assert got == ["ok"] * 1000 and len(script.asked) == 1
    assert policy.flights is not None and len(policy.flights) == 0


@only_awaited
def test_with_the_last_caller_the_call_ends(world: World) -> None:
    bulkhead, seen = Bulkhead(), []

    async def work() -> None:
        try:
            await anyio.sleep(100)
        except BaseException as error:
            seen.append(error)
            raise

    pipeline = world.pipeline(Fallback.cached(ttl=10), bulkhead)

    async def scene() -> None:
        with anyio.move_on_after(1):
            await pipeline.call(work)
        await anyio.sleep(0.1)
        assert len(seen) == 1 and bulkhead.in_use == 0

    world._run(world.clock, scene)  # type: ignore[attr-defined]


@only_awaited
def test_each_caller_has_his_own_deadline(world: World) -> None:
    pipeline, script = world.pipeline(Timeout(total=3), cached()), Script(takes(4, "ok"))
    ends = world.scene([call(pipeline, script, 0.0), call(pipeline, script, 2.0)])
    assert ends[0].at == pytest.approx(3.0) and ends[0].error is not None
    assert (ends[1].value, ends[1].at) == ("ok", pytest.approx(4.0)) and len(script.asked) == 1


def test_one_call_of_real_threads() -> None:
    calls: list[int] = []
    begin = threading.Barrier(50)

    def load(product: int) -> list[int]:
        calls.append(product)
        threading.Event().wait(0.2)
        return [product]

    dependency = Dependency("shop", Fallback.cached(ttl=60), Timeout())
    shop = dependency(load)

    def ask(_: int) -> list[int]:
        begin.wait(10)
        return shop(7)

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(ask, range(50))) == [[7]] * 50
    assert calls == [7]


def test_a_thread_whose_loop_makes_the_call_does_not_wait_for_it() -> None:
    """One function, called as an async one and as a plain one: the loop could never end what its own thread waits for."""
    dependency = Dependency("shop", Fallback.cached(ttl=60))
    answers: list[Any] = []

    def load() -> Any:
        return answers.pop(0)

    async def main() -> None:
        ready = asyncio.get_running_loop().create_future()
        answers[:] = [ready, "at once"]
        task = asyncio.create_task(dependency.call(load))
        await asyncio.sleep(0.01)
        with pytest.warns(RuntimeWarning, match="never waits"):
            assert dependency.call_sync(load) == "at once"
        ready.set_result("awaited")
        assert await task == "awaited"

    asyncio.run(main())


def test_a_function_that_is_cancelled_from_within_returns_nothing_to_anybody() -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60))

    async def load() -> str:
        raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await dependency.call(load)

    asyncio.run(main())


# -- stale in place of a failure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["error", "value", "open", "full", "slow"])
def test_a_stale_value_stands_in_for_a_failure_and_that_is_told(world: World, how: str) -> None:
    circuit, bulkhead = CircuitBreaker(), Bulkhead(max_concurrent=1, queue=0)
    policies = (cached(stale_if_error=100), Timeout(total=2), bulkhead, circuit)
    pipeline = world.pipeline(*policies, name="shop", classify=lambda result, error: Outcome.FAILURE if result == "sorry" else None)
    assert world.call(pipeline, "good") == "good"
    world.sleep(20)
    record = DegradationRecord()
    token = RECORD.set(record)
    try:
        if how == "error":
            value, cause = world.call(pipeline, ConnectionError), "ConnectionError"
        elif how == "value":
            value, cause = world.call(pipeline, "sorry"), "result"
        elif how == "open":
            circuit.open()
            value, cause = world.call(pipeline, "never"), "circuit_open"
        elif how == "full":
            other = world.pipeline(bulkhead)
            value = world.scene([call(other, Script(takes(1, "x")), 0.0), call(pipeline, Script("never"), 0.5)])[1].value
            cause = "bulkhead_full"
        else:
            value, cause = world.call(pipeline, takes(5, ConnectionError)), "deadline" if world.interrupts else "ConnectionError"
    finally:
        RECORD.reset(token)
    assert value == "good"
    (event,) = world.listener.of(FallbackServed)
    assert (event.dependency, event.level, event.cause) == ("shop", "reduced", cause)
    assert event.age == pytest.approx(20, abs=6)
    (entry,) = record.entries
    assert (entry.feature, entry.level, entry.cause, entry.age) == ("shop", "reduced", cause, event.age)
    assert results(world)[-1] == "stale_if_error"
    assert pipeline.stats.snapshot().counts["fallback"] == 1


def test_beyond_its_window_the_failure_is_raised(world: World) -> None:
    pipeline = world.pipeline(cached(stale_if_error=100))
    world.call(pipeline, "good")
    world.sleep(108)
    assert world.call(pipeline, ConnectionError) == "good"
    world.sleep(3)
    assert isinstance(world.fails(pipeline, ConnectionError), ConnectionError)


def test_without_a_window_nothing_stale_is_returned(world: World) -> None:
    pipeline = world.pipeline(cached())
    world.call(pipeline, "good")
    world.sleep(11)
    assert isinstance(world.fails(pipeline, ConnectionError), ConnectionError)


def test_a_value_may_be_for_failures_alone(world: World) -> None:
    pipeline, script = world.pipeline(cached(ttl=0, stale_if_error=60)), Script("one", "two", ConnectionError)
    assert [world.call(pipeline, script) for _ in range(3)] == ["one", "two", "two"]


def test_none_may_be_stale_too(world: World) -> None:
    pipeline = world.pipeline(cached(stale_if_error=60, soft_timeout=0.1), Timeout(total=1))
    assert world.call(pipeline, lambda: None) is None
    world.sleep(20)
    assert world.call(pipeline, takes(3, ConnectionError)) is None


def test_what_is_no_failure_passes_for_everybody(world: World) -> None:
    pipeline = world.pipeline(
        cached(stale_if_error=100), classify=lambda result, error: Outcome.IGNORED if isinstance(error, KeyError) else None
    )
    world.call(pipeline, "good")
    world.sleep(20)
    script = Script(takes(1, KeyError), ConnectionError)
    ends = world.scene([call(pipeline, script, 0.0) for _ in range(5)])
    assert {type(end.error) for end in ends} == {KeyError} and len(script.asked) == 1
    assert world.listener.of(FallbackServed) == []
    assert world.call(pipeline, script) == "good"  # it said nothing of the value, and nobody was left alone for it
    assert len(script.asked) == 2


def test_an_error_that_is_an_answer_replaces_the_value(world: World) -> None:
    pipeline = world.pipeline(
        cached(stale_if_error=100), classify=lambda result, error: Outcome.SUCCESS if isinstance(error, LookupError) else None
    )
    world.call(pipeline, "good")
    world.sleep(20)
    assert isinstance(world.fails(pipeline, KeyError), KeyError)  # it is gone
    assert isinstance(world.fails(pipeline, ConnectionError), ConnectionError)


def test_more_can_be_named(world: World) -> None:
    pipeline = world.pipeline(cached(stale_if_error=100, on=KeyError), classify=lambda result, error: Outcome.IGNORED if error else None)
    world.call(pipeline, "good")
    world.sleep(20)
    assert world.call(pipeline, KeyError) == "good"
    world.sleep(10)
    assert isinstance(world.fails(pipeline, ValueError), ValueError)


def test_after_a_failure_nobody_asks_for_a_moment(world: World) -> None:
    pipeline, script = world.pipeline(cached(stale_if_error=1000)), Script("good", takes(2, ConnectionError), "new")
    world.call(pipeline, script)
    world.sleep(20)
    begun = world.now
    for _ in range(100):
        assert world.call(pipeline, script) == "good"
    assert len(script.asked) == 2 and world.now - begun == pytest.approx(2)
    world.sleep(5.1)
    assert world.call(pipeline, script) == "new"


def test_it_is_left_alone_for_as_long_as_it_asked(world: World) -> None:
    error = RateLimited("later")
    error.retry_after = 30.0

    class Later(ConnectionError):
        retry_after = 30.0

    pipeline, script = world.pipeline(cached(stale_if_error=1000)), Script("good", Later, "new")
    world.call(pipeline, script)
    world.sleep(20)
    assert [world.call(pipeline, script)] == ["good"]
    world.sleep(29)
    assert world.call(pipeline, script) == "good" and len(script.asked) == 2
    world.sleep(1.1)
    assert world.call(pipeline, script) == "new"


def test_a_slow_call_is_not_waited_for(world: World) -> None:
    pipeline = world.pipeline(cached(stale_if_error=1000, soft_timeout=0.2), Timeout(total=10))
    script = Script("old", takes(3, "new"))
    world.call(pipeline, script)
    world.sleep(20)
    first, second = world.scene([call(pipeline, script, 0.0), at(2.0, nothing), call(pipeline, script, 3.5)])
    assert (first.value, first.at) == ("old", pytest.approx(0.2))
    assert (second.value, second.at) == ("new", pytest.approx(3.5)) and len(script.asked) == 2
    assert [event.cause for event in world.listener.of(FallbackServed)] == ["slow"]


def test_stale_while_it_is_called_anew(world: World) -> None:
    pipeline, script = world.pipeline(cached(stale_while_revalidate=100)), Script("old", takes(1, "new"))
    world.call(pipeline, script)
    world.sleep(20)
    ends = world.scene([*(call(pipeline, script, n / 100) for n in range(20)), at(2.0, nothing), call(pipeline, script, 3.0)])
    assert [end.value for end in ends] == ["old"] * 20 + ["new"] and len(script.asked) == 2
    assert all(end.at < 0.25 for end in ends[:20])
    assert results(world) == ["miss", *["stale"] * 20, "refreshed", "hit"]
    assert world.listener.of(FallbackServed) == []


def test_nothing_is_called_anew_while_the_circuit_is_open(world: World) -> None:
    circuit = CircuitBreaker()
    policies = cached(stale_while_revalidate=100), circuit
    dependency = Dependency("shop", *policies, clock=world.clock)
    script = Script("old", "new")
    world.call(dependency, script)
    world.sleep(20)
    circuit.open()
    ends = world.scene([call(dependency, script, 0.0), at(2.0, nothing)])
    assert ends[0].value == "old" and len(script.asked) == 1


def test_late_is_better_than_never(world: World) -> None:
    if world.interrupts:
        return
    pipeline, script = world.pipeline(cached(), Timeout(total=1)), Script(takes(2, "late"))
    assert [world.call(pipeline, script) for _ in range(2)] == ["late", "late"]
    assert len(script.asked) == 1 and pipeline.stats.snapshot().counts["failure"] == 1


# -- what cannot be shared --------------------------------------------------------------------------------------------


def lock() -> Any:
    return threading.Lock()


def test_what_cannot_be_copied_is_its_callers_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    pipeline, script = world.pipeline(cached(), Bulkhead(), name="shop"), Script(takes(1, lock))
    ends = world.scene([call(pipeline, script, 0.0) for _ in range(3)])
    assert len({id(end.value) for end in ends}) == 3 == len(script.asked)
    assert len([record for record in caplog.records if "cannot be copied" in record.message]) == 1
    assert pipeline.stats.snapshot().counts["success"] == 3
    assert pipeline.policies[1].in_use == 0  # type: ignore[attr-defined]


def test_a_fallback_further_in_is_warned_of_and_never_kept(world: World) -> None:
    with pytest.warns(ConfigurationWarning, match="shop: a Fallback inside"):
        pipeline = world.pipeline(cached(stale_if_error=100), Fallback("default"), name="shop")
    record = DegradationRecord()
    token = RECORD.set(record)
    try:
        assert [end.value for end in world.together(pipeline, *[(0.0, takes(1, ConnectionError))] * 3)] == ["default"] * 3
        assert [(entry.feature, entry.cause) for entry in record.entries] == [("shop", "ConnectionError")]
    finally:
        RECORD.reset(token)
    world.sleep(6)
    assert world.call(pipeline, "good") == "good"
    world.sleep(20)
    assert world.call(pipeline, ConnectionError) == "good"  # which is better than a default


def test_generators_pass_by() -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60))
    calls = []

    @dependency
    def items(count: int) -> Any:
        calls.append(count)
        yield from range(count)

    @dependency
    async def later(count: int) -> Any:
        calls.append(count)
        for item in range(count):
            yield item

    async def main() -> None:
        assert [[item async for item in later(2)] for _ in range(2)] == [[0, 1]] * 2

    assert [list(items(3)), list(items(3))] == [[0, 1, 2]] * 2
    asyncio.run(main())
    assert calls == [3, 3, 2, 2]


def test_over_http_it_says_what_to_use() -> None:
    dependency = Dependency("shop", Fallback([]), Fallback.cached(ttl=60), Timeout())
    seen: list[Any] = []
    transport = AsyncResilientTransport(dependency, FaultyTransport([lambda request: seen.append(request) or httpx.Response(200)]))

    async def main() -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(TypeError, match="kept by a Cache"):
                await client.get("http://shop/a")

    asyncio.run(main())
    assert dependency.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1} and not seen


def test_a_cache_of_http_answers_has_nothing_to_do_with_functions(world: World) -> None:
    pipeline, script = world.pipeline(Cache(), cached(), Cache()), Script("one", "two")
    assert [world.call(pipeline, script) for _ in range(2)] == ["one", "one"]
    assert results(world) == ["bypass", "bypass", "miss", "bypass", "hit"]


# -- forgetting -------------------------------------------------------------------------------------------------------


def numbered(dependency: Dependency) -> Any:
    calls: list[Any] = []

    @dependency
    def price(product: int, currency: str = "EUR") -> tuple[int, int]:
        calls.append(product)
        return product, len(calls)

    return price


def test_a_value_is_forgotten_however_its_arguments_were_given() -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60, stale_if_error=60))
    price, policy = numbered(dependency), dependency.cached
    assert policy is not None
    assert [price(7), price(product=7), price(8)] == [(7, 1), (7, 1), (8, 2)]
    policy.forget_sync(price, product=7)
    assert [price(7), price(8)] == [(7, 3), (8, 2)]
    asyncio.run(policy.forget(price, 7))
    assert [price(7), price(8)] == [(7, 4), (8, 2)]


def test_a_value_is_forgotten_in_every_partition() -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60))
    price, policy = numbered(dependency), dependency.cached
    assert policy is not None
    with partition("a"):
        assert price(7) == price(7) == (7, 1)
    with partition("b"):
        assert price(7) == (7, 2)
        policy.forget_sync(price, 7)
    with partition("a"):
        assert price(7) == (7, 3)


def test_of_a_method_the_object_is_an_argument() -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60, key=lambda shop, product: (shop.name, product)))

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name
            self.calls = 0

        @dependency
        def price(self, product: int) -> str:
            self.calls += 1
            return f"{self.name} {product} {self.calls}"

    policy = dependency.cached
    assert policy is not None
    ours, theirs = Shop("ours"), Shop("theirs")
    assert [ours.price(7), theirs.price(7), ours.price(7)] == ["ours 7 1", "theirs 7 1", "ours 7 1"]
    policy.forget_sync(ours.price, 7)
    policy.forget_sync(Shop.price, theirs, 7)
    assert [ours.price(7), theirs.price(7)] == ["ours 7 2", "theirs 7 2"]


def test_what_is_forgotten_while_it_is_made_is_not_kept(world: World) -> None:
    policy = cached()
    pipeline, script = world.pipeline(policy), Script(takes(2, "old"), "new")
    play = world._play  # type: ignore[attr-defined]
    first, second = world.scene(
        [
            call(pipeline, script, 0.0),
            at(1.0, lambda: policy.forget_sync(play, script)),
            call(pipeline, script, 1.5),
        ]
    )
    assert (first.value, second.value) == ("old", "new")
    assert world.call(pipeline, script) == "new" and len(script.asked) == 2


def test_it_has_to_be_in_a_pipeline_first() -> None:
    with pytest.raises(RuntimeError, match="in no pipeline yet"):
        Fallback.cached(ttl=1).forget_sync(numbered, 7)


def test_reset_forgets_all(world: World) -> None:
    pipeline, script = world.pipeline(cached(stale_if_error=60)), Script("old", "new")
    world.call(pipeline, script)
    pipeline.reset()
    assert world.call(pipeline, script) == "new"


# -- stores that others share -----------------------------------------------------------------------------------------


SHARED_CALLS: list[Any] = []


async def shared(product: Any) -> Any:
    SHARED_CALLS.append(product)
    return {"product": product, "calls": len(SHARED_CALLS)} if product != "tuple" else (1, 2)


async def shared_too(product: Any) -> Any:
    return await shared(product)


async def settled(dependency: Dependency) -> None:
    """Wait until what was returned is stored."""
    assert dependency.cached is not None and dependency.cached.flights is not None
    with anyio.fail_after(5):
        while len(dependency.cached.flights):
            await anyio.sleep(0)
    dependency.cached.store.flush(5)  # type: ignore[attr-defined]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    SHARED_CALLS.clear()
    return tmp_path / "values.db"


@pytest.mark.anyio
async def test_processes_share_values_and_forget_them_together(file: Path) -> None:
    one, other = (Dependency("shop", Fallback.cached(ttl=60, store=SQLiteStore(file, trust=0, timeout=5.0))) for _ in range(2))
    assert one.cached is not None and other.cached is not None
    value = await one.call(shared, 7)
    await settled(one)
    assert await other.call(shared, 7) == value == {"product": 7, "calls": 1}
    with partition("tenant-7"):
        assert await other.call(shared, 7) == {"product": 7, "calls": 2}
    assert await other.call(shared_too, 7) == {"product": 7, "calls": 3}
    await settled(other)
    await other.cached.forget(shared, 7)
    assert await one.call(shared, 7) == {"product": 7, "calls": 4}
    for dependency in (one, other):
        dependency.cached.store.close()  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_what_json_cannot_say_is_returned_and_not_kept(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60, store=SQLiteStore(file)))
    assert [await dependency.call(shared, "tuple") for _ in range(3)] == [(1, 2)] * 3
    assert SHARED_CALLS == ["tuple"] * 3
    (told,) = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert "'shop'" in told and "is returned but not kept" in told and "tuple" in told
    dependency.cached.store.close()  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_a_store_that_others_share_wants_functions_that_they_know(file: Path) -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60, store=SQLiteStore(file)))

    async def local() -> int:
        return 1

    with pytest.raises(TypeError, match=r"local.* has no name of its own"):
        await dependency.call(local)
    dependency.cached.store.close()  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_a_shared_value_is_made_anew_before_it_expires(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60, store=SQLiteStore(file)), Timeout())
    await dependency.call(shared, 7)
    await settled(dependency)
    monkeypatch.setattr("random.random", lambda: 1.0)  # the last draw of all: now
    assert (await dependency.call(shared, 7))["calls"] == 1
    with anyio.fail_after(5):
        while len(SHARED_CALLS) < 2:
            await anyio.sleep(0.001)
    dependency.cached.store.close()  # type: ignore[union-attr]


# -- how it is put together -------------------------------------------------------------------------------------------


def test_it_stands_where_a_cache_does() -> None:
    policy = Fallback.cached(ttl=1)
    for dependency in (
        Dependency("a", fallback=[], cache=policy),
        Dependency("b", Fallback([]), policy, *standard()),
        Dependency("c", *standard(fallback=Fallback([]), cache=policy)),
        Dependency("d", fallback=[]).variant("e", policy),
        Dependency("f", fallback=[]).variant("g", Fallback.cached(ttl=2)).variant("h", policy),
    ):
        kinds = [type(one).__name__ for one in dependency.policies]
        assert kinds[:3] == ["Fallback", "CachedFallback", "Timeout"] and dependency.cached is policy
    assert Dependency("i", fallback=policy).policies[0] is policy
    assert standard(fallback=policy)[0] is policy
    assert Dependency("j").variant("k", fallback=policy).policies[0] is policy
    assert Dependency("l").cached is None


def test_two_of_them_are_one_too_many() -> None:
    with pytest.raises(TypeError, match="^cache: the policies given hold a CachedFallback"):
        Dependency("shop", Fallback.cached(ttl=1), cache=Fallback.cached(ttl=1))
    with pytest.raises(TypeError, match="^cache: expected a Cache"):
        Dependency("shop", cache=7)  # type: ignore[arg-type]


def test_its_size_is_told() -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=60))
    numbered(dependency)(7)
    told = gauges([("shop", dependency)], [])
    assert told[CACHE_ENTRIES][("shop",)] == 1 and 1024 < told[CACHE_BYTES][("shop",)] < 3000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ttl", value) for value in (-1, "1", None, True, float("nan"), float("inf"))),
        ("stale_if_error", -1),
        ("stale_while_revalidate", "1"),
        ("soft_timeout", 0),
        *(("key", value) for value in ("user", 7)),
        ("partition", "tenant"),
        ("on", BaseException),
        ("max_size", 0),
        ("refresh_early", -1),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Fallback.cached(**{"ttl": 1, name: value})


def test_an_open_circuit_without_a_value_is_raised(world: World) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    assert isinstance(world.fails(world.pipeline(cached(stale_if_error=60), circuit)), CircuitOpen)


def test_a_clock_of_ones_own(clock: FakeClock) -> None:
    dependency = Dependency("shop", Fallback.cached(ttl=10), clock=clock)
    price = numbered(dependency)
    assert price(7) == (7, 1)
    clock.advance(8)
    assert price(7) == (7, 1)
    clock.advance(3)
    assert price(7) == (7, 2)
