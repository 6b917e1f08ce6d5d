"""Chaos on functions: what it does, to which calls, when it is allowed to, and that it is told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from resilient import Bulkhead, Chaos, CircuitBreaker, Dependency, Fallback, Pipeline, Resilience, Retry, Timeout, standard
from resilient.core.backoff import Constant
from resilient.errors import DeadlineExceeded
from resilient.events import FaultInjected
from resilient.testing import FakeClock

from .driver import Script, World, only_awaited, only_in_threads, takes


def told(world: World) -> list[tuple[str, bool]]:
    return [(event.kind, event.enforced) for event in world.listener.of(FaultInjected)]


# -- what it does -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [OSError("gone"), OSError, lambda call: OSError("gone")], ids=["instance", "class", "function"])
def test_a_fault_is_raised_and_the_dependency_is_not_asked(world: World, fault: Any) -> None:
    script, chaos = Script("ok"), Chaos(rate=1, fault=fault)
    pipeline = world.pipeline(chaos, name="shop", chaos=True)
    error = world.fails(pipeline, script)
    assert type(error) is OSError and error.__notes__ == ["injected by a Chaos of shop"]
    assert script.asked == []
    assert told(world) == [("fault", True)] and chaos.injected == 1
    assert pipeline.stats.snapshot().counts["failure"] == 1


def test_an_instance_is_copied_so_that_nothing_piles_up_on_it(world: World) -> None:
    fault = OSError("gone")
    pipeline = world.pipeline(Chaos(rate=1, fault=fault), chaos=True)
    assert world.fails(pipeline) is not world.fails(pipeline)
    assert fault.__traceback__ is None and not hasattr(fault, "__notes__")


def test_a_function_may_choose_to_do_nothing(world: World) -> None:
    pipeline = world.pipeline(Chaos(rate=1, fault=lambda call: None, latency=5), chaos=True)
    ends = world.together(pipeline, (0, "ok"))
    assert (ends[0].value, ends[0].at) == ("ok", pytest.approx(0)) and told(world) == []


def test_latency_comes_before_the_call(world: World) -> None:
    pipeline = world.pipeline(Chaos(rate=1, latency=2), chaos=True)
    ends = world.together(pipeline, (0, takes(1)))
    assert (ends[0].value, ends[0].at) == ("ok", pytest.approx(3))
    assert told(world) == [("latency", True)]


def test_latency_between_two_bounds(world: World) -> None:
    pipeline = world.pipeline(Chaos(rate=1, latency=(1, 3), seed=5), chaos=True)
    ends = [end.at for _ in range(50) for end in world.together(pipeline, (0, "ok"))]
    assert all(1 <= at <= 3 for at in ends) and max(ends) - min(ends) > 1.5


def test_latency_before_another_harm(world: World) -> None:
    pipeline = world.pipeline(Chaos(rate=1, fault=OSError, latency=2), chaos=True)
    ends = world.together(pipeline, (0, "ok"))
    assert isinstance(ends[0].error, OSError) and ends[0].at == pytest.approx(2)
    assert told(world) == [("fault", True)]


def test_a_result_in_place_of_the_real_one(world: World) -> None:
    stock = {"left": 0}
    pipeline = world.pipeline(Chaos(rate=1, result=stock), chaos=True)
    got = world.call(pipeline, "ok")
    assert got == stock and got is not stock
    made = world.pipeline(Chaos(rate=1, result=lambda: "made"), chaos=True)
    assert world.call(made, "ok") == "made"


def test_a_hang_ends_where_a_real_one_would(world: World) -> None:
    """By the attempt's timeout while another attempt may follow, and it is an outage."""
    circuit = CircuitBreaker(100)
    pipeline = world.pipeline(Timeout(total=5, attempt=2), Retry(on=KeyError, attempts=2), circuit, Chaos(rate=1, hang=True), chaos=True)
    ends = world.together(pipeline, (0, "ok"))
    assert isinstance(ends[0].error, DeadlineExceeded) and ends[0].at == pytest.approx(2)
    assert circuit.fail_counter == 1
    assert told(world) == [("hang", True)]


@only_awaited
def test_latency_beyond_the_deadline_is_cut(world: World) -> None:
    ends = world.together(world.pipeline(Timeout(total=2), Chaos(rate=1, latency=9), chaos=True), (0, "ok"))
    assert isinstance(ends[0].error, DeadlineExceeded) and ends[0].at == pytest.approx(2)


@only_in_threads
def test_latency_beyond_the_deadline_makes_a_thread_late(world: World) -> None:
    """As a slow function would."""
    pipeline = world.pipeline(Timeout(total=2), Chaos(rate=1, latency=9), chaos=True)
    ends = world.together(pipeline, (0, "ok"))
    assert (ends[0].value, ends[0].at) == ("ok", pytest.approx(9))
    assert pipeline.stats.snapshot().counts["failure"] == 1


@pytest.mark.asyncio
async def test_on_an_event_loops_thread_a_plain_function_never_waits() -> None:
    clock = FakeClock()
    silent = Dependency("silent", Timeout(total=5), Chaos(rate=1, hang=True), clock=clock, chaos=True)
    slow = Dependency("slow", Timeout(total=5), Chaos(rate=1, latency=2), clock=clock, chaos=True)
    began = clock.now()
    with pytest.warns(RuntimeWarning, match="never waits"), pytest.raises(TimeoutError, match="injected"):
        silent.call_sync(str)
    with pytest.warns(RuntimeWarning, match="never waits"):
        assert slow.call_sync(str) == ""
    assert clock.now() == began


# -- through the other policies ---------------------------------------------------------------------------------------


def test_each_attempt_has_its_own_chance(world: World) -> None:
    chaos = Chaos(rate=0.5, fault=OSError, seed=3)
    pipeline = world.pipeline(Retry(on=OSError, attempts=3, backoff=Constant(0)), chaos, chaos=True)
    ends = world.times(40, pipeline, "ok")
    assert ends.count("ok") > 25 and chaos.injected > 10


def test_policies_see_it_as_the_dependencys_doing(world: World) -> None:
    circuit, bulkhead = CircuitBreaker(3), Bulkhead()
    pipeline = world.pipeline(Fallback("static"), bulkhead, circuit, Chaos(rate=1, fault=OSError), chaos=True)
    assert world.times(5, pipeline, "ok") == ["static"] * 5
    assert circuit.current_state == "open" and bulkhead.in_use == 0
    assert len(told(world)) == 3


def test_a_policy_of_ones_own_may_hand_a_call_to_it(world: World) -> None:
    class Second:
        chaos = Chaos(rate=1, fault=OSError)

        def run(self, call: Any, inner: Any) -> Any:
            return self.chaos.run(call, inner)

    assert isinstance(world.fails(world.pipeline(Second(), chaos=True)), OSError)


def test_innermost_in_the_standard_order() -> None:
    chaos = Chaos(rate=0, hang=True)
    assert standard(chaos=chaos)[-1] is chaos
    with pytest.raises(TypeError, match="^chaos: expected a Chaos"):
        standard(chaos=True)  # type: ignore[arg-type]


def test_generators_are_harmed_at_their_beginning(world: World) -> None:
    dependency = Dependency("rows", Chaos(rate=1, fault=OSError), clock=world.clock, chaos=True)

    @dependency
    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(OSError, match="injected"):
        next(rows())


# -- which calls ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_rate_is_kept(world: World) -> None:
    chaos = Chaos(rate=0.2, fault=OSError, seed=1)
    ends = world.times(1000, world.pipeline(chaos, chaos=True), "ok")
    assert 150 < ends.count("OSError") < 250 and chaos.injected == ends.count("OSError")


def test_a_rate_of_zero_does_nothing(world: World) -> None:
    assert world.times(100, world.pipeline(Chaos(rate=0, fault=OSError), chaos=True), "ok") == ["ok"] * 100


def test_a_seed_makes_the_same_choices_again(world: World) -> None:
    def choices(chaos: Chaos) -> list[str]:
        return world.times(50, world.pipeline(chaos, chaos=True), "ok")

    first = Chaos(rate=0.5, fault=OSError, seed=7)
    seen = choices(first)
    assert choices(Chaos(rate=0.5, fault=OSError, seed=7)) == seen != choices(Chaos(rate=0.5, fault=OSError, seed=8))
    first.reset()
    assert first.injected == 0 and choices(first) == seen


def test_when_says_which(world: World) -> None:
    chaos = Chaos(rate=1, fault=OSError, when=lambda call: call.args[0].asked == [])
    pipeline, script = world.pipeline(chaos, chaos=True), Script("ok")
    assert isinstance(world.fails(pipeline, script), OSError)
    script.next(0)
    assert world.call(pipeline, script) == "ok"


def test_when_that_fails_harms_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    chaos = Chaos(rate=1, fault=OSError, when=lambda call: 1 / 0 > 0)
    assert world.times(3, world.pipeline(chaos, chaos=True), "ok") == ["ok"] * 3
    assert len([record for record in caplog.records if "when" in record.msg]) == 1


@pytest.mark.parametrize("settings", [{"match": "GET"}, {"header": "x-chaos"}])
def test_functions_have_neither_route_nor_header(world: World, settings: Any) -> None:
    assert world.call(world.pipeline(Chaos(rate=1, fault=OSError, **settings), chaos=True), "ok") == "ok"


@pytest.mark.parametrize("settings", [{"status": 503}, {"truncate": 4}])
def test_what_only_http_answers_have_is_said_once(world: World, caplog: pytest.LogCaptureFixture, settings: Any) -> None:
    assert world.times(3, world.pipeline(Chaos(rate=1, **settings), chaos=True), "ok") == ["ok"] * 3
    assert told(world) == []
    assert len([record for record in caplog.records if "does nothing to functions" in record.msg]) == 1


# -- switches ---------------------------------------------------------------------------------------------------------


def test_it_is_off_unless_allowed_and_says_so_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    chaos = Chaos(rate=1, fault=OSError)
    pipeline = world.pipeline(chaos, name="shop")
    assert world.times(3, pipeline, "ok") == ["ok"] * 3
    assert not pipeline.chaos and told(world) == [] and chaos.injected == 0
    assert [record.getMessage() for record in caplog.records] == [
        "shop: Chaos(rate=1, fault=OSError) does nothing, for chaos is not allowed; Resilience(chaos=True) or RESILIENT_CHAOS=1 allows it"
    ]


def test_where_it_is_allowed_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Dependency("shop", Chaos(rate=0.05, latency=3), chaos=True)
    assert [record.getMessage() for record in caplog.records] == ["shop: chaos is allowed: Chaos(rate=0.05, latency=3) harms its calls"]


@pytest.mark.parametrize(("said", "allowed"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_allows_it(monkeypatch: pytest.MonkeyPatch, said: str, allowed: bool) -> None:
    monkeypatch.setenv("RESILIENT_CHAOS", said)
    assert Dependency("shop").chaos is Resilience().chaos is allowed
    assert Dependency("shop", chaos=True).chaos and not Resilience(chaos=False).dependency("shop").chaos


def test_the_environment_says_yes_or_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENT_CHAOS", "a bit")
    with pytest.raises(ValueError, match="^RESILIENT_CHAOS"):
        Resilience()
    with pytest.raises(TypeError, match="^chaos"):
        Resilience(chaos="yes")  # type: ignore[arg-type]


def test_one_switch_for_a_whole_service(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    resilience = Resilience(clock=clock, chaos=True)
    shop = resilience.dependency("shop", Chaos(rate=1, fault=OSError))
    with pytest.raises(OSError, match="injected"):
        shop.call_sync(str)
    resilience.chaos = False
    assert not resilience.chaos and shop.call_sync(str) == ""
    assert caplog.records[-1].getMessage() == "chaos is not allowed from now on"
    resilience.chaos = True
    with pytest.raises(OSError, match="injected"):
        shop.call_sync(str)
    with pytest.raises(TypeError, match="^chaos"):
        resilience.chaos = 1  # type: ignore[assignment]


def test_one_switch_for_each(world: World) -> None:
    chaos = Chaos(rate=1, fault=OSError, enabled=False)
    pipeline = world.pipeline(chaos, chaos=True)
    assert world.call(pipeline, "ok") == "ok" and not chaos.enabled
    chaos.enabled = True
    assert isinstance(world.fails(pipeline), OSError) and chaos.enabled
    with pytest.raises(TypeError, match="^enabled"):
        chaos.enabled = 1  # type: ignore[assignment]


def test_shadow_mode_tells_what_it_would_have_done(world: World) -> None:
    chaos = Chaos(rate=1, hang=True, enforce=False)
    assert world.call(world.pipeline(chaos, chaos=True), "ok") == "ok"
    assert told(world) == [("hang", False)] and chaos.injected == 0


def test_it_is_counted_by_kind(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock, chaos=True)
    shop = resilience.dependency("shop", Chaos(rate=1, latency=1), Chaos(rate=1, fault=OSError, enforce=False))
    shop.call_sync(str)
    page = resilience.metrics.render()[0].decode()
    assert 'resilient_faults_injected_total{dependency="shop",kind="latency"} 1.0' in page
    assert 'resilient_faults_injected_total{dependency="shop",kind="shadow_fault"} 1.0' in page


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"hang": True}, "rate"),
        ({"rate": 2, "hang": True}, "rate"),
        ({"rate": "1", "hang": True}, "rate"),
        ({"rate": 1}, "fault, status, result, truncate, hang or latency"),
        ({"rate": 1, "hang": True, "status": 500}, "status, hang: one Chaos does one kind"),
        ({"rate": 1, "hang": 1}, "hang"),
        ({"rate": 1, "status": 99}, "status"),
        ({"rate": 1, "status": 600}, "status"),
        ({"rate": 1, "status": "500"}, "status"),
        ({"rate": 1, "truncate": -1}, "truncate"),
        ({"rate": 1, "fault": "OSError"}, "fault"),
        ({"rate": 1, "fault": KeyboardInterrupt}, "fault"),
        ({"rate": 1, "fault": KeyboardInterrupt()}, "fault"),
        ({"rate": 1, "fault": UnicodeDecodeError}, "fault: UnicodeDecodeError takes more than a message"),
        ({"rate": 1, "latency": -1}, "latency"),
        ({"rate": 1, "latency": (2, 1)}, "latency"),
        ({"rate": 1, "latency": (1, 2, 3)}, "latency"),
        ({"rate": 1, "hang": True, "match": "get"}, "match"),
        ({"rate": 1, "hang": True, "header": 7}, "header"),
        ({"rate": 1, "hang": True, "header": ": x"}, "header"),
        ({"rate": 1, "hang": True, "when": True}, "when"),
        ({"rate": 1, "hang": True, "seed": "x"}, "seed"),
        ({"rate": 1, "hang": True, "enabled": 1}, "enabled"),
        ({"rate": 1, "hang": True, "enforce": 0}, "enforce"),
    ],
)
def test_settings_are_checked(settings: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Chaos(**settings)


@pytest.mark.parametrize(
    ("rate", "harmed"),
    [
        pytest.param(0, False, id="chaos-01 never"),
        pytest.param(0.5, False, id="chaos-01 at it"),
        pytest.param(0.6, True, id="chaos-01 below"),
        pytest.param(1, True, id="chaos-01 always"),
    ],
)
def test_it_harms_when_chance_is_below_the_rate(monkeypatch: pytest.MonkeyPatch, rate: float, harmed: bool) -> None:
    """There a rate out of bounds is coerced; here it is refused at construction."""
    chaos = Chaos(rate=rate, fault=ConnectionError)
    monkeypatch.setattr(chaos, "_random", SimpleNamespace(random=lambda: 0.5))
    try:
        Pipeline(chaos, chaos=True).call_sync(int)
    except ConnectionError:
        assert harmed
    else:
        assert not harmed
