"""RetryBudget: retries help in a blip and must not feed an outage. The arithmetic alone is tested in core."""

from __future__ import annotations

from resilient import CircuitBreaker, Retry, RetryBudget
from resilient.core.backoff import Constant
from resilient.events import RetryDecided

from .driver import Script, World

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
