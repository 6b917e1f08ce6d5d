"""Requests whose task is gone before they have ended: what they held is there again, whoever comes next."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from resilient import Resilience, current_deadline
from resilient.asgi import Admission, AdmissionMiddleware, DeadlineMiddleware, ResilienceMiddleware, StaleResponses
from resilient.context import current_record

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}
SMALL = {"limit": 4, "min_concurrent": 4, "max_concurrent": 4, "queue": 0, "max_streams": 4}
PATIENT = {"target": 20.0, "interval": 30.0, "max_wait": 30.0}
"""A turn of the loop takes on all that come, however busy the machine is."""


class Service:
    """An app in which `/hang` never ends, and how one asks it."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.resilience = Resilience()
        self.app = make(self._serve, self.resilience)
        self.inside = 0
        (self.door,) = self.resilience.admissions

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/hang":
            self.inside += 1
            await asyncio.get_running_loop().create_future()
        await send(START)
        await send(BODY)

    def ask(self, path: str, told: list[int] | None = None, kind: str = "http") -> Coroutine[Any, Any, None]:
        async def receive() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            if told is not None and message["type"] == "http.response.start":
                told.append(message["status"])

        scope = {"type": kind, "method": "GET", "path": path, "headers": [], "http_version": "1.1"}
        return self.app(scope, receive, send)

    async def hang(self, count: int, kind: str = "http") -> list[asyncio.Task[None]]:
        inside = self.inside + count
        tasks = [asyncio.ensure_future(self.ask("/hang", kind=kind)) for _ in range(count)]
        while self.inside < inside:
            await asyncio.sleep(0)
        return tasks

    def statuses(self, count: int) -> list[int]:
        """What so many requests are answered, on an event loop of their own."""
        told: list[int] = []

        async def main() -> None:
            for _ in range(count):
                await self.ask("/", told)

        asyncio.run(main())
        return told


def everything(app: Any, resilience: Resilience) -> Any:
    return ResilienceMiddleware(
        app, resilience, admission=Admission(**SMALL, **PATIENT), stale=StaleResponses(stale_if_error=60), cancel_on_disconnect=True
    )


def alone(app: Any, resilience: Resilience) -> Any:
    return AdmissionMiddleware(app, resilience, **SMALL, **PATIENT)


def endless(app: Any, resilience: Resilience) -> Any:
    """Without a deadline, whose timer would keep a request and end it in time."""
    return ResilienceMiddleware(app, resilience, admission=Admission(**SMALL, **PATIENT), timeout=None, stale=StaleResponses())


@pytest.fixture(params=[everything, alone])
def service(request: pytest.FixtureRequest) -> Service:
    return Service(request.param)


@pytest.fixture
def loop() -> Any:
    """An event loop that nobody tidies up after."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending!" is what these tests are about
    yield loop
    loop.close()


@pytest.mark.parametrize("finalized", ["at once", "later", "never"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_loop_that_is_closed_takes_no_slot_with_it(service: Service, loop: Any, finalized: str, kind: str) -> None:
    tasks = loop.run_until_complete(service.hang(4, kind))
    assert service.door.in_flight + service.door.streams == 4
    loop.close()
    if finalized == "at once":
        tasks.clear()
        gc.collect()
    assert service.statuses(5) == [200] * 5  # each of the four slots was free
    assert service.door.in_flight == service.door.streams == 0
    tasks.clear()
    gc.collect()
    assert service.statuses(1) == [200]
    assert service.door.in_flight == service.door.streams == 0  # nothing was given back twice
    assert service.resilience.leaving.in_flight == 0


def test_other_loops_keep_what_they_have(service: Service, loop: Any) -> None:
    other = asyncio.new_event_loop()
    lost = loop.run_until_complete(service.hang(2))
    kept = other.run_until_complete(service.hang(2))
    loop.close()
    assert service.statuses(3) == [200] * 3
    assert service.door.in_flight == 2
    for task in kept:
        task.cancel()
    other.run_until_complete(asyncio.gather(*kept, return_exceptions=True))
    other.close()
    assert service.door.in_flight == 0 and not any(task.done() for task in lost)


@pytest.mark.parametrize("make", [endless, alone])
def test_a_task_that_its_loop_has_dropped_gives_its_slot_back(make: Callable[..., Any], loop: Any) -> None:
    service = Service(make)

    async def main() -> list[int]:
        tasks = await service.hang(4)
        assert service.door.in_flight == 4
        tasks.clear()
        gc.collect()
        assert service.door.in_flight == 0
        assert current_deadline() is None and current_record() is None
        told: list[int] = []
        await service.ask("/", told)
        return told

    assert loop.run_until_complete(main()) == [200]
    assert service.resilience.leaving.in_flight == 0
    counted = service.resilience.metrics.render()[0].decode()
    if make is endless:  # they are counted as what was never answered, once
        assert 'resilient_requests_total{method="GET",route="unmatched",status="none"} 4.0' in counted


def test_a_finalizer_takes_no_lock(service: Service, loop: Any) -> None:
    """A garbage collection comes where it likes: perhaps in the midst of what the lock is for."""
    tasks = loop.run_until_complete(service.hang(4))
    loop.close()

    def collect() -> None:
        with service.door._lock:
            tasks.clear()
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert service.statuses(4) == [200] * 4


@pytest.mark.parametrize("make", [endless, alone])
def test_an_error_on_the_way_out_is_told_as_ever(make: Callable[..., Any], loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: unraisable.append(told.exc_value))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise KeyError("of the app")

    service = Service(lambda _, resilience: make(app, resilience))

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(service.ask("/"))]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(main())
    loop.close()
    tasks.clear()
    gc.collect()
    assert [str(error) for error in unraisable] == ["'of the app'"]
    assert service.door.in_flight == 0


def test_a_deadline_that_is_left_behind_makes_no_noise(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cancel scope cannot be left where its task is not."""
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: unraisable.append(told.exc_value))
    service = Service(lambda app, resilience: AdmissionMiddleware(DeadlineMiddleware(app, resilience), resilience, **SMALL, **PATIENT))
    tasks = loop.run_until_complete(service.hang(4))
    loop.close()
    tasks.clear()
    gc.collect()
    assert unraisable == []
    assert service.statuses(4) == [200] * 4
