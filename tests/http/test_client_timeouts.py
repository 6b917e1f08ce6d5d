"""The client's own timeouts beside ours."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from resilient import Timeout, standard
from resilient.testing import FakeClock, FaultyTransport

from .bodies import scripted
from .conftest import Declare

pytestmark = pytest.mark.anyio


async def test_timers_of_the_client_are_told_no_longer_than_ours(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Looked up by the library when an operation begins, they are what is left by then."""
    dependency = declare(*standard(timeout=Timeout(total=10, idle=4)))
    seen: dict[str, Any] = {}

    async def answer(request: Any) -> Any:
        timeouts = request.extensions["timeout"]
        seen["connect"] = timeouts.get("connect")
        await anyio.sleep(3)
        seen["headers"] = timeouts.get("read"), timeouts["read"], timeouts.get("unheard of", 99)
        seen["after"] = timeouts
        return scripted(library, b"x", 1)(request)

    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([answer]))
    async with library.AsyncClient(transport=transport, timeout=library.Timeout(60, connect=2)) as client:
        async with client.stream("POST", "http://dep/") as response:
            assert seen["after"].get("read") == 4, "one read of the body"
            await response.aread()
        assert response.request.extensions["timeout"] == {"connect": 2, "read": 60, "write": 60, "pool": 60}, "as the client made it"
    assert seen["connect"] == 2
    assert seen["headers"] == pytest.approx((7, 7, 7))


async def test_librarys_read_timeout_at_our_deadline_is_told_as_ours(library: Any, clock: FakeClock, declare: Declare) -> None:
    async def clamped(request: Any) -> Any:
        await anyio.sleep(request.extensions["timeout"].get("read"))
        raise library.ReadTimeout("")

    dependency = declare(timeout=3)
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([clamped])), timeout=60
    ) as client:
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/")
    assert raised.value.reason == "total"


async def test_librarys_read_timeout_before_our_deadline_is_its_own(library: Any, clock: FakeClock, declare: Declare) -> None:
    async def own(request: Any) -> Any:
        await anyio.sleep(request.extensions["timeout"].get("read"))
        raise library.ReadTimeout("slow")

    dependency = declare(timeout=30)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([own])), timeout=1) as client:
        with pytest.raises(library.ReadTimeout, match="slow"):
            await client.post("http://dep/")
    assert dependency.breaker.fail_counter == 1


async def test_longer_client_timeout_is_logged_once(
    library: Any, clock: FakeClock, declare: Declare, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="resilient")
    dependency = declare(timeout=0.3)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([200]))) as client:
        for _ in range(3):
            await client.get("http://dep/")
    logged = [record.message for record in caplog.records if record.name == "resilient"]
    assert logged == ["dep: the client's read timeout of 5 s is longer than the total of 0.3 s; the shorter one holds"]
