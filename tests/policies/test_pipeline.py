"""Pipeline: the order written, policies of one's own, holdings settled once, events after all of that."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

import pybreaker
import pytest

from resilient import Bulkhead, CircuitBreaker, Fallback, Outcome, Pipeline, Retry, Timeout, standard
from resilient.call import Call, _slots
from resilient.core.backoff import Constant
from resilient.events import CallRejected, CircuitChanged, Event, FallbackServed, RetryDecided
from resilient.protocols import Inner

from .driver import Script, World, at, only_awaited, takes


class Around:
    """A policy with an async `run`."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def run(self, call: Call, inner: Inner) -> Any:
        self.log.append(f"+{self.name}")
        try:
            return await inner(call)
        finally:
            self.log.append(f"-{self.name}")


class Before:
    """A policy with a plain `run`, which is no frame of its own while the call runs."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        self.log.append(self.name)
        return inner(call)


class Holding(Before):
    """One that holds something."""

    def __init__(self, name: str, log: list[str], error: Exception | None = None) -> None:
        super().__init__(name, log)
        self.error = error
        self.settled: list[tuple[Any, Outcome, BaseException | None]] = []

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        call.held.append((self, len(self.settled)))
        return super().run(call, inner)

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> None:
        self.log.append(f"~{self.name}")
        self.settled.append((token, outcome, error))
        if self.error is not None:
            raise self.error


def test_policies_run_in_the_order_written(world: World) -> None:
    log: list[str] = []
    pipeline = world.pipeline(Around("a", log), Before("b", log), Around("c", log))
    assert world.call(pipeline, lambda: log.append("call")) is None
    assert log == ["+a", "b", "+c", "call", "-c", "-a"]


def test_an_empty_pipeline_only_counts(world: World) -> None:
    pipeline = world.pipeline()
    assert world.call(pipeline, "ok") == "ok"
    assert isinstance(world.fails(pipeline, KeyError), KeyError)
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 1, "ignored": 0}


def test_a_pipeline_stands_for_its_policies(world: World) -> None:
    log: list[str] = []
    pipeline = world.pipeline(Before("a", log), Pipeline(Before("b", log), Pipeline(Before("c", log))), Before("d", log))
    world.call(pipeline)
    assert log == ["a", "b", "c", "d"] and len(pipeline.policies) == 4


def test_a_policy_may_refuse(world: World) -> None:
    class Closed:
        def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
            raise PermissionError("not now")

    script = Script()
    bulkhead = Bulkhead(max_concurrent=1)
    assert isinstance(world.fails(world.pipeline(bulkhead, Closed()), script), PermissionError)
    assert script.asked == [] and bulkhead.in_use == 0


@pytest.mark.parametrize("policy", [object(), Bulkhead, 5, "breaker", pybreaker.CircuitBreaker, None])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    with pytest.raises(TypeError, match="^policies:"):
        Pipeline(policy)


def test_a_forgotten_star_is_told() -> None:
    for given in (standard(), [Bulkhead()]):
        with pytest.raises(TypeError, match=rf"^policies: put a star in front of a {type(given).__name__} of policies"):
            Pipeline(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [("name", 5), ("clock", 5), ("classify", "x"), ("outbox", []), ("clock", type("Half", (), {"now": lambda self: 0.0})())],
)
def test_a_bad_parameter_is_named(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}:"):
        Pipeline(**{name: value})


# -- hold and settle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "outcome"),
    [("ok", Outcome.SUCCESS), (ValueError, Outcome.FAILURE), (ConnectionError, Outcome.OUTAGE), (TimeoutError, Outcome.OUTAGE)],
)
def test_holders_are_settled_once_newest_first_with_the_outcome(world: World, item: Any, outcome: Outcome) -> None:
    log: list[str] = []
    first, second = Holding("1", log), Holding("2", log)
    world.times(1, world.pipeline(first, second), item)
    assert log == ["1", "2", "~2", "~1"]
    for holder in (first, second):
        ((token, settled, error),) = holder.settled
        assert (token, settled) == (0, outcome)
        assert (error is None) == (item == "ok")


def test_a_settle_that_raises_is_counted_and_the_next_holder_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    broken = Holding("broken", log, error=RuntimeError("settle"))
    pipeline = world.pipeline(bulkhead, broken, Holding("inner", log), name="shop")
    with caplog.at_level(logging.ERROR, "resilient"):
        assert world.call(pipeline) == "ok"
        assert isinstance(world.fails(pipeline, KeyError), KeyError)
    assert log == ["broken", "inner", "~inner", "~broken"] * 2
    assert pipeline.settle_errors == 2 and bulkhead.in_use == 0
    assert pipeline.stats.snapshot().counts["success"] == 1


def test_every_attempt_is_settled_before_the_next(world: World) -> None:
    log: list[str] = []
    outer, inner = Holding("outer", log), Holding("inner", log)
    pipeline = world.pipeline(outer, Retry(on=ValueError, backoff=Constant(1, jitter="none")), inner)
    assert world.call(pipeline, ValueError, ValueError, "ok") == "ok"
    assert log == ["outer", "inner", "~inner", "inner", "~inner", "inner", "~inner", "~outer"]
    assert [outcome for _, outcome, _ in inner.settled] == [Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS]
    assert [outcome for _, outcome, _ in outer.settled] == [Outcome.SUCCESS]


def test_a_holder_may_say_that_a_retry_is_useless(world: World) -> None:
    class Sulking(Holding):
        def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> float:  # type: ignore[override]
            return now + 10

    script = Script(ValueError)
    world.fails(world.pipeline(Retry(on=ValueError), Sulking("s", [])), script)
    assert len(script.asked) == 1 and world.now == 0


def test_a_classifier_that_raises_or_says_nonsense_loses_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)

    def broken(result: Any, error: BaseException | None) -> Any:
        if result == "nonsense":
            return "success"
        raise RuntimeError("classify")

    pipeline = world.pipeline(Fallback("instead"), bulkhead, classify=broken)
    assert world.times(3, pipeline, Script("ok", "nonsense", ValueError)) == ["ok", "nonsense", "instead"]
    assert bulkhead.in_use == 0 and pipeline.classify_errors >= 3
    assert len(caplog.records) == 1


# -- events ------------------------------------------------------------------------------------------------------


def test_listeners_are_told_after_all_is_settled(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    circuit = CircuitBreaker(1)
    pipeline = world.pipeline(Fallback("instead"), bulkhead, circuit, name="shop")
    kinds, held = [], []

    class Looking:
        def on_event(self, event: Event) -> None:
            kinds.append(type(event))
            held.append(bulkhead.in_use)
            circuit.configure(window=20)  # would wait for ever if it were called under the lock

    pipeline.outbox.add(Looking())
    world.call(pipeline, ValueError)
    world.call(pipeline)
    assert kinds == [CircuitChanged, FallbackServed, CallRejected, FallbackServed]
    assert held == [0] * 4


def test_events_come_in_the_order_in_which_things_happened(world: World) -> None:
    retry = Retry(attempts=3, on=ValueError, backoff=Constant(0.5, jitter="none"))
    pipeline = world.pipeline(Fallback("instead"), Timeout(total=30), retry, Bulkhead(), CircuitBreaker(2), name="shop")
    assert world.call(pipeline, ValueError) == "instead"
    assert world.call(pipeline, ValueError) == "instead"
    events = world.listener.events
    kinds = [type(event) for event in events]
    assert kinds == [RetryDecided, CircuitChanged, RetryDecided, FallbackServed, CallRejected, FallbackServed]
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert {event.dependency for event in events} == {"shop"}


def test_success_makes_no_event(world: World) -> None:
    pipeline = world.pipeline(Timeout(), Retry(), Bulkhead(), CircuitBreaker())
    world.times(10, pipeline)
    assert world.listener.events == []


def test_a_listener_that_raises_harms_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def on_event(self, event: Event) -> None:
            raise RuntimeError("listener")

    pipeline = world.pipeline(Fallback("instead"))
    pipeline.outbox.add(Broken())
    assert world.times(3, pipeline, ValueError) == ["instead"] * 3
    assert pipeline.outbox.listener_errors == 3 and len(world.listener.of(FallbackServed)) == 3
    assert len(caplog.records) == 1


def test_a_listener_may_call_through_the_same_pipeline() -> None:
    circuit = CircuitBreaker(1)
    pipeline = Pipeline(Fallback("instead"), circuit)
    seen: list[Any] = []

    class Calling:
        def on_event(self, event: Event) -> None:
            seen.append(type(event).__name__)
            if isinstance(event, CircuitChanged) and event.new == "open":
                seen.append(pipeline.call_sync(int))

    pipeline.outbox.add(Calling())
    assert pipeline.call_sync(int, "x") == "instead"
    assert seen == ["CircuitChanged", "instead", "FallbackServed", "CallRejected", "FallbackServed"]


# -- switches ----------------------------------------------------------------------------------------------------


def test_switched_off_everything_passes_untouched(world: World) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    pipeline = world.pipeline(Fallback("instead"), Timeout(total=1), Bulkhead(max_concurrent=1, queue=0), circuit)
    pipeline.enabled = False
    assert world.call(pipeline, takes(5)) == "ok"
    assert isinstance(world.fails(pipeline, KeyError), KeyError)
    pipeline.enabled = True
    assert world.call(pipeline) == "instead"
    assert pipeline.stats.snapshot().counts["success"] == 0


def test_a_call_under_way_ends_as_it_began(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    pipeline = world.pipeline(bulkhead)
    world.together(pipeline, (0, takes(2)), at(1, lambda: setattr(pipeline, "enabled", False)))
    assert bulkhead.in_use == 0


def test_the_environment_switches_off_at_construction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    monkeypatch.setenv("RESILIENT_ENABLED", "0")
    pipeline = world.pipeline(circuit)
    monkeypatch.delenv("RESILIENT_ENABLED")
    assert world.call(pipeline) == "ok"
    assert not pipeline.enabled and world.pipeline().enabled


def test_reset_forgets_all_that_was_learnt(world: World) -> None:
    circuit = CircuitBreaker(2)
    pipeline = world.pipeline(circuit)
    world.times(2, pipeline, ValueError)
    pipeline.reset()
    assert circuit.current_state == "closed"
    assert world.times(2, pipeline, Script("ok", ValueError)) == ["ok", "ValueError"]
    assert circuit.current_state == "closed"
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 1, "ignored": 0}


@only_awaited
def test_a_function_that_is_not_async_is_the_callers_mistake(world: World) -> None:
    circuit = CircuitBreaker(1)
    pipeline = world.pipeline(circuit)

    async def main() -> None:
        for timed in ((), (Timeout(),)):
            with pytest.raises(TypeError, match="call_sync"):
                await Pipeline(*timed, circuit, clock=world.clock).call(int)  # type: ignore[arg-type]

    world._run(world.clock, main)  # type: ignore[attr-defined]
    assert circuit.current_state == "closed" and pipeline.policies == (circuit,)


def test_a_branch_has_all_that_its_call_has() -> None:
    """Each slot is copied by its name: a new one must not be forgotten."""
    call = Pipeline().begin(len, ("text",), {})
    for number, name in enumerate(_slots(type(call))):
        setattr(call, name, [number])
    call.note = "own"  # type: ignore[attr-defined]
    branch = call.branch()
    assert {name: getattr(branch, name) for name in _slots(type(call))} == {
        name: [] if name == "held" else getattr(call, name) for name in _slots(type(call))
    }
    assert branch.note == "own" and branch.held is not call.held  # type: ignore[attr-defined]
