"""Whose work a request is part of, where it does not say so itself."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Cache, CircuitBreaker, Timeout
from resilient.context import partition
from resilient.testing import FakeClock, FaultyTransport

from .conftest import Declare

pytestmark = pytest.mark.anyio


def client(library: Any, dependency: Any, answer: Any) -> Any:
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([answer]))
    return library.AsyncClient(transport=transport, base_url="http://dep")


async def test_a_cache_keeps_what_was_given_to_one_from_others(library: Any, clock: FakeClock, declare: Declare) -> None:
    asked: list[Any] = []

    async def answer(request: Any) -> Any:
        asked.append(request)
        return library.Response(200, headers={"cache-control": "max-age=60"}, content=str(len(asked)).encode())

    async with client(library, declare(Cache(), Timeout()), answer) as http:
        for _ in range(2):
            with partition("a"):
                assert (await http.get("/")).text == "1"
            with partition("b"):
                assert (await http.get("/")).text == "2"
                named = await http.get("/", extensions={"resilient": {"partition": "a"}})
                assert named.text == "1"  # as it says itself
        assert (await http.get("/")).text == "3" and len(asked) == 3


async def test_a_circuit_by_partition_is_that_of_the_work(library: Any, clock: FakeClock, declare: Declare) -> None:
    async def answer(request: Any) -> Any:
        raise library.ConnectError("refused")

    breaker = CircuitBreaker(fail_max=1, key="partition")
    async with client(library, declare(Timeout(), breaker), answer) as http:
        with partition("a"), pytest.raises(library.ConnectError):
            await http.get("/")
    assert {key: circuit.current_state for key, circuit in breaker.circuits.items()} == {"a": "open"}
