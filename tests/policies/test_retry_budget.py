"""RetryBudget: retries help in a blip and must not feed an outage. The arithmetic alone is tested in core."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import CircuitBreaker, CircuitOpen, Constant, Hedge, Pipeline, Retry, RetryBudget
from resilient.events import HedgeDecided, RetryDecided
from resilient.testing import FakeClock

from ..thorough import often
from .driver import Arrival, Script, World, at, takes

AT_ONCE = Constant(0, jitter="none")


def decisions(world: World) -> list[tuple[str, int, str]]:
    return [(event.result, event.attempt, event.cause) for event in world.listener.of(RetryDecided)]


def test_a_call_that_the_budget_refuses_says_so(world: World) -> None:
    pipeline = world.pipeline(Retry(on=ValueError, budget=RetryBudget(ratio=0, reserve=0.1, window=10), backoff=AT_ONCE))
    script = Script(ValueError)
    world.fails(pipeline, script)
    assert decisions(world) == [("retried", 1, "ValueError"), ("budget", 2, "ValueError")]
    world.fails(pipeline, script)
    assert [result for result, *_ in decisions(world)] == ["retried", "budget", "budget"]
    world.sleep(11.1)
    world.fails(pipeline, script)
    assert [result for result, *_ in decisions(world)][3:] == ["retried", "budget"]


def test_the_budget_is_asked_before_anything_else_is_done(world: World) -> None:
    """A retry that is refused leaves the answer as it is and settles nothing."""
    circuit = CircuitBreaker(fail_max=3)
    budget = RetryBudget(ratio=0, reserve=0.1, window=10)
    pipeline = world.pipeline(Retry(on=ValueError, budget=budget, backoff=AT_ONCE), circuit)
    world.fails(pipeline, ValueError)
    assert circuit.fail_counter == 2
    assert budget.remaining_ratio() == 0


def test_a_retry_that_the_circuit_refuses_costs_nothing(world: World) -> None:
    """Each call trips it: what fails is made once, and its budget is whole."""
    circuit = CircuitBreaker(fail_max=1)
    budget = RetryBudget(ratio=0, reserve=0.1, window=10)
    pipeline = world.pipeline(Retry(on=ValueError, budget=budget, backoff=AT_ONCE), circuit)
    script = Script(ValueError)
    for _ in range(5):
        world.fails(pipeline, script)
        circuit.close()
    assert len(script.asked) == 5
    assert [result for result, *_ in decisions(world)] == ["rejected"] * 5
    assert budget.remaining_ratio() == 1


def test_a_retry_that_is_refused_after_its_pause_costs_nothing(world: World) -> None:
    """The circuit opens while it waits; of two retries granted one is made."""
    circuit = CircuitBreaker()
    budget = RetryBudget(ratio=0, reserve=0.2, window=10)
    pipeline = world.pipeline(Retry(on=ValueError, budget=budget, backoff=Constant(1, jitter="none"), attempts=2), circuit)
    script = Script(ValueError)
    (ended,) = world.scene([Arrival(0, script=script, pipeline=pipeline), at(0.5, circuit.open)])
    assert isinstance(ended.error, ValueError) and len(script.asked) == 1
    assert [result for result, *_ in decisions(world)] == ["retried", "rejected"]
    circuit.close()
    assert budget.remaining_ratio() == 1
    world.fails(pipeline, script)
    assert budget.remaining_ratio() == pytest.approx(0.5)
    assert len(script.asked) == 3


def test_a_retry_whose_function_met_another_circuit_was_made(world: World) -> None:
    budget = RetryBudget(ratio=0, reserve=0.1, window=10)
    pipeline = world.pipeline(Retry(on=ValueError, budget=budget, backoff=AT_ONCE))
    script = Script(ValueError, CircuitOpen("of another dependency"))
    assert isinstance(world.fails(pipeline, script), ValueError)
    assert len(script.asked) == 2
    assert budget.remaining_ratio() == 0


def test_a_hedge_that_the_circuit_refuses_costs_nothing(world: World) -> None:
    circuit = CircuitBreaker()
    budget = RetryBudget(ratio=0, reserve=0.1, window=10)
    pipeline = world.pipeline(Hedge(delay=1, budget=budget), circuit)
    script = Script(takes(3))
    (ended,) = world.scene([Arrival(0, script=script, pipeline=pipeline), at(0.5, circuit.open)])
    assert ended.value == "ok" and len(script.asked) == 1
    assert [event.result for event in world.listener.of(HedgeDecided)] == ["rejected"]
    assert budget.remaining_ratio() == 1


def test_amplification_stays_in_bounds(world: World) -> None:
    """Over any 10 s at most 1 + 0.2 + 3/rate requests for each call, whatever fails."""
    script = Script(ValueError)
    pipeline = world.pipeline(Retry(on=ValueError, attempts=10, backoff=AT_ONCE))
    rate, seconds = 10, 15
    world.times(rate * seconds, pipeline, script, every=1 / rate)
    for begin in range(seconds - 10):
        asked = sum(begin <= moment < begin + 10 for moment in script.asked)
        assert asked <= rate * 10 * (1 + 0.2 + 3 / rate) + 1e-6
    assert len(script.asked) > rate * seconds * 1.2  # and it is used


@pytest.mark.slow
@settings(max_examples=often(40), deadline=None)
@given(
    bursts=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=12),
    ends=st.lists(st.tuples(st.sampled_from([0, 1, 3, 8]), st.booleans()), min_size=1, max_size=8),
)
def test_retries_and_hedges_together_stay_in_bounds(bursts: list[tuple[int, int]], ends: list[tuple[int, bool]]) -> None:
    """Over any 10 s at most 20 % of the calls and 3 a second are sent besides, whatever comes and however it ends."""
    clock = FakeClock()
    pipeline = Pipeline(Retry(on=ValueError, attempts=5, backoff=AT_ONCE), Hedge(delay=0.125, max_hedges=2), clock=clock)
    first: list[float] = []
    besides: list[float] = []
    attempts = itertools.cycle(ends)

    async def ask(call: list[int]) -> None:
        (besides if call else first).append(clock.now())
        call.append(1)
        lasts, fails = next(attempts)
        await asyncio.sleep(lasts / 16)
        if fails:
            raise ValueError

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for pause, calls in bursts:
                await asyncio.sleep(pause / 16)
                for _ in range(calls):
                    group.create_task(one())

    async def one() -> None:
        with contextlib.suppress(ValueError):
            await pipeline.call(ask, [])

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    assert len(first) == sum(calls for _, calls in bursts)
    for sent in besides:
        for start, end in ((sent, sent + 10), (sent - 10 + 1 / 16, sent + 1 / 16)):
            extra = sum(start <= moment < end for moment in besides)
            assert extra <= 30 + 0.2 * sum(start <= moment < end for moment in first) + 1e-6


def test_one_budget_for_several_policies(world: World) -> None:
    budget = RetryBudget(ratio=0, reserve=0.1, window=10)
    first, second = (world.pipeline(Retry(on=ValueError, budget=budget, backoff=AT_ONCE)) for _ in range(2))
    world.fails(first, ValueError)
    script = Script(ValueError)
    world.fails(second, script)
    assert len(script.asked) == 1


def test_reset_gives_a_fresh_budget(world: World) -> None:
    pipeline = world.pipeline(Retry(on=ValueError, budget=RetryBudget(ratio=0, reserve=0.1, window=10), backoff=AT_ONCE))
    world.fails(pipeline, ValueError)
    pipeline.reset()
    script = Script(ValueError)
    world.fails(pipeline, script)
    assert len(script.asked) == 2


# -- by key -----------------------------------------------------------------------------------------------------------


def by_tenant(**settings: Any) -> RetryBudget:
    return RetryBudget(reserve=0.1, window=10, saved=1, key=lambda tenant: tenant, **settings)


def one_retry(clock: FakeClock, budget: RetryBudget, tenant: Any) -> bool:
    """Whether a call of the tenant's, which fails once, was repeated."""
    answers = iter([ValueError(), None])

    def call(tenant: Any) -> None:
        if (answer := next(answers)) is not None:
            raise answer

    try:
        Pipeline(Retry(on=ValueError, budget=budget, backoff=AT_ONCE), clock=clock).call_sync(call, tenant)
    except ValueError:
        return False
    return True


def test_each_key_has_a_budget_of_its_own(clock: FakeClock) -> None:
    budget = by_tenant()
    assert one_retry(clock, budget, "a")
    assert not one_retry(clock, budget, "a")
    assert one_retry(clock, budget, "b")
    assert budget.remaining_ratio() == 0  # of the one that has least: nobody has paid into that of b since
    budget.reset()
    assert one_retry(clock, budget, "a")


def test_calls_without_a_key_share_one(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    budget = by_tenant()
    assert one_retry(clock, budget, [])  # nothing that a state can be kept by
    assert not one_retry(clock, budget, {})
    assert one_retry(clock, budget, "a")
    assert caplog.text.count("key, given to a RetryBudget, failed") == 1


def test_pitfall_10_keys_are_bounded(clock: FakeClock) -> None:
    budget = by_tenant(max_keys=2)
    assert one_retry(clock, budget, "a")
    for tenant in range(100):
        assert one_retry(clock, budget, tenant)
        assert len(budget._keyed) <= 2
    assert one_retry(clock, budget, "a")  # which had been forgotten
