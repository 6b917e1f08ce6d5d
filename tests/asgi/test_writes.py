"""Read-only mode at the door: requests that could change something are refused, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Resilience
from resilient.asgi import ResilienceMiddleware
from resilient.asgi.writes import WriteGate
from resilient.core.writes import ReadOnly
from resilient.events import CallRejected
from resilient.testing import FakeClock, RecordingListener


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def refused(listener: RecordingListener) -> list[tuple[str, str, bool]]:
    return [(event.policy, event.reason, event.enforced) for event in listener.of(CallRejected)]


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
async def test_a_write_is_refused_told_and_counted(method: str, resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    served = ResilienceMiddleware(app, resilience)
    assert (await ask(served, method=method)).status == 200
    resilience.read_only(by="ann", why="the database moves", retry_after=60)
    answer = await ask(served, method=method)
    assert answer.status == 503
    assert answer.problem["error"] == "http_request_denied"
    assert 60 <= int(answer.header("retry-after")[0]) <= 73
    assert b"ann" not in answer.body
    assert b"database" not in answer.body
    assert refused(listener) == [("read_only", "read_only", True)]
    page, _ = resilience.metrics.render("")
    assert b'resilient_rejections_total{dependency="",policy="read_only",reason="read_only"} 1.0' in page
    resilience.read_write()
    assert (await ask(served, method=method)).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
async def test_reading_goes_on(method: str, resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    resilience.read_only()
    assert (await ask(ResilienceMiddleware(app, resilience), method=method)).status == 200
    assert refused(listener) == []


@pytest.mark.anyio
async def test_exempt_routes(resilience: Resilience, ask: Any) -> None:
    served = ResilienceMiddleware(app, resilience, exempt_writes=["POST /login", "/drafts/{id}"])
    resilience.read_only()
    asked = {
        (method, path): (await ask(served, path, method=method)).status
        for method in ("POST", "PUT")
        for path in ("/login", "/drafts/7", "/")
    }
    assert asked == {
        ("POST", "/login"): 200,
        ("PUT", "/login"): 503,
        ("POST", "/drafts/7"): 200,
        ("PUT", "/drafts/7"): 200,
        ("POST", "/"): 503,
        ("PUT", "/"): 503,
    }


@pytest.mark.anyio
async def test_an_app_may_look_after_itself(resilience: Resilience, ask: Any) -> None:
    served = ResilienceMiddleware(app, resilience, refuse_writes=False)
    resilience.read_only()
    assert (await ask(served, method="POST")).status == 200


@pytest.mark.anyio
async def test_shadow_mode_counts_and_serves(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    resilience.read_only(enforce=False)
    assert (await ask(ResilienceMiddleware(app, resilience), method="POST")).status == 200
    assert refused(listener) == [("read_only", "read_only", False)]


@pytest.mark.anyio
async def test_the_time_that_is_left_is_what_clients_are_told(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    served = ResilienceMiddleware(app, resilience)
    resilience.read_only(until=600)
    clock.advance(500)
    assert 100 <= int((await ask(served, method="POST")).header("retry-after")[0]) <= 121
    clock.advance(100)
    assert (await ask(served, method="POST")).status == 200


def test_no_answer_is_absurdly_far_away(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    problem = WriteGate(chance=lambda: 0.5).answer(ReadOnly(retry_after=1e12), resilience)
    assert problem is not None
    assert problem.retry_after is not None
    assert problem.retry_after < 100_000


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "root"), [("/mounted/login", "/mounted"), ("/login", ""), ("/login", "/mounted")])
async def test_exempt_is_what_lies_beneath_where_the_app_is_mounted(path: str, root: str, resilience: Resilience) -> None:
    resilience.read_only()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any: ...

    served = ResilienceMiddleware(app, resilience, exempt_writes=["POST /login"])
    for asked in (path, f"{root}/other"):
        await served({"type": "http", "method": "POST", "path": asked, "root_path": root, "headers": []}, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [200, 503]
