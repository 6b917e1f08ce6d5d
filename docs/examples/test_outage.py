"""An outage of an hour as a test of milliseconds: python docs/examples/test_outage.py, or pytest on it."""

from __future__ import annotations

import asyncio

import httpx

from resilient import CircuitOpen, Resilience
from resilient.events import CircuitChanged
from resilient.httpx import AsyncResilientTransport
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

HOUR = 3600.0


def test_the_circuit_opens_soon_and_closes_soon() -> None:
    clock, listener = FakeClock(), RecordingListener()
    resilience = Resilience(clock=clock, listeners=[listener])
    catalog = resilience.dependency("catalog")
    began = clock.now()

    def service(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503 if clock.now() - began < HOUR else 200)

    async def ask_every_second() -> None:
        async with httpx.AsyncClient(transport=AsyncResilientTransport(catalog, FaultyTransport([service]))) as client:
            while clock.now() - began < HOUR + 10:
                try:
                    await client.get("http://catalog/item/7")
                except CircuitOpen:
                    """At once, and nothing was sent."""
                await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(ask_every_second())

    changes = listener.of(CircuitChanged)
    assert changes[0].new == "open"
    assert changes[0].at - began < 5
    assert changes[-1].new == "closed"
    assert changes[-1].at - (began + HOUR) < 10
    assert catalog.state == "closed"


if __name__ == "__main__":
    test_the_circuit_opens_soon_and_closes_soon()
