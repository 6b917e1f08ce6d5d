"""Deadlines that callers send along: believed from the trusted, only to shorten, never when unreadable."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Resilience, current_deadline
from resilient.asgi import DeadlineMiddleware, ResilienceMiddleware
from resilient.asgi.deadline import InboundDeadlines
from resilient.events import DeadlinePassed
from resilient.testing import RecordingListener

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}


@pytest.fixture
def remaining(ask: Any, resilience: Resilience) -> Any:
    """`await remaining(headers, client=..., **settings)`: the seconds that the app sees, or None if it was never called."""

    async def remaining(headers: dict[str, str], client: Any = ("10.1.2.3", 1), **settings: Any) -> float | None:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            deadline = current_deadline()
            seen.append(deadline.remaining if deadline else None)
            await send(START)
            await send(BODY)

        settings = {"trusted": ["10.0.0.0/8"], **settings}
        await ask(ResilienceMiddleware(app, resilience, **settings), headers=headers, client=client)
        return seen[0] if seen else None

    return remaining


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-Request-Timeout-Ms": "1500"}, 1.5),
        ({"X-Envoy-Expected-Rq-Timeout-Ms": "250"}, 0.25),
        ({"grpc-timeout": "2S"}, 2),
        ({"grpc-timeout": "1500m"}, 1.5),
        ({"grpc-timeout": "99999999u"}, 30),
        ({"grpc-timeout": "50000000n"}, 0.05),
        ({"grpc-timeout": "1M"}, 30),
        ({"grpc-timeout": "1H"}, 30),
        ({"X-Request-Timeout-Ms": "60000"}, 30),
        ({"X-Request-Timeout-Ms": "9999999999"}, 30),
        ({"X-Request-Timeout-Ms": "3000", "grpc-timeout": "2S", "X-Envoy-Expected-Rq-Timeout-Ms": "5000"}, 2),
    ],
)
async def test_the_smallest_of_all_holds(headers: dict[str, str], seconds: float, remaining: Any) -> None:
    assert await remaining(headers) == pytest.approx(seconds)


GARBAGE = ["", " ", "-1", "+1", "1.5", "1e3", "0x10", "soon", "12345678901", "1,2", "\u0661"]


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("name", ["x-request-timeout-ms", "grpc-timeout"])
def test_garbage_is_ignored_and_counted(value: str, name: str) -> None:
    deadlines = InboundDeadlines(trusted=lambda scope: True)
    assert deadlines.seconds({"headers": [(name.encode(), value.encode())]}) == 30
    assert deadlines.ignored == 1


@pytest.mark.parametrize("value", ["1", "S", "1s", "123456789S", "1 S", "1S,2S", "-1S", "1.5S"])
def test_garbled_grpc_timeouts_are_ignored_and_counted(value: str) -> None:
    deadlines = InboundDeadlines(trusted=lambda scope: True)
    assert deadlines.seconds({"headers": [(b"grpc-timeout", value.encode())]}) == 30
    assert deadlines.ignored == 1


def test_garbage_beside_a_good_header_hides_nothing() -> None:
    deadlines = InboundDeadlines(trusted=lambda scope: True)
    headers = [(b"grpc-timeout", b"soon"), (b"x-request-timeout-ms", b"700"), (b"x-request-timeout-ms", b"900")]
    assert deadlines.seconds({"headers": headers}) == 0.7
    assert deadlines.ignored == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("trusted", "client", "believed"),
    [
        ((), ("10.1.2.3", 1), False),
        (["10.0.0.0/8"], ("10.1.2.3", 1), True),
        (["10.0.0.0/8"], ("192.0.2.1", 1), False),
        (["10.1.2.3"], ("10.1.2.3", 1), True),
        (["10.0.0.0/8"], ("::ffff:10.1.2.3", 1), True),
        (["fd00::/8"], ("fd00::1", 1), True),
        (["fd00::/8"], ("10.1.2.3", 1), False),
        (["10.0.0.0/8"], None, False),
        (["10.0.0.0/8"], ("testclient", 1), False),
        (lambda scope: scope["client"] is None, None, True),
        (lambda scope: False, ("10.1.2.3", 1), False),
    ],
)
async def test_pitfall_12_only_trusted_peers_are_believed(trusted: Any, client: Any, believed: bool, remaining: Any) -> None:
    seconds = await remaining({"X-Request-Timeout-Ms": "500"}, client, trusted=trusted)
    assert seconds == pytest.approx(0.5 if believed else 30)


@pytest.mark.anyio
async def test_header_names_can_be_chosen(remaining: Any) -> None:
    headers = {"X-Deadline-In": "700", "X-Request-Timeout-Ms": "100"}
    assert await remaining(headers, deadline_headers=["X-Deadline-In"]) == pytest.approx(0.7)


@pytest.mark.anyio
async def test_a_caller_can_set_the_only_limit(remaining: Any) -> None:
    assert await remaining({"X-Request-Timeout-Ms": "500"}, timeout=None) == pytest.approx(0.5)


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["0", "9"])
async def test_a_request_that_is_over_already_is_answered_before_any_work(
    value: str, resilience: Resilience, listener: RecordingListener, ask: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("nobody waits for this")

    middleware = DeadlineMiddleware(app, resilience, trusted=["192.0.2.0/24"], max_expired=1.0)
    answer = await ask(middleware, headers={"X-Request-Timeout-Ms": value})
    assert answer.status == 504
    assert answer.received == 0
    assert [(event.side, event.limit, event.enforced) for event in listener.of(DeadlinePassed)] == [("inbound", "expired", True)]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": "30"}, TypeError, "timeout"),
        ({"timeout": 0.001}, ValueError, "timeout.*min_useful"),
        ({"min_useful": -1}, ValueError, "min_useful"),
        ({"body": 1}, TypeError, "body"),
        ({"hard": None}, TypeError, "hard"),
        ({"trusted": "10.0.0.0/8"}, TypeError, "trusted"),
        ({"trusted": 5}, TypeError, "trusted"),
        ({"trusted": ["nowhere"]}, ValueError, "trusted"),
        ({"trusted": ["10.0.0.1/8"]}, ValueError, "trusted"),
        ({"deadline_headers": "x-a"}, TypeError, "deadline_headers"),
        ({"deadline_headers": [b"x-a"]}, TypeError, "deadline_headers"),
    ],
)
@pytest.mark.parametrize("middleware", [DeadlineMiddleware, ResilienceMiddleware])
def test_settings_are_checked(
    middleware: Any, settings: dict[str, Any], error: type[Exception], message: str, resilience: Resilience
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(error, match=message):
        middleware(app, resilience, **settings)


def test_the_app_must_be_callable(resilience: Resilience) -> None:
    with pytest.raises(TypeError, match="app"):
        DeadlineMiddleware(resilience, resilience)  # type: ignore[arg-type]
