"""A gRPC service behind a dependency: its status codes as outcomes, and the time that is left as each call's timeout."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from resilient import Dependency, Outcome, Retry, Timeout, current_deadline, standard

Code = grpc.StatusCode
OUTCOMES = {
    Code.UNAVAILABLE: Outcome.OUTAGE,
    Code.DEADLINE_EXCEEDED: Outcome.OUTAGE,
    Code.INTERNAL: Outcome.FAILURE,
    Code.UNKNOWN: Outcome.FAILURE,
    Code.DATA_LOSS: Outcome.FAILURE,
    Code.RESOURCE_EXHAUSTED: Outcome.THROTTLED,
    Code.CANCELLED: Outcome.IGNORED,
    # All others are answers: NOT_FOUND, INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION, PERMISSION_DENIED, ...
}


def judge(result: object, error: BaseException | None) -> Outcome | None:
    """What a status code says of the service."""
    return OUTCOMES.get(error.code(), Outcome.SUCCESS) if isinstance(error, grpc.RpcError) else None


def repeatable(error: Exception) -> bool:
    """Whether to ask again. Count and Watch change nothing; for a call that does, only RESOURCE_EXHAUSTED is safe."""
    return isinstance(error, grpc.RpcError) and error.code() in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)


def stock(timeout: Timeout) -> Dependency:
    """The dependency, which sync and async calls share."""
    return Dependency("stock", *standard(timeout=timeout, retry=Retry(on=repeatable)), classify=judge)


def left() -> float | None:
    """Seconds until whoever asks has no more use for the answer; the server is told, and stops when they are over."""
    deadline = current_deadline()
    return None if deadline is None else max(deadline.remaining, 0.0)


class Stock:
    """What generated code would be: the methods of one service on a channel, plain or `grpc.aio`."""

    def __init__(self, channel: Any) -> None:
        how = {"request_serializer": lambda message: json.dumps(message).encode(), "response_deserializer": json.loads}
        self.count = channel.unary_unary("/shop.Stock/Count", **how)
        self.watch = channel.unary_stream("/shop.Stock/Watch", **how)


async def count(stub: Stock, product: str) -> int:
    """How many there are: `await dependency.call(count, stub, "lamp")`."""
    answer = await stub.count({"product": product}, timeout=left())
    return answer["count"]


def count_now(stub: Stock, product: str) -> int:
    """The same on a thread: `dependency.call_sync(count_now, stub, "lamp")`."""
    return stub.count({"product": product}, timeout=left())["count"]


async def watch(stub: Stock, product: str) -> AsyncIterator[int]:
    """How many there are, again and again: `async for number in dependency(watch)(stub, "lamp")`.

    The whole stream has no time limit; the pauses have, by `Timeout(idle=...)`.
    """
    call = stub.watch({"product": product})
    try:
        async for answer in call:
            yield answer["count"]
    finally:
        call.cancel()
