"""standard(): the preset, its order, and that its defaults protect."""

from __future__ import annotations

import warnings

import pybreaker
import pytest

from resilient import Bulkhead, CircuitBreaker, Dependency, Fallback, Pipeline, RateLimit, Retry, Timeout, standard
from resilient.core.backoff import Constant

from .driver import Script, World, takes


def kinds(*policies: object) -> list[str]:
    return [type(policy).__name__ for policy in policies]


def test_the_order() -> None:
    assert kinds(*standard()) == ["Timeout", "Retry", "AdaptiveConcurrency", "CircuitBreaker"]
    limited = standard(fallback=Fallback([]), rate_limit=RateLimit(5))
    assert kinds(*limited) == ["Fallback", "Timeout", "RateLimit", "Retry", "AdaptiveConcurrency", "CircuitBreaker"]
    tokens, money = RateLimit(5), RateLimit(5, hard=True)
    assert standard(rate_limit=[tokens, money])[1:3] == (tokens, money)
    assert kinds(*standard(fallback=Fallback([]))) == ["Fallback", "Timeout", "Retry", "AdaptiveConcurrency", "CircuitBreaker"]


def test_what_is_given_takes_its_place() -> None:
    given = {"timeout": Timeout(total=3), "retry": Retry(), "bulkhead": Bulkhead(), "breaker": CircuitBreaker()}
    assert standard(**given) == tuple(given.values())  # type: ignore[arg-type]
    assert standard(timeout=2)[0] == Timeout(total=2)
    assert kinds(*Pipeline(*standard(breaker=pybreaker.CircuitBreaker())).policies)[-1] == "ForeignBreaker"


def test_each_use_makes_new_policies() -> None:
    assert not set(map(id, standard())) & set(map(id, standard()))


def test_the_defaults_are_no_mistake() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for timeout in (None, 0.003, 0.3, 30, 300):
            Dependency("d", timeout=timeout)
        Pipeline(*standard(timeout=Timeout(total=100, attempt=60)))


def test_a_slow_attempt_leaves_time_for_another(world: World) -> None:
    policies = standard(timeout=Timeout(total=4, attempt=1), retry=Retry(on=TimeoutError, backoff=Constant(0.1, jitter="none")))
    script = Script(takes(30, "late"), "ok")
    assert world.call(world.pipeline(*policies), script) == ("ok" if world.interrupts else "late")


@pytest.mark.slow
def test_pitfall_13_a_dead_dependency_costs_nothing_after_a_second(world: World) -> None:
    pipeline = world.pipeline(*standard(fallback=Fallback("instead")))
    script = Script(ConnectionRefusedError)
    world.times(300, pipeline, script, every=0.01)
    late = [moment for moment in script.asked if moment > 1.2]
    assert len(late) <= 6  # a round of trials, and no more
    assert world.call(pipeline, script) == "instead"


def test_pitfall_13_a_hanging_dependency_is_noticed_before_the_pool_is_full(world: World) -> None:
    if world.interrupts:
        pipeline = world.pipeline(*standard(timeout=0.3, fallback=Fallback("instead")))
        ends = world.together(pipeline, *[(number / 50, takes(30)) for number in range(150)])
        assert {end.value for end in ends} == {"instead"}
        waited = [end.at - number / 50 for number, end in enumerate(ends)]
        assert max(waited) <= 0.3 + 1e-6
        assert sum(wait < 0.01 for wait in waited[100:]) > 40
    else:
        pipeline = world.pipeline(*standard(timeout=0.3, bulkhead=Bulkhead(max_concurrent=2, max_wait=0.1)))
        ends = world.together(pipeline, *[(number / 50, takes(30)) for number in range(20)])
        assert sum(end.at < 1 for end in ends) >= 18


def test_it_recovers(world: World) -> None:
    pipeline = world.pipeline(*standard(fallback=Fallback("instead")))
    world.times(200, pipeline, ConnectionError, every=0.01)
    begun = world.now
    while world.call(pipeline, "ok") != "ok" or pipeline.policies[-1].current_state != "closed":  # type: ignore[attr-defined]
        world.sleep(0.1)
        assert world.now < begun + 4
    assert world.times(10, pipeline, "ok") == ["ok"] * 10


def test_a_plain_function_is_made_once(world: World) -> None:
    """Its effects are unknown: repeating it has to be asked for."""
    script = Script(ConnectionResetError)
    with pytest.raises(ConnectionResetError):
        world.call(world.pipeline(*standard()), script)
    assert len(script.asked) == 1
