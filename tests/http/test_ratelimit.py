"""A rate limit over HTTP: it hears what each answer says, and a request's charge is settled once its answer was read."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from resilient import CircuitBreaker, Dependency, Fallback, RateLimit, RateLimited, Resilience, Retry, SpendExceeded, standard
from resilient.core import pushback
from resilient.errors import ResilienceError
from resilient.events import CallRejected
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .servers import Server, answer, answering

pytestmark = pytest.mark.anyio


def says(status: int = 200, content: bytes = b"{}", **headers: str) -> Callable[[Any], Any]:
    """For a FaultyTransport: an answer with header fields."""

    def respond(request: Any) -> Any:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return sys.modules[type(request).__module__.partition(".")[0]].Response(status, headers=fields, content=content)

    return respond


class Client:
    """One request after the other in virtual time, awaited on asyncio or trio, or by the sync transport."""

    def __init__(self, library: Any, way: str, clock: FakeClock, dependency: Dependency, inner: Any) -> None:
        self._way, self._clock = way, clock
        if way == "sync":
            self._client = library.Client(transport=library.ours.ResilientTransport(dependency, inner))
        else:
            self._client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner))

    def get(self, **options: Any) -> Any:
        async def ask() -> Any:
            return await self._client.get("http://dep/", **options)

        if self._way == "sync":
            return self._client.get("http://dep/", **options)
        if self._way == "trio":
            return trio.run(ask, clock=self._clock.trio_clock())
        with asyncio.Runner(loop_factory=self._clock.loop) as runner:
            return runner.run(ask())


Connect = Callable[[Dependency, Any], Client]


@pytest.fixture(params=["asyncio", "trio", "sync"])
def connect(request: pytest.FixtureRequest, library: Any, clock: FakeClock) -> Connect:
    return functools.partial(Client, library, request.param, clock)


def wait_of(limit: RateLimit, clock: FakeClock) -> float:
    return float(limit._bucket.when(1, clock.now())) - clock.now()


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_for_everybody_behind_the_limit(
    library: Any, clock: FakeClock, declare: Declare, connect: Connect, status: int
) -> None:
    limit = RateLimit(100)
    inner = FaultyTransport([says(status, retry_after="7"), 200])
    first, second = (connect(declare(limit), inner) for _ in range(2))
    assert (first.get()).status_code == status
    with pytest.raises(library.ours.RateLimited) as raised:
        second.get()
    assert (raised.value.reason, raised.value.retry_after) == ("pushback", pytest.approx(7))
    assert isinstance(raised.value, library.TransportError) and isinstance(raised.value, RateLimited)
    assert len(inner.requests) == 1
    clock.advance(7)
    assert (second.get()).status_code == 200


def test_with_a_wait_everybody_waits(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    inner = FaultyTransport([says(429, retry_after="7"), 200])
    client = connect(declare(RateLimit(100, max_wait=30)), inner)
    began = clock.now()
    assert client.get().status_code == 429
    assert client.get().status_code == 200
    assert clock.now() - began == pytest.approx(7)


@pytest.mark.parametrize(
    "headers",
    [
        {"ratelimit": '"default";r=0;t=9'},
        {"ratelimit": '"default";r=0', "ratelimit_policy": '"default";q=10;w=9'},
        {"x_ratelimit_remaining": "0", "x_ratelimit_reset": "9"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_the_fields_are_heard_in_good_answers_too(
    library: Any, clock: FakeClock, declare: Declare, connect: Connect, headers: dict[str, str]
) -> None:
    limit = RateLimit(100)
    client = connect(declare(limit), FaultyTransport([says(200, **headers), 200]))
    assert client.get().status_code == 200
    assert wait_of(limit, clock) == pytest.approx(9)
    assert limit.garbage == 0


def test_what_remains_slows_the_sender_until_the_reset(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    limit = RateLimit(100)
    client = connect(declare(limit), FaultyTransport([says(200, ratelimit='"default";r=4;t=10'), 200]))
    ends = []
    for _ in range(5):
        try:
            ends.append(client.get().status_code)
        except RateLimited as error:
            ends.append(error.reason)
    assert ends == [200, 200, 200, "pushback", "pushback"]  # half of the four at once
    assert wait_of(limit, clock) == pytest.approx(5)
    clock.advance(10)
    assert [client.get().status_code for _ in range(10)] == [200] * 10


def test_what_a_cache_answered_says_nothing(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    limit = RateLimit(100)
    client = connect(declare(limit), FaultyTransport([says(200, ratelimit='"default";r=0;t=9', age="30")]))
    client.get()
    assert wait_of(limit, clock) == 0


@pytest.mark.parametrize(
    "headers", [{"ratelimit": "limit=10, remaining=0, reset=9"}, {"x_ratelimit_remaining": "few", "x_ratelimit_reset": "9"}]
)
def test_garbage_is_ignored_and_counted(
    library: Any, clock: FakeClock, declare: Declare, connect: Connect, headers: dict[str, str]
) -> None:
    limit = RateLimit(100)
    client = connect(declare(limit), FaultyTransport([says(429, retry_after="soon", **headers)]))
    assert client.get().status_code == 429
    assert (wait_of(limit, clock), limit.garbage) == (0, 2)


def test_without_http_sf_a_log_line_says_once_what_is_missing(
    library: Any,
    clock: FakeClock,
    declare: Declare,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "http_sf", None)
    pushback._find_http_sf.cache_clear()
    try:
        limit = RateLimit(100)
        client = connect(declare(limit, name="llm"), FaultyTransport([says(200, ratelimit='"default";r=0;t=9')]))
        with caplog.at_level(logging.WARNING, "resilient"):
            for _ in range(3):
                client.get()
    finally:
        pushback._find_http_sf.cache_clear()
    assert [record.message for record in caplog.records] == [
        "llm: its RateLimit fields can only be read with http-sf: pip install resilient-asgi[ratelimit]"
    ]


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_answers_that_a_retry_threw_away_are_heard(library: Any, clock: FakeClock, declare: Declare, connect: Connect, place: str) -> None:
    """The last answer is a good one and says nothing of the 429 before it."""
    limit, retry = RateLimit(100, max_wait=30), Retry(random=lambda: 0.0)
    heard: list[float] = []

    def good(request: Any) -> Any:
        heard.append(limit._bucket.not_before)
        return library.Response(200)

    policies = (limit, retry) if place == "outside" else (retry, limit)
    client = connect(declare(*policies), FaultyTransport([says(429, retry_after="7"), says(503, retry_after="3"), good]))
    began = clock.now()
    assert client.get().status_code == 200
    assert clock.now() - began == pytest.approx(10)
    assert heard == [pytest.approx(began + 10)]


def test_two_limits_inside_a_retry_hear_each_answer_once(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    limits = RateLimit(100), RateLimit(100)
    client = connect(declare(Retry(random=lambda: 0.0), *limits), FaultyTransport([says(503, retry_after="soon")]))
    assert client.get().status_code == 503
    assert [limit.garbage for limit in limits] == [3, 3]


def test_a_429_is_no_failure_of_the_dependency(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    circuit = CircuitBreaker(1)
    client = connect(declare(RateLimit(100), circuit), FaultyTransport([says(429, retry_after="1")]))
    for _ in range(5):
        assert client.get().status_code == 429
        clock.advance(1)
    assert circuit.current_state == "closed" and circuit.fail_counter == 0


async def test_a_refusal_is_an_event_and_a_metric(library: Any, clock: FakeClock, listener: RecordingListener) -> None:
    resilience = Resilience(clock=clock, listeners=[listener])
    resilience.dependency("llm", *standard(rate_limit=[RateLimit(1), RateLimit(2, per=86400, hard=True)]), origin="http://dep")
    inner = FaultyTransport([200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience, inner)) as client:
        await client.get("http://dep/")
        with pytest.raises(library.ours.RateLimited):
            await client.get("http://dep/")
        clock.advance(1)
        await client.get("http://dep/")
        clock.advance(1)
        with pytest.raises(library.ours.SpendExceeded):
            await client.get("http://dep/")
    assert [(event.policy, event.reason) for event in listener.of(CallRejected)] == [("ratelimit", "rate"), ("ratelimit", "spent")]
    page = resilience.metrics.render()[0].decode()
    for reason in ("rate", "spent"):
        assert f'resilient_rejections_total{{dependency="llm",policy="ratelimit",reason="{reason}"}} 1.0' in page


# -- charges -----------------------------------------------------------------------------------------------------


def prompted(request: Any) -> float:
    """What a request for so many tokens may cost."""
    return float(json.loads(request.content)["max_tokens"])


async def test_an_answer_is_settled_once_it_was_read(library: Any, clock: FakeClock, declare: Declare) -> None:
    tokens = RateLimit(1000, per=60, cost=prompted)
    inner = FaultyTransport([says(200, b'{"usage": 300}')])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(tokens), inner)) as client:
        response = await client.post("http://dep/", json={"max_tokens": 900})
        charge = tokens.charge(response)
        assert charge.cost == 900
        with pytest.raises(library.ours.RateLimited):
            await client.post("http://dep/", json={"max_tokens": 700})
        charge.settle(response.json()["usage"])
        assert (await client.post("http://dep/", json={"max_tokens": 700})).status_code == 200


async def test_a_stream_is_settled_at_its_end(library: Any, clock: FakeClock, declare: Declare) -> None:
    tokens = RateLimit(1000, per=60, cost=500)
    inner = FaultyTransport([scripted(library, b"data: a\n\n", 5, b"data: b\n\n", b'data: {"usage": 950}\n\n')])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(tokens), inner)) as client:
        async with client.stream("POST", "http://dep/") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    tokens.charge(response).settle(json.loads(line[6:])["usage"])
        assert tokens._bucket.when(500, clock.now()) - clock.now() == pytest.approx((950 + 500 - 1000) * 0.06 - 5)


def test_settle_sees_the_header_fields(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    tokens = RateLimit(1000, per=60, cost=900, settle=lambda response: float(response.headers["x-tokens"]))
    client = connect(declare(tokens), FaultyTransport([says(200, x_tokens="50")]))
    assert tokens.charge(client.get()).cost == 50
    assert tokens.settle_errors == 0


async def test_each_request_has_the_charge_of_its_own(library: Any, clock: FakeClock, declare: Declare) -> None:
    tokens, money = RateLimit(10_000, cost=prompted), RateLimit(10, per=86400, hard=True, cost=lambda request: prompted(request) / 1000)
    charges = []
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(declare(tokens, money), FaultyTransport([200]))
    ) as client:

        async def ask(most: int) -> None:
            response = await client.post("http://dep/", json={"max_tokens": most})
            charges.append((tokens.charge(response).cost, money.charge(response).cost))

        async with anyio.create_task_group() as group:
            for most in (100, 200, 300):
                group.start_soon(ask, most)
    assert sorted(charges) == [(100, 0.1), (200, 0.2), (300, 0.3)]


def test_a_fallbacks_answer_can_be_settled_to_no_effect(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    tokens = RateLimit(1000, per=60, cost=1000)
    client = connect(declare(Fallback({"usage": 0}), tokens), FaultyTransport([200]))
    client.get()
    response = client.get()
    assert response.extensions["degraded"]["cause"] == "rate_limited"
    tokens.charge(response).settle(response.json()["usage"])
    assert wait_of(tokens, clock) > 0


def test_a_key_of_the_request(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    limit = RateLimit(1, per=1000, key=lambda request: request.headers.get("authorization"))
    client = connect(declare(limit), FaultyTransport([200]))
    for who in ("ann", "bob"):
        assert client.get(headers={"authorization": who}).status_code == 200
    with pytest.raises(RateLimited):
        client.get(headers={"authorization": "ann"})


def test_what_the_circuit_refused_is_not_spent(library: Any, clock: FakeClock, declare: Declare, connect: Connect) -> None:
    circuit, money = CircuitBreaker(1, 1000), RateLimit(2, per=86400, hard=True)
    client = connect(declare(*standard(rate_limit=money, breaker=circuit)), FaultyTransport([200]))
    circuit.open()
    for _ in range(10):
        with pytest.raises(library.ours.CircuitOpen):
            client.get()
    circuit.close()
    assert [client.get().status_code for _ in range(2)] == [200, 200]
    with pytest.raises(SpendExceeded):
        client.get()


# -- real sockets ------------------------------------------------------------------------------------------------


async def test_a_server_with_a_limit_is_not_run_into_twice(library: Any) -> None:
    """Twenty tasks share one limit with a real server; all are served, and after the first refusal nobody is early."""
    refusal = answer(429, b"", "Retry-After: 1")
    limit = RateLimit(1000, max_wait=10)
    with Server(answering(refusal, answer(200, b"ok"))) as server:
        transport = library.ours.AsyncResilientTransport(Dependency("llm", *standard(rate_limit=limit)), verify=False)
        async with library.AsyncClient(transport=transport) as client:
            assert (await client.get(server.url)).status_code == 200  # tried again by the retry, after a second
            statuses = []

            async def ask() -> None:
                statuses.append((await client.get(server.url)).status_code)

            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(ask)
    assert statuses == [200] * 20
    assert len(server.requests) == 22


def test_threads_share_it(library: Any) -> None:
    limit = RateLimit(200, burst=1, max_wait=10)
    ends: list[Any] = []
    with Server(answering(answer(200, b"ok"))) as server:
        with library.Client(transport=library.ours.ResilientTransport(Dependency("llm", limit), verify=False)) as client:
            begun = threading.Barrier(8)

            def ask() -> None:
                begun.wait()
                for _ in range(5):
                    try:
                        ends.append(client.get(server.url).status_code)
                    except ResilienceError as error:
                        ends.append(error)

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
    assert ends == [200] * 40
