"""RateLimit: who goes, who waits, who is refused, and what a call is charged. The meter alone is tested in core."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Pipeline,
    RateLimit,
    RateLimited,
    Rejected,
    Retry,
    SpendExceeded,
    Timeout,
)
from resilient.call import Call
from resilient.context import deadline_scope
from resilient.core.backoff import Constant
from resilient.events import CallRejected
from resilient.protocols import Inner
from resilient.testing import FakeClock

from ..thorough import often
from .driver import Arrival, Ended, Script, World, at, only_awaited, only_in_threads, takes


def rejections(world: World) -> list[tuple[str, str, bool]]:
    return [(event.policy, event.reason, event.enforced) for event in world.listener.of(CallRejected)]


def names(ends: list[Ended]) -> list[str]:
    return [str(end.value) if end.error is None else type(end.error).__name__ for end in ends]


def at_once(attempts: int = 3, **settings: Any) -> Retry:
    return Retry(attempts=attempts, on=ValueError, backoff=Constant(0, jitter="none"), **settings)


# -- without waiting ---------------------------------------------------------------------------------------------


def test_as_many_at_once_as_the_burst_and_then_at_the_rate(world: World) -> None:
    pipeline = world.pipeline(RateLimit(10, burst=3))
    assert world.times(5, pipeline) == ["ok"] * 3 + ["RateLimited"] * 2
    world.sleep(0.1)
    assert world.times(2, pipeline) == ["ok", "RateLimited"]
    world.sleep(10)
    assert world.times(5, pipeline) == ["ok"] * 3 + ["RateLimited"] * 2


def test_by_default_a_whole_period_goes_at_once(world: World) -> None:
    assert world.times(61, world.pipeline(RateLimit(60, per=60)))[-2:] == ["ok", "RateLimited"]
    assert world.times(2, world.pipeline(RateLimit(0.1))) == ["ok", "RateLimited"]


def test_a_refusal_says_why_and_when_to_come_back(world: World) -> None:
    pipeline = world.pipeline(RateLimit(2, per=10, burst=1), name="shop")
    world.call(pipeline)
    world.sleep(1)
    script = Script()
    error = world.fails(pipeline, script)
    assert isinstance(error, RateLimited) and isinstance(error, Rejected)
    assert (error.dependency, error.policy, error.reason) == ("shop", "ratelimit", "rate")
    assert error.retry_after == pytest.approx(4)
    assert str(error) == "shop: the limit of 2 in 10 s is reached (rate)"
    assert script.asked == []
    assert rejections(world) == [("ratelimit", "rate", True)]
    world.sleep(error.retry_after)
    assert world.call(pipeline) == "ok"


def test_a_refusal_says_nothing_of_the_dependency(world: World) -> None:
    circuit = CircuitBreaker(1)
    pipeline = world.pipeline(circuit, RateLimit(1))
    assert world.times(4, pipeline) == ["ok"] + ["RateLimited"] * 3
    assert circuit.current_state == "closed" and circuit.fail_counter == 0
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 3}


def test_a_fallback_answers_what_is_refused(world: World) -> None:
    pipeline = world.pipeline(Fallback("instead"), RateLimit(1))
    assert world.times(2, pipeline) == ["ok", "instead"]


def test_one_limit_for_several_pipelines(world: World) -> None:
    limit = RateLimit(2)
    assert world.times(1, world.pipeline(limit)) == ["ok"]
    assert world.times(2, world.pipeline(limit)) == ["ok", "RateLimited"]


def test_reset_is_a_fresh_start(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, per=1000))
    assert world.times(2, pipeline) == ["ok", "RateLimited"]
    pipeline.reset()
    assert world.times(2, pipeline) == ["ok", "RateLimited"]


def test_reset_lets_those_go_who_wait(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, per=100, max_wait=1000))
    ends = world.together(pipeline, (0, "ok"), (1, "waits"), (2, "waits, too"), at(5, pipeline.reset))
    assert [end.at for end in ends] == pytest.approx([0, 5, 105])


# -- a call or an attempt ----------------------------------------------------------------------------------------


def test_outside_a_retry_it_counts_calls(world: World) -> None:
    script = Script(ValueError)
    pipeline = world.pipeline(RateLimit(2), at_once())
    world.fails(pipeline, script)
    assert world.times(2, pipeline) == ["ok", "RateLimited"]
    assert len(script.asked) == 3


def test_inside_a_retry_it_counts_attempts_and_the_caller_gets_the_last_answer(world: World) -> None:
    script = Script(ValueError)
    pipeline = world.pipeline(at_once(), RateLimit(2))
    assert isinstance(world.fails(pipeline, script), ValueError)
    assert len(script.asked) == 2
    assert isinstance(world.fails(pipeline, script), RateLimited)


# -- waiting -----------------------------------------------------------------------------------------------------


def test_waiting_callers_go_one_by_one_first_come_first_served(world: World) -> None:
    pipeline = world.pipeline(RateLimit(2, burst=1, max_wait=5))
    ends = world.together(pipeline, *[(number / 1000, takes(0.1, number)) for number in range(6)])
    assert [end.value for end in ends] == list(range(6))
    assert [end.at for end in ends] == pytest.approx([0.1, 0.6, 1.1, 1.6, 2.1, 2.6], abs=0.01)


def test_who_would_wait_for_too_long_is_refused_at_once(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, max_wait=2))
    ends = world.together(pipeline, *[(number / 1000, "ok") for number in range(5)])
    assert names(ends) == ["ok"] * 3 + ["RateLimited"] * 2
    error = ends[3].error
    assert isinstance(error, RateLimited) and error.reason == "rate" and ends[3].at == pytest.approx(0.003)
    assert error.retry_after == pytest.approx(2.997, abs=0.001)


def test_who_would_wait_beyond_his_deadline_is_refused_at_once(world: World) -> None:
    circuit = CircuitBreaker(1)
    pipeline = world.pipeline(circuit, Timeout(total=1.5), RateLimit(1, max_wait=30), name="shop")
    ends = world.together(pipeline, *[(number / 1000, "ok") for number in range(4)])
    assert names(ends) == ["ok", "ok", "RateLimited", "RateLimited"]
    error = ends[2].error
    assert isinstance(error, RateLimited) and error.reason == "deadline" and ends[2].at == pytest.approx(0.002)
    assert error.retry_after == pytest.approx(1.998, abs=0.001)
    assert rejections(world) == [("ratelimit", "deadline", True)] * 2
    assert circuit.fail_counter == 0


def test_a_deadline_from_outside_counts_too(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, max_wait=30))
    with deadline_scope(Deadline.after(0.5, world.clock)):
        ends = world.together(pipeline, (0, "ok"), (0.1, "late"))
    assert isinstance(ends[1].error, RateLimited) and ends[1].error.reason == "deadline" and ends[1].at == pytest.approx(0.1)


def test_a_wait_that_ends_too_near_the_deadline_is_of_no_use(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=1.05, min_useful=0.1), RateLimit(1, max_wait=30))
    ends = world.together(pipeline, (0, "ok"), (0, "ok"))
    assert sorted(names(ends)) == ["RateLimited", "ok"]


@only_awaited
def test_who_is_cancelled_while_he_waits_gives_his_place_to_the_next(world: World) -> None:
    limit = RateLimit(1, max_wait=30)

    class Impatient:
        async def run(self, call: Call, inner: Inner) -> Any:
            with anyio.move_on_after(0.5):
                return await inner(call)
            return "gone"

    impatient, patient = world.pipeline(Impatient(), limit), world.pipeline(limit)
    ends = world.scene(
        [
            Arrival(0, script=Script("first"), pipeline=patient),
            *[Arrival(0.01, script=Script("never"), pipeline=impatient) for _ in range(20)],
            Arrival(0.02, script=Script("second"), pipeline=patient),
            Arrival(0.03, script=Script("third"), pipeline=patient),
        ]
    )
    assert [end.value for end in ends] == ["first"] + ["gone"] * 20 + ["second", "third"]
    assert [end.at for end in ends[-2:]] == pytest.approx([1, 2])
    world.sleep(1)
    assert world.call(patient) == "ok"


@only_awaited
def test_a_turn_that_comes_with_a_cancellation_is_passed_on(world: World) -> None:
    limit = RateLimit(1, max_wait=30)

    class Impatient:
        async def run(self, call: Call, inner: Inner) -> Any:
            with anyio.move_on_after(1.0):
                return await inner(call)
            return "gone"

    impatient, patient = world.pipeline(Impatient(), limit), world.pipeline(limit)
    script = Script("sent")
    ends = world.scene(
        [
            Arrival(0, script=Script("first"), pipeline=patient),
            Arrival(0, script=script, pipeline=impatient),
            Arrival(0.5, script=Script("next"), pipeline=patient),
        ]
    )
    # Whichever comes first, the turn or the cancellation: the next one waits for no more than those who went.
    sent = len(script.asked)
    assert ends[2].at == pytest.approx(1 + sent)
    assert ends[1].value == ("sent" if sent else "gone")


def test_a_thread_with_a_running_loop_never_waits() -> None:
    pipeline = Pipeline(RateLimit(0.01, max_wait=300))

    async def main() -> list[str]:
        ends = []
        for _ in range(2):
            try:
                ends.append(pipeline.call_sync(lambda: "ok"))
            except RateLimited as error:
                ends.append(str(error.reason))
        return ends

    with pytest.warns(RuntimeWarning, match="never waits"):
        assert asyncio.run(main()) == ["ok", "rate"]


def test_who_waits_on_a_loop_that_is_closed_holds_up_nobody() -> None:
    clock = FakeClock()
    pipeline = Pipeline(RateLimit(1, max_wait=30), clock=clock)
    assert pipeline.call_sync(str) == ""

    async def wait() -> None:
        task = asyncio.ensure_future(pipeline.call(anyio.sleep, 0))
        await asyncio.sleep(0)
        kept.append(task)

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(wait())
    loop.close()
    clock.advance(0.5)
    began = clock.now()
    assert [pipeline.call_sync(str) for _ in range(2)] == ["", ""]
    assert clock.now() - began <= 2.5  # the lost one's turn was passed on or, at the worst, passed by
    kept[0]._log_destroy_pending = False


@pytest.mark.slow
@settings(max_examples=often(60), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 0.3, 1.0, 5.0])), min_size=1, max_size=25),
    st.integers(1, 3),
)
def test_never_over_the_rate_with_any_callers(arrivals: list[tuple[int, float]], burst: int) -> None:
    """Callers come whenever they like, wait, and lose patience: in any window no more than burst and rate go."""
    clock = FakeClock()
    limit = RateLimit(4, burst=burst, max_wait=3)
    pipeline = Pipeline(limit, clock=clock)
    went: list[float] = []
    refused: list[float | None] = []

    async def send() -> None:
        went.append(clock.now())

    async def caller(after: float, patience: float) -> None:
        await anyio.sleep(after)
        with anyio.move_on_after(patience):
            try:
                await pipeline.call(send)
            except RateLimited as error:
                refused.append(error.retry_after)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for after, patience in arrivals:
                group.start_soon(caller, after / 20, patience)

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    for index, first in enumerate(went):
        for count, last in enumerate(went[index:], start=1):
            assert count <= burst + 4 * (last - first) + 1e-4
    assert all(wait is not None and wait > 3 for wait in refused)
    clock.advance(10)
    assert limit._bucket.at_rest(clock.now())


def test_threads_and_a_loop_share_one_limit() -> None:
    """Real threads, real time: as many go as the limit says, and everybody who waits is let go."""
    limit = RateLimit(1000, burst=20, max_wait=20)
    pipeline = Pipeline(limit)
    went: list[float] = []

    def send() -> None:
        went.append(pipeline.clock.now())

    async def asend() -> None:
        send()

    def blocking() -> None:
        for _ in range(40):
            pipeline.call_sync(send)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(160):
                group.start_soon(pipeline.call, asend)

    threads = [threading.Thread(target=blocking) for _ in range(8)] + [threading.Thread(target=lambda: anyio.run(main))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(went) == 480
    assert max(went) - min(went) >= (480 - 20) / 1000 - 0.02


# -- cost --------------------------------------------------------------------------------------------------------


class Tokens:
    """A dependency whose calls cost what they are asked for."""

    def __init__(self, world: World, *policies: Any) -> None:
        self.pipeline = world.pipeline(*policies)
        self.world = world

    def ask(self, *args: Any, **kwargs: Any) -> Any:
        async def answer(*args: Any, **kwargs: Any) -> Any:
            return args

        ends: list[Any] = []

        async def main() -> None:
            try:
                ends.append(await self.pipeline.call(answer, *args, **kwargs))
            except Rejected as error:
                ends.append(error)

        if self.world.interrupts:
            self.world._run(self.world.clock, main)  # type: ignore[attr-defined]
        else:
            try:
                ends.append(self.pipeline.call_sync(lambda *args, **kwargs: args, *args, **kwargs))
            except Rejected as error:
                ends.append(error)
        return ends[0]


def test_a_cost_that_is_a_number(world: World) -> None:
    tokens = Tokens(world, RateLimit(10, cost=4))
    assert [type(tokens.ask()) for _ in range(3)] == [tuple, tuple, RateLimited]


def test_a_cost_that_depends_on_the_call(world: World) -> None:
    tokens = Tokens(world, RateLimit(10, cost=lambda prompt, most=0: len(prompt) + most))
    assert tokens.ask("abc", most=4) == ("abc",)
    error = tokens.ask("abcd")
    assert (error.reason, error.retry_after) == ("rate", pytest.approx(0.1))
    assert tokens.ask("abc") == ("abc",)


def test_what_costs_more_than_the_burst_could_never_go(world: World) -> None:
    tokens = Tokens(world, RateLimit(10, cost=len, max_wait=60))
    error = tokens.ask("x" * 11)
    assert (error.reason, error.retry_after) == ("cost", None)
    assert tokens.ask("x" * 10) == ("x" * 10,)


def test_settle_corrects_the_cost_by_what_was_returned(world: World) -> None:
    limit = RateLimit(100, per=100, cost=50, settle=lambda answer: answer[0])
    tokens = Tokens(world, limit)
    assert tokens.ask(10) == (10,)
    assert tokens.ask(90) == (90,)  # 40 had been given back; this one has cost as much as all
    error = tokens.ask(1)
    assert error.retry_after == pytest.approx(50)
    world.sleep(50)
    assert tokens.ask(50) == (50,)
    assert limit.settle_errors == 0


def test_settle_may_leave_the_cost_as_it_was(world: World) -> None:
    tokens = Tokens(world, RateLimit(100, per=100, cost=50, settle=lambda answer: None))
    assert [type(tokens.ask()) for _ in range(3)] == [tuple, tuple, RateLimited]


@pytest.mark.parametrize("wrong", [lambda answer: 1 / 0, lambda answer: "5", lambda answer: -1, lambda answer: float("nan")])
def test_a_settle_that_fails_is_counted_and_the_answer_is_given(world: World, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    limit = RateLimit(100, cost=50, settle=wrong)
    tokens = Tokens(world, limit)
    assert [tokens.ask(), tokens.ask()] == [(), ()]
    assert limit.settle_errors == 2
    assert [record.message for record in caplog.records] == ["settle, given to a RateLimit, failed; further failures are only counted"]
    assert isinstance(tokens.ask(), RateLimited)


def test_settle_is_not_asked_about_a_fallback(world: World) -> None:
    asked: list[Any] = []
    pipeline = world.pipeline(RateLimit(100, cost=1, settle=asked.append), Fallback("instead"))
    assert world.call(pipeline, ValueError) == "instead"
    assert asked == []


@pytest.mark.parametrize("wrong", [lambda: -1, lambda: "1", lambda: float("nan"), lambda: None, lambda: True, lambda: 1 / 0])
def test_a_cost_that_fails_is_the_programs_mistake(world: World, wrong: Any) -> None:
    circuit = CircuitBreaker(1)
    pipeline = world.pipeline(circuit, RateLimit(100, cost=lambda *_: wrong()))
    assert isinstance(world.fails(pipeline), TypeError | ValueError | ZeroDivisionError)
    assert circuit.fail_counter == 0
    assert pipeline.stats.snapshot().counts["ignored"] == 1


def test_a_function_settles_its_own_charge(world: World) -> None:
    tokens, calls = RateLimit(100, per=100, cost=50), RateLimit(100)
    pipeline = world.pipeline(tokens, calls)
    seen: list[float] = []

    def answer() -> str:
        charge = tokens.charge()
        seen.append(charge.cost)
        charge.settle(100)
        assert calls.charge().cost == 0  # nothing can be settled where all cost the same
        return "ok"

    assert world.call(pipeline, answer) == "ok"
    assert seen == [50]
    assert isinstance(world.fails(pipeline), RateLimited)
    assert tokens.charge().cost == 0  # the call is over


def test_each_limit_has_its_own_charge(world: World) -> None:
    tokens, money = RateLimit(100, cost=50), RateLimit(2, per=86400, hard=True, cost=0.5)
    pipeline = world.pipeline(money, tokens)
    seen: list[tuple[float, float]] = []
    world.call(pipeline, lambda: seen.append((tokens.charge().cost, money.charge().cost)))
    assert seen == [(50, 0.5)]


def test_a_charge_may_be_settled_again_and_later(world: World) -> None:
    limit = RateLimit(100, per=100, cost=50)
    pipeline = world.pipeline(limit)
    charges: list[Any] = []
    world.call(pipeline, lambda: charges.append(limit.charge()))
    (charge,) = charges
    for actual in (10, 60, 0, 100):
        charge.settle(actual)
        assert charge.cost == actual
    assert limit._bucket.when(1, world.clock.now()) - world.clock.now() == pytest.approx(1)
    charge.settle(0)
    assert limit._bucket.when(100, world.clock.now()) == world.clock.now()
    for number in range(40):
        charge.settle(number)
    charge.settle(5)
    assert limit._bucket.when(100, world.clock.now()) - world.clock.now() >= 5 - 1e-6
    charge.settle(0)
    for wrong in (-1, float("inf")):
        with pytest.raises(ValueError, match=r"^actual: "):
            charge.settle(wrong)
    with pytest.raises(TypeError, match=r"^actual: "):
        charge.settle("5")
    assert repr(charge) == "<Charge 0>"


def test_what_is_settled_lets_those_go_who_wait(world: World) -> None:
    limit = RateLimit(1, per=1, burst=10, cost=lambda script: 10, max_wait=60)
    pipeline = world.pipeline(limit)
    charges: list[Any] = []
    ends = world.scene(
        [
            Arrival(0, script=Script(lambda: charges.append(limit.charge())), pipeline=pipeline),
            Arrival(1, script=Script("waits"), pipeline=pipeline),
            at(3, lambda: charges[0].settle(2)),
        ]
    )
    assert ends[1].value == "waits" and ends[1].at == pytest.approx(3)


def test_an_async_generator_settles_when_it_knows() -> None:
    clock = FakeClock()
    limit = RateLimit(100, per=100, cost=lambda prompt: 50)
    pipeline = Pipeline(limit, clock=clock)

    @pipeline
    async def chat(prompt: str) -> AsyncIterator[str]:
        charge = limit.charge()
        used = 0
        for word in prompt.split():
            used += 20
            yield word
        charge.settle(used)

    async def main() -> None:
        assert [word async for word in chat("a b c d")] == list("abcd")
        assert limit._bucket.when(50, clock.now()) - clock.now() == pytest.approx(30)
        assert limit.charge().cost == 0

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())


def test_a_generator_settles_when_it_knows() -> None:
    clock = FakeClock()
    limit = RateLimit(100, per=100, cost=50, settle=lambda answer: 1 / 0)
    pipeline = Pipeline(limit, clock=clock)

    @pipeline
    def chat(words: int) -> Iterator[int]:
        charge = limit.charge()
        yield from range(words)
        charge.settle(80)

    assert list(chat(3)) == [0, 1, 2]
    assert limit._bucket.when(50, clock.now()) - clock.now() == pytest.approx(30)
    assert limit.settle_errors == 0  # its answer is the generator, of which nothing is known yet


def test_switched_off_there_is_a_charge_all_the_same() -> None:
    limit = RateLimit(1, cost=1)
    pipeline = Pipeline(limit)
    pipeline.enabled = False

    def ask() -> float:
        charge = limit.charge()
        charge.settle(7)
        return charge.cost

    assert [pipeline.call_sync(ask) for _ in range(3)] == [0, 0, 0]


# -- what is given back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [None, 2])
@pytest.mark.parametrize("hard", [False, True])
def test_what_another_policy_refused_cost_nothing(world: World, cost: float | None, hard: bool) -> None:
    circuit = CircuitBreaker(1, 1000)
    limit = RateLimit(4, per=1000, cost=cost, hard=hard)
    pipeline = world.pipeline(limit, circuit)
    circuit.open()
    assert world.times(10, pipeline) == ["CircuitOpen"] * 10
    circuit.close()
    assert world.times(5, pipeline)[: 5 if cost is None else 3] == (["ok"] * 4 if cost is None else ["ok"] * 2) + [
        "SpendExceeded" if hard else "RateLimited"
    ]


def test_what_was_sent_before_it_was_refused_has_its_cost(world: World) -> None:
    circuit = CircuitBreaker(1, 1000)
    pipeline = world.pipeline(RateLimit(1, per=1000), at_once(), circuit)
    assert isinstance(world.fails(pipeline, ValueError), ValueError)
    circuit.close()
    assert isinstance(world.fails(pipeline), RateLimited)


def test_what_a_function_raises_of_another_dependency_gives_nothing_back(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, per=1000))
    assert isinstance(world.fails(pipeline, CircuitOpen("another one's")), CircuitOpen)
    assert isinstance(world.fails(pipeline), RateLimited)


def test_a_full_bulkhead_inside_gives_the_cost_back(world: World) -> None:
    pipeline = world.pipeline(RateLimit(2, per=1000), Bulkhead(max_concurrent=1, queue=0))
    ends = world.together(pipeline, (0, takes(1)), *[(0.1, "full")] * 5, (2, "ok"), (3, "over"))
    assert names(ends) == ["ok"] + ["BulkheadFull"] * 5 + ["ok", "RateLimited"]
    assert isinstance(ends[1].error, BulkheadFull)


# -- keys --------------------------------------------------------------------------------------------------------


def test_each_key_has_a_limit_of_its_own(world: World) -> None:
    tenants = Tokens(world, RateLimit(1, per=1000, key=lambda tenant: tenant))
    assert [type(tenants.ask(who)) for who in "abab"] == [tuple, tuple, RateLimited, RateLimited]
    tenants.pipeline.reset()
    assert tenants.ask("a") == ("a",)


def test_beyond_the_number_of_keys_the_one_used_least_recently_begins_anew(world: World) -> None:
    limit = RateLimit(1, per=1000, key=lambda tenant: tenant, max_keys=3)
    tenants = Tokens(world, limit)
    assert [type(tenants.ask(who)) for who in "abcd"] == [tuple] * 4
    assert limit.forgotten == 1
    assert isinstance(tenants.ask("c"), RateLimited)
    assert tenants.ask("a") == ("a",)
    assert limit.forgotten == 2


def test_a_hard_limit_forgets_no_key_that_has_spent(world: World) -> None:
    limit = RateLimit(2, per=1000, key=lambda tenant: tenant, max_keys=2, hard=True)
    tenants = Tokens(world, limit)
    tenants.ask("a")
    world.sleep(100)
    tenants.ask("b")
    error = tenants.ask("c")
    assert isinstance(error, SpendExceeded) and (error.reason, error.retry_after) == ("keys", None)
    world.sleep(900)
    assert tenants.ask("c") == ("c",)  # what a had spent is a period ago
    assert limit.forgotten == 0


def test_a_key_that_fails_is_the_programs_mistake(world: World) -> None:
    circuit = CircuitBreaker(1)
    tenants = Tokens(world, circuit, RateLimit(1, key=lambda tenant: [tenant]))
    with pytest.raises(BaseException, match="unhashable") as raised:  # trio and asyncio groups do not come into it
        tenants.ask("a")
    assert isinstance(raised.value, TypeError)
    assert circuit.fail_counter == 0


# -- a spend guard -----------------------------------------------------------------------------------------------


def test_over_the_quota_spend_is_exceeded_and_nobody_waits(world: World) -> None:
    pipeline = world.pipeline(RateLimit(3, per=86400, hard=True), name="llm")
    assert world.times(4, pipeline, every=3600) == ["ok"] * 3 + ["SpendExceeded"]
    error = world.fails(pipeline)
    assert isinstance(error, SpendExceeded) and (error.dependency, error.policy, error.reason) == ("llm", "ratelimit", "spent")
    assert error.retry_after == pytest.approx(86400 - 4 * 3600)
    assert rejections(world) == [("ratelimit", "spent", True)] * 2
    world.sleep(error.retry_after)
    assert world.times(2, pipeline) == ["ok", "SpendExceeded"]


def test_money_that_is_known_afterwards(world: World) -> None:
    """Nothing is charged beforehand: a call may go as long as anything is left."""
    money = RateLimit(1.0, per=86400, hard=True, cost=0, settle=lambda answer: answer[0])
    calls = Tokens(world, money)
    assert [type(calls.ask(0.4)) for _ in range(4)] == [tuple, tuple, tuple, SpendExceeded]


def test_what_is_more_than_the_whole_quota_never_goes(world: World) -> None:
    error = Tokens(world, RateLimit(10, per=86400, hard=True, cost=len)).ask("x" * 11)
    assert isinstance(error, SpendExceeded) and (error.reason, error.retry_after) == ("cost", None)


# -- learning, from errors that carry a response ------------------------------------------------------------------


def throttled(**headers: str) -> Callable[[], None]:
    """An item of a script: raises what a client library raises for a 429."""
    response = httpx.Response(429, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def refuse() -> None:
        raise httpx.HTTPStatusError("429", request=httpx.Request("GET", "http://llm"), response=response)

    return refuse


def test_the_error_of_a_client_library_is_learned_from(world: World) -> None:
    limit = RateLimit(100)
    pipeline = world.pipeline(limit)
    world.fails(pipeline, throttled(retry_after="7"))
    error = world.fails(pipeline)
    assert isinstance(error, RateLimited) and (error.reason, error.retry_after) == ("pushback", pytest.approx(7))
    world.sleep(7)
    assert world.call(pipeline) == "ok"
    world.fails(pipeline, throttled(retry_after="soon"))
    assert world.call(pipeline) == "ok" and limit.garbage == 1


def test_whoever_waits_already_waits_for_longer(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, max_wait=10))
    ends = world.together(
        pipeline, (0, takes(0.5, throttled(retry_after="5"))), (0.1, "second"), (0.2, "third"), (0.3, "fourth"), (0.4, "fifth")
    )
    assert [end.value for end in ends[1:]] == ["second", "third", "fourth", "fifth"]
    assert [end.at for end in ends[1:]] == pytest.approx([5.5, 6.5, 7.5, 8.5])


def test_or_gives_up_as_soon_as_it_is_hopeless(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=4), RateLimit(1, max_wait=10))
    ends = world.together(pipeline, (0, takes(0.5, throttled(retry_after="5"))), (0.1, "second"), (0.2, "third"))
    assert names(ends[1:]) == ["RateLimited", "RateLimited"]
    assert [end.error.reason for end in ends[1:] if isinstance(end.error, RateLimited)] == ["deadline", "deadline"]
    assert [end.at for end in ends[1:]] == pytest.approx([1, 2])  # when they looked again


def test_no_word_holds_for_longer_than_max_pushback(world: World) -> None:
    pipeline = world.pipeline(RateLimit(100, max_pushback=3))
    world.fails(pipeline, throttled(retry_after="86400"))
    world.sleep(3)
    assert world.call(pipeline) == "ok"


def test_what_is_learned_holds_for_the_key_alone(world: World) -> None:
    limit = RateLimit(100, key=lambda script: script.key)
    pipeline = world.pipeline(limit)
    first, second = Script(throttled(retry_after="9")), Script("ok")
    first.key, second.key = "a", "b"  # type: ignore[attr-defined]
    world.fails(pipeline, first)
    assert isinstance(world.fails(pipeline, first), RateLimited)
    assert world.call(pipeline, second) == "ok"


@pytest.mark.parametrize(("learn", "after_retry", "after_field"), [("all", 5, 5), ("retry-after", 5, 0), ("nothing", 0, 0)])
def test_what_to_believe(world: World, learn: str, after_retry: float, after_field: float) -> None:
    for headers, expected in (({"retry_after": "5"}, after_retry), ({"ratelimit": '"a";r=0;t=5'}, after_field)):
        limit = RateLimit(100, learn=learn)
        world.fails(world.pipeline(limit), throttled(**headers))
        assert limit._bucket.when(1, world.clock.now()) - world.clock.now() == pytest.approx(expected)


def test_a_hard_limit_learns_nothing(world: World) -> None:
    pipeline = world.pipeline(RateLimit(100, per=86400, hard=True))
    world.fails(pipeline, throttled(retry_after="5"))
    assert world.call(pipeline) == "ok"


def test_a_program_may_say_it_itself(world: World) -> None:
    limit = RateLimit(100, max_pushback=30)
    pipeline = world.pipeline(limit)
    limit.push_back(4)
    assert world.fails(pipeline).retry_after == pytest.approx(4)  # type: ignore[attr-defined]
    limit.push_back(300)
    assert world.fails(pipeline).retry_after == pytest.approx(30)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="^seconds must"):
        limit.push_back(0)
    keyed = RateLimit(100, key=lambda tenant: tenant)
    tenants = Tokens(world, keyed)
    keyed.push_back(4, "a")
    assert isinstance(tenants.ask("a"), RateLimited) and tenants.ask("b") == ("b",)
    spend = RateLimit(100, hard=True)
    spend.push_back(4)
    assert world.call(world.pipeline(spend)) == "ok"


def test_inside_a_retry_a_pushback_ends_it(world: World) -> None:
    """Another attempt would only be refused: the caller gets the real error at once."""
    script = Script(throttled(retry_after="50"))
    pipeline = world.pipeline(Retry(on=httpx.HTTPStatusError, backoff=Constant(1, jitter="none")), RateLimit(100))
    ends = world.together(pipeline, Arrival(0, script=script, pipeline=pipeline))
    assert isinstance(ends[0].error, httpx.HTTPStatusError) and ends[0].at == 0
    assert len(script.asked) == 1


# -- shadow mode -------------------------------------------------------------------------------------------------


def test_watching_it_lets_all_go_and_reports(world: World) -> None:
    pipeline = world.pipeline(RateLimit(2, per=1000, enforce=False), name="shop")
    assert world.times(5, pipeline) == ["ok"] * 5
    assert rejections(world) == [("ratelimit", "rate", False)] * 3


def test_watching_it_makes_nobody_wait_and_reports_who_would_have_waited_for_too_long(world: World) -> None:
    pipeline = world.pipeline(RateLimit(1, max_wait=2, enforce=False))
    ends = world.together(pipeline, *[(0.0, "ok")] * 5)
    assert [end.at for end in ends] == [0] * 5
    assert rejections(world) == [("ratelimit", "rate", False)] * 2


def test_watching_it_reports_a_wait_beyond_the_deadline(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=0.5), RateLimit(1, max_wait=2, enforce=False))
    assert world.times(2, pipeline) == ["ok"] * 2
    assert rejections(world) == [("ratelimit", "deadline", False)]


def test_a_watching_spend_guard(world: World) -> None:
    money = RateLimit(2, per=1000, hard=True, enforce=False, cost=1)
    pipeline = world.pipeline(money)
    costs: list[float] = []

    def ask() -> None:
        charge = money.charge()
        costs.append(charge.cost)
        charge.settle(1)

    for _ in range(3):
        world.call(pipeline, ask)
    assert costs == [1, 1, 0]
    assert rejections(world) == [("ratelimit", "spent", False)]


def test_a_watching_limit_stops_no_retry(world: World) -> None:
    script = Script(throttled(retry_after="50"))
    pipeline = world.pipeline(Retry(on=httpx.HTTPStatusError, backoff=Constant(0, jitter="none")), RateLimit(100, enforce=False))
    world.fails(pipeline, script)
    assert len(script.asked) == 3


@only_in_threads
def test_a_deadline_that_has_passed_is_told_as_such(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=1), RateLimit(100), Retry(attempts=1))
    assert world.call(pipeline) == "ok"
    with deadline_scope(Deadline.after(-1, world.clock)):
        assert isinstance(world.fails(pipeline), DeadlineExceeded)
