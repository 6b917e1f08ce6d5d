"""Errors are ours, the client library's and, for an open circuit, pybreaker's; and they survive what programs do to them."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from typing import Any

import anyio
import pybreaker
import pytest

import resilient.errors
from resilient import CircuitBreaker, ResilienceError, Timeout, standard
from resilient.testing import HANG, FakeClock, FaultyTransport

from .bodies import scripted
from .conftest import Declare

NAMES = [name for name in resilient.errors.__all__ if name not in ("ConfigurationWarning", "cause_of")]


@pytest.mark.parametrize("name", NAMES)
def test_ground_22_each_error_is_both(library: Any, name: str) -> None:
    bound, ours = getattr(library.ours, name), getattr(resilient.errors, name)
    assert issubclass(bound, ours)
    assert issubclass(bound, ResilienceError)
    assert issubclass(bound, library.TransportError)
    assert issubclass(bound, pybreaker.CircuitBreakerError) == (name == "CircuitOpen")
    assert issubclass(bound, TimeoutError) == issubclass(bound, library.TimeoutException) == (name == "DeadlineExceeded")


@pytest.mark.parametrize("name", NAMES)
def test_ground_22_errors_pickle_and_copy(library: Any, name: str) -> None:
    error = getattr(library.ours, name)("dep: no", dependency="dep", policy="p", reason="r", retry_after=1.5)
    error.request = library.Request("GET", "http://dep/")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == "dep: no"
        assert (twin.dependency, twin.policy, twin.reason, twin.retry_after) == ("dep", "p", "r", 1.5)
        with pytest.raises(RuntimeError, match="request"):
            twin.request  # noqa: B018 - a request does not travel, as in the library itself


@pytest.mark.anyio
async def test_ground_22_each_except_clause_catches(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(breaker=CircuitBreaker(fail_max=1)))
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([500]))
    async with library.AsyncClient(transport=transport) as client:
        await client.post("http://dep/")
        for kind in (library.TransportError, library.HTTPError, pybreaker.CircuitBreakerError, ResilienceError, library.ours.CircuitOpen):
            with pytest.raises(kind) as raised:
                await client.get("http://dep/")
            assert type(raised.value) is library.ours.CircuitOpen
            assert raised.value.request.url == "http://dep/"
            assert 0 < raised.value.retry_after <= 1.2


class Big:
    """A local of the caller's."""


async def fail_with_a_local(client: Any, kind: type[Exception]) -> weakref.ref[Big]:
    big = Big()
    try:
        await client.get("http://dep/")
    except kind:
        return weakref.ref(big)
    raise AssertionError


@pytest.mark.anyio
@pytest.mark.parametrize("case", ["error", "deadline", "rejection", "body"])
@pytest.mark.parametrize("isolated", [False, True], ids=["", "in a task of its own"])
async def test_pitfall_10_an_error_keeps_nobody_alive(library: Any, clock: FakeClock, declare: Declare, case: str, isolated: bool) -> None:
    """No cycle leads through a frame of its traceback: once it was caught, all is free, without the garbage collector."""
    faults = {"error": library.ReadError("x"), "deadline": HANG, "rejection": 200, "body": scripted(library, b"x", 3600)}
    dependency = declare(*standard(timeout=Timeout(total=1, idle=1)))
    if case == "rejection":
        dependency.breaker.open()
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([faults[case]]))
    transport._isolated = isolated
    gc.collect()
    gc.disable()
    try:
        async with library.AsyncClient(transport=transport, timeout=None) as client:
            alive = await fail_with_a_local(client, library.TransportError)
            await anyio.sleep(1)
            assert alive() is None
    finally:
        gc.enable()


@pytest.mark.anyio
async def test_pitfall_10_each_rejection_is_a_new_error(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    dependency.breaker.open()
    raised = []
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport())) as client:
        for _ in range(3):
            with pytest.raises(library.ours.CircuitOpen) as caught:
                await client.get("http://dep/")
            raised.append(caught.value)
    assert len({id(error) for error in raised}) == 3
    assert all(error.__context__ is None for error in raised)


ALIASED = """
import httpx2
httpx2.alias_httpx()
import asyncio, httpx, pickle
import resilient.httpx, resilient.httpx2
from resilient import Resilience
from resilient.testing import FaultyTransport
assert httpx is httpx2

async def main():
    for door in (resilient.httpx, resilient.httpx2):
        for fault, expected in (([503, 200], 200), ([httpx.ConnectError("refused")] * 3, None)):
            transport = door.AsyncResilientTransport(Resilience(), FaultyTransport(fault))
            async with httpx.AsyncClient(transport=transport) as client:
                try:
                    assert (await client.get("http://dep/")).status_code == expected
                except httpx.ConnectError:
                    assert expected is None
        with httpx.Client(transport=door.ResilientTransport(Resilience(), verify=False)) as client:
            assert client._transport._gate is None
        error = door.DeadlineExceeded("late")
        assert isinstance(error, httpx.TimeoutException) and isinstance(pickle.loads(pickle.dumps(error)), door.DeadlineExceeded)

asyncio.run(main())
print("works")
"""


@pytest.mark.slow
def test_ground_21_works_under_the_alias() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", ALIASED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("works\n", "", 0)


@pytest.mark.slow
def test_importing_the_package_imports_neither_library() -> None:
    program = "import sys, resilient; print(sorted({'httpx', 'httpx2', 'httpcore', 'trio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
