"""An answer that says that another try here is of no use is not followed by one; elsewhere there may be."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette

from resilient import Failover, Resilience, Retry, Target
from resilient.asgi import AdmissionMiddleware
from resilient.core.pushback import says_not_here
from resilient.events import FailedOver, RetryDecided
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"retry-after": "1"}, False),
        ({"x-envoy-overloaded": "true"}, True),
        ({"grpc-retry-pushback-ms": "-1"}, True),
        ({"grpc-retry-pushback-ms": "soon"}, True),
        ({"grpc-retry-pushback-ms": ""}, True),
        ({"grpc-retry-pushback-ms": "100"}, False),
    ],
)
def test_what_says_so(fields: dict[str, str], expected: bool) -> None:
    assert says_not_here(fields.get) is expected


@pytest.mark.anyio
@pytest.mark.parametrize("field", [{"x_envoy_overloaded": "true"}, {"grpc_retry_pushback_ms": "-1"}])
@pytest.mark.parametrize("retry", [Retry(), Retry(on_result=True)])
async def test_it_is_not_sent_again(
    library: Any, declare: Declare, clock: FakeClock, listener: RecordingListener, field: dict[str, str], retry: Retry
) -> None:
    inner = FaultyTransport([scripted(library, b"{}", status=503, retry_after="1", **field), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(retry), inner)) as client:
        answer = await client.get("http://dep/")
    assert answer.status_code == 503 and len(inner.requests) == 1
    assert [event.result for event in listener.of(RetryDecided)] == ["pushback"]


@pytest.mark.anyio
async def test_another_503_is(library: Any, declare: Declare, clock: FakeClock) -> None:
    inner = FaultyTransport([scripted(library, b"{}", status=503), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(Retry()), inner)) as client:
        assert (await client.get("http://dep/")).status_code == 200


@pytest.mark.anyio
async def test_another_target_may_be_asked(library: Any, declare: Declare, clock: FakeClock, listener: RecordingListener) -> None:
    inner = FaultyTransport([scripted(library, b"{}", status=503, x_envoy_overloaded="true"), 200])
    targets = Failover(Target("first", Retry()), Target("second", Retry(), url="https://other.example.org"))
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(targets), inner)) as client:
        answer = await client.get("http://dep/")
    assert answer.status_code == 200 and len(inner.requests) == 2
    assert [(event.target, event.to) for event in listener.of(FailedOver)] == [("first", "second")]


@pytest.mark.anyio
async def test_what_our_own_admission_answers_says_so(library: Any, declare: Declare, clock: FakeClock) -> None:
    asked = []

    class Counting(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            asked.append(request)
            return await app.handle_async_request(request)

    full = AdmissionMiddleware(Starlette(), Resilience(clock=clock), limit=4, max_concurrent=4, queue=0)
    while full.door._slots.enter(3):
        pass
    app = library.ASGITransport(full)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(Retry()), Counting())) as client:
        answer = await client.get("http://dep/")
    assert answer.status_code == 503 and len(asked) == 1
    assert answer.json()["retry_after"] == int(answer.headers["retry-after"])
