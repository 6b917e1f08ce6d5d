"""A real gRPC server on loopback, called through a dependency by `grpc` on threads and by `grpc.aio`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest

from resilient import CircuitBreaker, CircuitOpen, Deadline, DeadlineExceeded, Dependency, Outcome, Timeout
from resilient.context import deadline_scope

# All that grpc.aio runs on.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]
Code = grpc.StatusCode
PATIENT = Timeout(total=5)


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Counts lamps; each call takes the next step of the script: a status code to fail with, or None."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.remaining: list[float | None] = []
        self.gone = threading.Event()

    def service(self, details: Any) -> Any:
        how = {"request_deserializer": json.loads, "response_serializer": lambda message: json.dumps(message).encode()}
        if details.method.endswith("Count"):
            return grpc.unary_unary_rpc_method_handler(self._count, **how)
        return grpc.unary_stream_rpc_method_handler(self._watch, **how)

    def _count(self, request: Any, context: Any) -> Any:
        left = context.time_remaining()
        self.remaining.append(None if left is None or left > 1e6 else left)
        step = self.script.pop(0) if self.script else None
        if step == "hang":
            context.add_callback(self.gone.set)
            self.gone.wait(10)
        elif step is not None:
            context.abort(step, "as the script says")
        return {"count": len(request["product"])}

    def _watch(self, request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(self.gone.set)
        for number in range(3):
            yield {"count": number}
        if "hang" in self.script:
            self.gone.wait(10)
        elif self.script:
            context.abort(self.script[0], "as the script says")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, handlers=[service])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        service.gone.set()
        server.stop(0).wait(5)


@pytest.fixture
def recipe(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("grpc_calls")


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest, recipe: ModuleType, address: str) -> Callable[[Dependency], Any]:
    """Count lamps through a dependency, in the one colour or the other."""
    if request.param == "sync":

        async def asked(dependency: Dependency) -> Any:
            # On a thread, as a program does: on an event loop nothing may block.
            with grpc.insecure_channel(address) as channel:
                stub = recipe.Stock(channel)
                return await anyio.to_thread.run_sync(lambda: dependency.call_sync(recipe.count_now, stub, "lamp"))

        return asked

    async def awaited(dependency: Dependency) -> Any:
        async with grpc.aio.insecure_channel(address) as channel:
            return await dependency.call(recipe.count, recipe.Stock(channel), "lamp")

    return awaited


def counts(dependency: Dependency) -> dict[str, int]:
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0
    return {word: count for word, count in dependency.stats.snapshot().counts.items() if count}


async def test_an_answer_and_the_time_that_the_server_is_told(recipe: ModuleType, service: Service, ask: Any) -> None:
    dependency = recipe.stock(PATIENT)
    assert await ask(dependency) == 4
    with deadline_scope(Deadline.after(2)):
        assert await ask(dependency) == 4
    first, second = service.remaining
    assert first is not None and 3 < first <= 5.1
    assert second is not None and 0.5 < second <= 2.1
    assert counts(dependency) == {"success": 2}


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
async def test_what_may_be_asked_again(recipe: ModuleType, service: Service, ask: Any, code: Any) -> None:
    dependency = recipe.stock(PATIENT)
    service.script = [code, code]
    assert await ask(dependency) == 4
    assert len(service.remaining) == 3
    assert counts(dependency) == {"success": 1}


@pytest.mark.parametrize(
    ("code", "outcome", "failures"),
    [
        (Code.INTERNAL, "failure", 1),
        (Code.UNKNOWN, "failure", 1),
        (Code.INVALID_ARGUMENT, "success", 0),
        (Code.NOT_FOUND, "success", 0),
        (Code.PERMISSION_DENIED, "success", 0),
        (Code.CANCELLED, "ignored", 0),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else "",
)
async def test_what_may_not(recipe: ModuleType, service: Service, ask: Any, code: Any, outcome: str, failures: int) -> None:
    dependency = recipe.stock(PATIENT)
    service.script = [code]
    with pytest.raises(grpc.RpcError) as raised:
        await ask(dependency)
    assert raised.value.code() is code  # type: ignore[attr-defined]
    assert len(service.remaining) == 1
    assert dependency.breaker.fail_counter == failures
    assert counts(dependency) == {outcome: 1}


async def test_a_server_that_hangs_is_left_in_time_and_stops_too(recipe: ModuleType, service: Service, ask: Any) -> None:
    dependency = recipe.stock(Timeout(total=0.3, attempt=0.3))
    service.script = ["hang"]
    began = time.monotonic()
    # Both clocks were told the same time; either may be the quicker one to see that it is over.
    with pytest.raises((DeadlineExceeded, grpc.RpcError)) as raised:
        await ask(dependency)
    assert time.monotonic() - began < 3
    assert isinstance(raised.value, DeadlineExceeded) or raised.value.code() is Code.DEADLINE_EXCEEDED
    assert service.gone.wait(5)
    assert counts(dependency) == {"failure": 1}


async def test_a_service_that_is_gone_is_left_alone(recipe: ModuleType, ask: Any, service: Service) -> None:
    # For longer than any machine takes to get there.
    dependency = Dependency("stock", CircuitBreaker(break_time=100, max_break=100), classify=recipe.judge)
    dependency.breaker.open()
    with pytest.raises(CircuitOpen):
        await ask(dependency)
    assert service.remaining == []


@asynccontextmanager
async def watching(recipe: ModuleType, address: str, dependency: Dependency) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        async with aclosing(dependency(recipe.watch)(recipe.Stock(channel), "lamp")) as numbers:
            yield numbers


async def test_a_stream_is_guarded_to_its_end(recipe: ModuleType, service: Service, address: str) -> None:
    dependency = recipe.stock(PATIENT)
    async with watching(recipe, address, dependency) as numbers:
        assert await anext(numbers) == 0
        assert dependency.bulkhead.in_use == 1
        assert [number async for number in numbers] == [1, 2]
    assert counts(dependency) == {"success": 1}


async def test_a_stream_that_falls_silent(recipe: ModuleType, service: Service, address: str) -> None:
    dependency = recipe.stock(Timeout(total=5, idle=0.2))
    service.script = ["hang"]
    seen = []
    async with watching(recipe, address, dependency) as numbers:
        with pytest.raises(DeadlineExceeded) as raised:
            async for number in numbers:
                seen.append(number)  # noqa: PERF401  # what came before the error is looked at
    assert (seen, raised.value.reason) == ([0, 1, 2], "idle")
    assert service.gone.wait(5), "the server was told that nobody listens"
    assert counts(dependency) == {"failure": 1}


async def test_a_stream_that_breaks(recipe: ModuleType, service: Service, address: str) -> None:
    dependency = recipe.stock(PATIENT)
    service.script = [Code.UNAVAILABLE]
    seen = []
    async with watching(recipe, address, dependency) as numbers:
        with pytest.raises(grpc.RpcError):
            async for number in numbers:
                seen.append(number)  # noqa: PERF401
    assert seen == [0, 1, 2]
    assert counts(dependency) == {"failure": 1}


async def test_a_stream_that_is_left(recipe: ModuleType, service: Service, address: str) -> None:
    dependency = recipe.stock(PATIENT)
    service.script = ["hang"]
    async with watching(recipe, address, dependency) as numbers:
        assert await anext(numbers) == 0
    assert service.gone.wait(5)
    assert counts(dependency) == {"success": 1}


def test_every_code_has_an_outcome(recipe: ModuleType, anyio_backend: Any) -> None:
    class Failed(grpc.RpcError):  # type: ignore[misc]
        def __init__(self, code: Any) -> None:
            self.code = lambda: code

    told = {code.name: recipe.judge(None, Failed(code)) for code in Code}
    blamed = {name for name, outcome in told.items() if outcome.failed}
    assert blamed == {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "DATA_LOSS"}
    assert told["RESOURCE_EXHAUSTED"] is Outcome.THROTTLED
    assert recipe.judge({"count": 1}, None) is recipe.judge(None, KeyError()) is None
