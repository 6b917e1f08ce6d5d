"""Fallback: what is answered instead, for which failures, and who is told."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from resilient import Bulkhead, CircuitBreaker, CircuitOpen, DeadlineExceeded, Fallback, Feature, Outcome, Resilience, Retry, Timeout
from resilient.context import RECORD
from resilient.core.backoff import Constant
from resilient.core.degradation import DegradationRecord
from resilient.events import FallbackServed, RetryDecided

from .driver import Script, World, at, only_awaited, takes


def served(world: World) -> list[tuple[str, str, str]]:
    return [(event.dependency, event.level, event.cause) for event in world.listener.of(FallbackServed)]


def test_a_value_is_served_for_a_failure_and_told(world: World) -> None:
    pipeline = world.pipeline(Fallback("instead"), name="shop")
    assert world.call(pipeline, ValueError) == "instead"
    assert served(world) == [("shop", "static", "ValueError")]
    assert pipeline.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 0, "fallback": 1}


def test_an_answer_is_never_replaced(world: World) -> None:
    pipeline = world.pipeline(Fallback("instead"))
    assert world.call(pipeline, "ok") == "ok"
    assert world.call(pipeline, lambda: None) is None
    assert served(world) == []


@pytest.mark.parametrize("value", [None, 0, "", False, (), [], {}])
def test_nothing_much_is_a_fallback_too(world: World, value: Any) -> None:
    assert world.call(world.pipeline(Fallback(value)), ValueError) == value


@pytest.mark.parametrize("value", [[1, [2]], {"a": {"b": 1}}, {1}, ([1],)])
def test_containers_are_copied_for_each_use(world: World, value: Any) -> None:
    pipeline = world.pipeline(Fallback(value))
    first, second = world.call(pipeline, ValueError), world.call(pipeline, ValueError)
    assert first == second == value
    assert first is not second and first is not value


def test_a_function_makes_one(world: World) -> None:
    pipeline = world.pipeline(Fallback(lambda: "made"), name="shop")
    assert world.call(pipeline, ValueError) == "made"
    assert served(world) == [("shop", "reduced", "ValueError")]


def test_a_function_gets_the_arguments_of_the_call(world: World) -> None:
    pipeline = world.pipeline(Fallback(lambda script: f"in place of {type(script).__name__}"))
    assert world.call(pipeline, ValueError) == "in place of Script"


@only_awaited
def test_an_async_function_is_awaited(world: World) -> None:
    async def made() -> str:
        return "awaited"

    assert world.call(world.pipeline(Fallback(made)), ValueError) == "awaited"


def test_what_the_fallback_raises_reaches_the_caller_with_the_failure_behind_it(world: World) -> None:
    def broken() -> None:
        raise KeyError("no cache either")

    error = world.fails(world.pipeline(Fallback(broken)), ValueError)
    assert isinstance(error, KeyError) and isinstance(error.__context__, ValueError)
    assert served(world) == []


def test_what_cannot_be_served_is_not_told_as_served(world: World) -> None:
    def items() -> Any:
        raise ValueError
        yield

    pipeline = world.pipeline(Fallback(5), name="shop")
    with pytest.raises(TypeError, match="^fallback: expected items to yield"):
        next(pipeline(items)())
    assert served(world) == []
    assert "fallback" not in pipeline.stats.snapshot().counts


# -- for which failures ------------------------------------------------------------------------------------------


def test_refusals_and_cuts_are_answered(world: World) -> None:
    circuit = CircuitBreaker()
    pipeline = world.pipeline(Fallback("instead"), Timeout(total=1), Bulkhead(max_concurrent=1, queue=0), circuit)
    ends = world.together(pipeline, (0, takes(0.5)), (0.1, "too many"))
    assert ends[1].value == "instead"
    circuit.open()
    assert world.call(pipeline) == "instead"
    circuit.close()
    assert world.call(pipeline, takes(3, "late")) == ("instead" if world.interrupts else "late")
    causes = ["bulkhead_full", "circuit_open"] + ["deadline"] * world.interrupts
    assert [cause for *_, cause in served(world)] == causes


def test_a_failed_answer_is_replaced(world: World) -> None:
    pipeline = world.pipeline(Fallback("instead"), classify=lambda result, error: Outcome.FAILURE if result == "sorry" else None)
    assert world.call(pipeline, "sorry") == "instead"
    assert world.call(pipeline, "fine") == "fine"
    assert [cause for *_, cause in served(world)] == ["result"]


def test_what_says_nothing_of_the_dependency_passes(world: World) -> None:
    pipeline = world.pipeline(Fallback("instead"), classify=lambda result, error: Outcome.IGNORED if isinstance(error, KeyError) else None)
    assert isinstance(world.fails(pipeline, KeyError), KeyError)
    assert served(world) == []


def test_more_can_be_named(world: World) -> None:
    ignore = {"classify": lambda result, error: Outcome.IGNORED if error else None}
    assert world.call(world.pipeline(Fallback("instead", on=KeyError), **ignore), KeyError) == "instead"
    assert world.call(world.pipeline(Fallback("instead", on=(KeyError, OSError)), **ignore), FileNotFoundError) == "instead"
    assert isinstance(world.fails(world.pipeline(Fallback("instead", on=KeyError), **ignore), OSError), OSError)


# -- what is around it -------------------------------------------------------------------------------------------


def test_nothing_is_held_while_the_replacement_is_made(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    seen = []
    pipeline = world.pipeline(Fallback(lambda: seen.append(bulkhead.in_use)), bulkhead)
    world.call(pipeline, ValueError)
    assert seen == [0]


def test_it_comes_after_all_retries(world: World) -> None:
    script = Script(ValueError)
    assert world.call(world.pipeline(Fallback("instead"), Retry(on=ValueError)), script) == "instead"
    assert len(script.asked) == 3


def test_a_retry_outside_it_has_nothing_to_repeat(world: World) -> None:
    script = Script(ValueError)
    assert world.call(world.pipeline(Retry(on=ValueError), Fallback("instead")), script) == "instead"
    assert len(script.asked) == 1 and world.listener.of(RetryDecided) == []


def test_one_inside_another(world: World) -> None:
    def broken() -> None:
        raise KeyError

    pipeline = world.pipeline(Fallback("last"), Fallback(broken))
    assert world.call(pipeline, ValueError) == "last"
    assert [cause for *_, cause in served(world)] == ["KeyError"]


def test_it_is_told_on_the_record_of_the_request(world: World) -> None:
    record = DegradationRecord()
    token = RECORD.set(record)
    try:
        world.call(world.pipeline(Fallback("instead"), name="shop"), ConnectionError)
    finally:
        RECORD.reset(token)
    (entry,) = record.entries
    assert (entry.feature, entry.level, entry.cause, entry.dependency) == ("shop", "static", "ConnectionError", "shop")


def test_an_open_circuit_is_answered_at_once(world: World) -> None:
    circuit = CircuitBreaker()
    pipeline = world.pipeline(Fallback("instead"), Timeout(total=30), Retry(on=Exception), circuit)
    circuit.trip()
    ends = world.together(pipeline, *[(0.1, "never asked")] * 20, at(0.2, circuit.close))
    assert {end.value for end in ends} == {"instead"}
    assert all(end.at == pytest.approx(0.1) for end in ends)


def test_its_latency_is_not_learnt(world: World) -> None:
    pipeline = world.pipeline(Fallback(lambda: "instead"))
    world.times(30, pipeline, takes(1, ValueError))
    assert pipeline.stats.p95() is None
    assert pipeline.stats.snapshot().counts["fallback"] == 30


@pytest.mark.parametrize("on", ["ValueError", b"x", [KeyError, "x"], (KeyError, 5), BaseException, KeyError(), None, 7])
@pytest.mark.parametrize("make", [partial(Fallback, "x"), partial(Feature, Resilience(), "x"), Retry])
def test_on_takes_exception_classes(make: Any, on: Any) -> None:
    if make is Retry and on is None:
        return  # which stands for none
    with pytest.raises(TypeError, match="^on: expected exception classes"):
        make(on=on)


@pytest.mark.parametrize(
    "form", [lambda: LookupError, lambda: (KeyError, IndexError), lambda: [KeyError], lambda: {KeyError}, lambda: iter([KeyError])]
)
def test_on_is_one_class_or_several_in_whatever_holds_them(world: World, form: Any) -> None:
    def classify(result: Any, error: Exception | None) -> Outcome | None:
        return Outcome.IGNORED if isinstance(error, LookupError) else None

    pipeline = world.pipeline(Fallback("instead", on=form()), classify=classify)
    for _ in range(2):
        assert world.call(pipeline, KeyError) == "instead"
    feature = Feature(Resilience(), "x", fallback="instead", on=form())

    @feature
    def use() -> Any:
        raise KeyError("x")

    assert use() == use() == "instead"
    assert world.call(world.pipeline(Retry(on=form(), backoff=Constant(0.0))), KeyError, "second") == "second"


def test_errors_without_a_fallback_are_what_they_were(world: World) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    assert isinstance(world.fails(world.pipeline(circuit)), CircuitOpen)
    if world.interrupts:
        assert isinstance(world.fails(world.pipeline(Timeout(total=1)), takes(2)), DeadlineExceeded)
