"""Requests that come too late: refused before any work, but never all of them, and in shadow mode none."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import Resilience, current_deadline
from resilient.asgi import DeadlineMiddleware, ResilienceMiddleware
from resilient.events import DeadlinePassed
from resilient.testing import FakeClock, RecordingListener

pytestmark = pytest.mark.anyio

LATE = {"X-Request-Timeout-Ms": "0"}
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}


class App:
    """Remembers how long each request had."""

    def __init__(self, lasts: float = 0.0) -> None:
        self.had: list[float | None] = []
        self.lasts = lasts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        deadline = current_deadline()
        self.had.append(None if deadline is None else deadline.remaining)
        if self.lasts:
            await anyio.sleep(self.lasts)
        await send(START)
        await send(BODY)


def told(listener: RecordingListener) -> list[tuple[str, bool]]:
    return [(event.limit, event.enforced) for event in listener.of(DeadlinePassed)]


async def test_late_ones_among_others_are_refused_before_any_work(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    app = App()
    guarded = ResilienceMiddleware(app, resilience, trusted=["192.0.2.1"])
    for _ in range(9):
        await ask(guarded)
    answer = await ask(guarded, headers=LATE)
    assert (answer.status, len(app.had)) == (504, 9)
    assert answer.problem["error"] == "http_response_timeout"
    assert told(listener) == [("expired", True)]
    assert 'resilient_deadline_exceeded_total{side="inbound"} 1.0' in resilience.metrics.render()[0].decode()


async def test_where_all_come_late_most_are_served_as_if_nothing_had_been_said(
    resilience: Resilience, listener: RecordingListener, ask: Any
) -> None:
    """A frozen header or a proxy that counts in other units must not stop the service."""
    app = App()
    guarded = ResilienceMiddleware(app, resilience, trusted=["192.0.2.1"], timeout=7.0)
    statuses = [(await ask(guarded, headers=LATE)).status for _ in range(100)]
    assert (statuses.count(504), statuses.count(200)) == (20, 80)
    assert app.had == [pytest.approx(7.0)] * 80  # the limit of our own: what was said is not believed
    assert told(listener).count(("expired", True)) == 20 and told(listener).count(("expired", False)) == 80


@pytest.mark.parametrize(("share", "refused"), [(0.0, 0), (0.5, 10), (1.0, 20)])
async def test_the_share_is_chosen(share: float, refused: int, resilience: Resilience, ask: Any) -> None:
    guarded = DeadlineMiddleware(App(), resilience, trusted=["192.0.2.1"], max_expired=share)
    assert [(await ask(guarded, headers=LATE)).status for _ in range(20)].count(504) == refused


async def test_the_untrusted_are_neither_refused_nor_counted(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    guarded = DeadlineMiddleware(App(), resilience, trusted=["192.0.2.1"], max_expired=1.0)
    assert (await ask(guarded, headers=LATE, client=("198.51.100.1", 1))).status == 200
    assert told(listener) == []


async def test_shadow_mode_serves_them_and_tells(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    app = App()
    guarded = ResilienceMiddleware(app, resilience, trusted=["192.0.2.1"], max_expired=1.0, enforce_deadlines=False)
    assert (await ask(guarded, headers=LATE)).status == 200
    assert app.had == [None]  # nor are outbound calls bound by it
    assert told(listener) == [("expired", False)]
    assert 'resilient_deadline_exceeded_total{side="shadow_inbound"} 1.0' in resilience.metrics.render()[0].decode()


@pytest.mark.parametrize("body", [False, True])
@pytest.mark.parametrize(("lasts", "expected"), [(2.0, [("inbound", False)]), (0.5, [])])
async def test_shadow_mode_cuts_nothing_and_tells_who_was_late(
    body: bool, lasts: float, expected: Any, resilience: Resilience, listener: RecordingListener, clock: FakeClock, ask: Any
) -> None:
    guarded = DeadlineMiddleware(App(lasts), resilience, timeout=1.0, body=body, enforce=False)
    assert (await ask(guarded, now=clock.now)).status == 200
    assert told(listener) == expected


async def test_shadow_mode_looks_at_what_it_would_have_cut(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock, ask: Any
) -> None:
    async def slow_body(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await anyio.sleep(2.0)
        await send(BODY)
        await anyio.sleep(5.0)  # a background task

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-type", b"text/event-stream")]})
        await anyio.sleep(2.0)
        await send(BODY)

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(2.0)
        raise ValueError("nothing was sent")

    await ask(DeadlineMiddleware(slow_body, resilience, timeout=1.0, enforce=False), now=clock.now)
    await ask(DeadlineMiddleware(silent, resilience, timeout=1.0, body=True, enforce=False), now=clock.now)
    assert told(listener) == []
    await ask(DeadlineMiddleware(slow_body, resilience, timeout=1.0, body=True, enforce=False), now=clock.now)
    with pytest.raises(ValueError, match="nothing was sent"):
        await ask(DeadlineMiddleware(failing, resilience, timeout=1.0, enforce=False), now=clock.now)
    assert told(listener) == [("inbound", False)] * 2


async def test_without_any_limit_shadow_mode_has_nothing_to_tell(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    assert (await ask(DeadlineMiddleware(App(), resilience, timeout=None, enforce=False))).status == 200
    assert told(listener) == []


@pytest.mark.parametrize("enforce", [False, True])
async def test_a_mounted_app_with_its_own_middleware_tells_once(
    enforce: bool, resilience: Resilience, listener: RecordingListener, ask: Any
) -> None:
    app = App()
    settings: dict[str, Any] = {"trusted": ["192.0.2.1"], "max_expired": 0.0, "enforce_deadlines": enforce}
    await ask(ResilienceMiddleware(ResilienceMiddleware(app, resilience, **settings), resilience, **settings), headers=LATE)
    assert len(app.had) == 1
    assert told(listener) == [("expired", False)]
