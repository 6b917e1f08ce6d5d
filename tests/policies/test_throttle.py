"""AdaptiveThrottle: what is a request, what is an accept, and who is rejected. The formula is tested in core."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import anyio
import httpx
import pytest

import resilient.httpx
import resilient.httpx2
from resilient import AdaptiveThrottle, CircuitBreaker, Outcome, Overloaded, Pipeline, Retry
from resilient.core.backoff import Constant
from resilient.events import CallRejected
from resilient.testing import FakeClock

from .driver import Script, World, takes
from .test_threads import CALLS, THREADS, Tally, in_threads


def numbers(*values: float) -> Callable[[], float]:
    """These numbers in turn, the last one again and again."""
    left = list(values)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_healthy_dependency_is_never_throttled(world: World) -> None:
    throttle = AdaptiveThrottle(random=numbers(0.0))
    assert world.times(200, world.pipeline(throttle)) == ["ok"] * 200
    assert (throttle.requests, throttle.accepts) == (200, 200)


def test_nor_is_one_that_accepts_a_half(world: World) -> None:
    throttle = AdaptiveThrottle(random=numbers(0.0))
    script = Script(*["ok", ConnectionError] * 100)
    assert "Overloaded" not in world.times(200, world.pipeline(throttle), script)


def test_one_that_accepts_nothing_is(world: World) -> None:
    throttle = AdaptiveThrottle(random=numbers(0.5))
    pipeline = world.pipeline(throttle, name="shop")
    assert world.times(12, pipeline, ConnectionError) == ["ConnectionError"] * 10 + ["Overloaded"] * 2
    error = world.fails(pipeline, "ok")
    assert isinstance(error, Overloaded)
    assert (error.dependency, error.policy, error.reason) == ("shop", "throttle", "throttled")
    assert {(event.policy, event.reason, event.enforced) for event in world.listener.of(CallRejected)} == {("throttle", "throttled", True)}
    assert (throttle.requests, throttle.accepts) == (10, 0)


def test_the_number_decides(world: World) -> None:
    """Ten of ten were refused: 10 / 11 are rejected; then nine of eleven more than are made up for: 9 / 12."""
    throttle = AdaptiveThrottle(random=numbers(*[0.0] * 9, 10 / 11 + 0.001, 9 / 12 - 0.001, 9 / 12 + 0.001))
    pipeline = world.pipeline(throttle)
    assert world.times(10, pipeline, ConnectionError) == ["ConnectionError"] * 10
    assert world.times(3, pipeline) == ["ok", "Overloaded", "ok"]
    assert (throttle.requests, throttle.accepts) == (12, 2)


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Outcome.SUCCESS, (20, 20)),
        (Outcome.FAILURE, (20, 0)),
        (Outcome.OUTAGE, (20, 0)),
        (Outcome.THROTTLED, (20, 0)),
        (Outcome.IGNORED, (0, 0)),
    ],
)
def test_what_is_an_accept(world: World, outcome: Outcome, counts: tuple[int, int]) -> None:
    throttle = AdaptiveThrottle(min_requests=1000)
    world.times(20, world.pipeline(throttle, classify=lambda result, error: outcome))
    assert (throttle.requests, throttle.accepts) == counts


def test_a_burst_into_a_fresh_window_does_not_reject_itself(world: World) -> None:
    throttle = AdaptiveThrottle(random=numbers(0.0))
    ends = world.together(world.pipeline(throttle), *[(0.0, takes(5))] * 500)
    assert all(end.value == "ok" for end in ends)


@pytest.mark.slow
def test_it_recovers_within_seconds(world: World) -> None:
    """After a minute of outage, asked for 20 a second."""
    throttle = AdaptiveThrottle(random=random.Random(20).random)
    pipeline = world.pipeline(throttle)
    failed = world.times(1200, pipeline, ConnectionError, every=0.05)
    assert failed.count("Overloaded") > 1100
    assert world.times(300, pipeline, every=0.05).count("ok") > 100
    assert world.times(100, pipeline, every=0.05) == ["ok"] * 100


def test_rejections_of_a_breaker_inside_are_no_requests(world: World) -> None:
    throttle, circuit = AdaptiveThrottle(random=numbers(0.0)), CircuitBreaker()
    circuit.open()
    assert world.times(50, world.pipeline(throttle, circuit)) == ["CircuitOpen"] * 50
    assert (throttle.requests, throttle.accepts) == (0, 0)


def test_each_attempt_is_a_request_and_a_rejection_is_not_repeated(world: World) -> None:
    throttle = AdaptiveThrottle(min_requests=3, random=numbers(0.0))
    pipeline = world.pipeline(Retry(attempts=5, on=Exception, backoff=Constant(0, jitter="none")), throttle)
    script = Script(ConnectionError)
    assert isinstance(world.fails(pipeline, script), ConnectionError)  # the last real answer, not ours
    assert len(script.asked) == 3
    assert throttle.requests == 3


def test_shadow_mode_sends_and_reports(world: World) -> None:
    throttle = AdaptiveThrottle(enforce=False, random=numbers(0.0))
    pipeline, script = world.pipeline(throttle), Script(ConnectionError)
    assert world.times(20, pipeline, script) == ["ConnectionError"] * 20
    assert len(script.asked) == 20
    assert [(event.policy, event.enforced) for event in world.listener.of(CallRejected)] == [("throttle", False)] * 10
    assert (throttle.requests, throttle.accepts) == (20, 0)


def test_reset_forgets(world: World) -> None:
    throttle = AdaptiveThrottle(random=numbers(0.0))
    pipeline = world.pipeline(throttle)
    world.times(20, pipeline, ConnectionError)
    pipeline.reset()
    assert world.call(pipeline) == "ok"


@pytest.mark.parametrize("door", [resilient.httpx, resilient.httpx2])
def test_what_a_client_sees_is_also_its_librarys_error(door: object) -> None:
    import httpx2

    library = httpx if door is resilient.httpx else httpx2
    throttle = AdaptiveThrottle(random=numbers(0.0))
    inner = library.MockTransport(lambda request: library.Response(429))
    with library.Client(transport=door.ResilientTransport(Pipeline(throttle), inner)) as client:  # type: ignore[attr-defined]
        assert [client.get("http://shop/").status_code for _ in range(10)] == [429] * 10
        with pytest.raises(library.TransportError) as caught:
            client.get("http://shop/")
    assert isinstance(caught.value, Overloaded) and isinstance(caught.value, door.Overloaded)  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_cancelled_request_is_none(anyio_backend: object, clock: FakeClock) -> None:
    throttle = AdaptiveThrottle()
    pipeline = Pipeline(throttle, clock=clock)
    for _ in range(20):
        with anyio.move_on_after(1):
            await pipeline.call(anyio.sleep_forever)
    assert (throttle.requests, throttle.accepts) == (0, 0)


def test_threads_lose_no_count() -> None:
    throttle, tally = AdaptiveThrottle(min_requests=10**9), Tally()
    pipeline = Pipeline(throttle)

    def call() -> None:
        for seed in range(CALLS):
            with contextlib.suppress(ValueError):
                pipeline.call_sync(tally.work, seed)

    in_threads(*[call] * THREADS)
    assert throttle.requests == THREADS * CALLS
    assert throttle.accepts == THREADS * CALLS * 4 // 5
