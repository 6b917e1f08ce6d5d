"""The outbound side of a service that takes on no new work: no attempt follows another one, and nothing is fetched ahead."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilient import AllTargetsFailed, Cache, Failover, Fallback, Hedge, Resilience, Retry, Target
from resilient.core.backoff import Constant
from resilient.events import HedgeDecided, RetryDecided
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


def results(listener: RecordingListener) -> list[str]:
    return [event.result for event in listener.of(RetryDecided)]


def client(library: Any, resilience: Resilience, inner: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience, inner))


@pytest.mark.anyio
async def test_retries_go_on_while_all_are_served_and_stop_with_the_new_work(
    library: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener
) -> None:
    inner = FaultyTransport([scripted(library, b"{}", status=503), 200, scripted(library, b"no", status=503), 200])
    resilience.dependency("dep", Retry(backoff=Constant(0.1)), origin="http://dep")
    async with client(library, resilience, inner) as user:
        departure = resilience.drain(delay=5)
        assert (await user.get("http://dep/")).status_code == 200
        await departure
        answer = await user.get("http://dep/")
    assert (answer.status_code, answer.text) == (503, "no")  # the answer that there is, as it came
    assert results(listener) == ["retried", "draining"]


@pytest.mark.anyio
async def test_a_pause_ends_with_the_answer_that_there_is(
    library: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener
) -> None:
    inner = FaultyTransport([scripted(library, b"later", status=503, retry_after="20"), 200])
    retry = Retry()
    resilience.dependency("dep", retry, origin="http://dep")
    before = retry.budget.remaining_ratio()
    began = clock.now()
    answers: list[Any] = []

    async with client(library, resilience, inner) as user:

        async def ask() -> None:
            answers.append(await user.get("http://dep/"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.sleep(2)
            resilience.drain()
    assert clock.now() - began == pytest.approx(2, abs=0.1)
    assert (answers[0].status_code, answers[0].text, len(inner.requests)) == (503, "later", 1)
    assert results(listener) == ["retried", "draining"]
    assert retry.budget.remaining_ratio() >= before


@pytest.mark.anyio
async def test_an_answer_that_was_too_large_to_keep_is_asked_for_again(
    library: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener
) -> None:
    inner = FaultyTransport([scripted(library, b"x" * 200_000, status=503), 200])
    resilience.dependency("dep", Retry(backoff=Constant(5)), origin="http://dep")
    async with client(library, resilience, inner) as user, anyio.create_task_group() as group:

        async def ask() -> None:
            assert (await user.get("http://dep/")).status_code == 200

        group.start_soon(ask)
        await anyio.sleep(1)
        resilience.drain()
    assert results(listener) == ["retried"]


def test_synchronous_calls_too(library: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener) -> None:
    dependency = resilience.dependency("dep", Retry(on=KeyError, backoff=Constant(10)))
    calls: list[float] = []

    def fail() -> None:
        calls.append(clock.now())
        raise KeyError

    clock.call_later(3, resilience.leaving.closing.set)
    with pytest.raises(KeyError):
        dependency.call_sync(fail)
    assert (calls, clock.now()) == ([1000], 1003)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["variant", "route", "undeclared", "target"])
async def test_every_dependency_of_the_service_knows(
    kind: str, library: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener
) -> None:
    inner = FaultyTransport([503, 200, 200])
    url = "http://dep/"
    if kind == "undeclared":
        url = "http://other/"
    elif kind == "target":
        resilience.dependency("dep", Failover(Target("one", Retry(backoff=Constant(1)))), origin="http://dep")
    else:
        made = resilience.dependency("dep", origin="http://dep")
        made.route("/", name="r") if kind == "route" else made.variant("v")
    resilience.drain()
    assert all(one.closing is resilience.drain_closing for one in resilience.dependencies.values())
    async with client(library, resilience, inner) as user:
        with suppress(AllTargetsFailed):
            await user.get(url)
    assert len(inner.requests) == 1
    assert results(listener) == ["draining"]


@pytest.mark.anyio
async def test_no_hedge_is_sent(library: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener) -> None:
    dependency = resilience.dependency("dep", Hedge(delay=1.0))

    async def slow() -> str:
        await anyio.sleep(3)
        return "late"

    assert await dependency.call(slow) == "late"
    resilience.drain()
    assert await dependency.call(slow) == "late"
    assert [event.result for event in listener.of(HedgeDecided)] == ["lost", "draining"]


@pytest.mark.anyio
async def test_nothing_is_fetched_behind_the_readers(resilience: Resilience, clock: FakeClock) -> None:
    called: list[float] = []
    dependency = resilience.dependency("dep", Fallback.cached(ttl=10, stale_while_revalidate=1000, refresh_early=0))

    @dependency
    async def value() -> int:
        called.append(clock.now())
        return len(called)

    assert await value() == 1
    await anyio.sleep(20)
    assert await value() == 1
    await anyio.sleep(1)
    assert len(called) == 2
    await anyio.sleep(20)
    resilience.drain()
    assert await value() == 2
    await anyio.sleep(1)
    assert len(called) == 2


def test_outside_a_service_it_never_comes() -> None:
    from resilient import Dependency

    assert not Dependency("dep").closing.is_set()
    assert Dependency("dep", Cache()).closing is Dependency("other").closing
