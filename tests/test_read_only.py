"""Read-only mode: features and dependencies that write."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import pytest

from resilient import Dependency, Level, Rejected, Resilience
from resilient.events import CallRejected, FeatureDegraded, ReadOnlyChanged
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .feature_worlds import Uses, in_each_world

FULL, REDUCED, STATIC, OFF = Level


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


def rejections(listener: RecordingListener) -> list[tuple[str, str, bool]]:
    return [(event.dependency, event.reason, event.enforced) for event in listener.of(CallRejected)]


@in_each_world
def test_features_that_write(world: str, resilience: Resilience, listener: RecordingListener) -> None:
    queued = resilience.feature("comments", writes=True, fallback="queued")
    order = resilience.feature("order", writes=True)
    reading = resilience.feature("catalog", fallback=[])
    uses = [Uses(world, feature) for feature in (queued, order, reading)]
    resilience.read_only(by="ann", why="migration", until=60)
    assert [feature.level for feature in (queued, order, reading)] == [OFF, OFF, FULL]
    assert uses[0]() == "queued"
    with pytest.raises(Rejected) as caught:
        uses[1]()
    assert (caught.value.reason, caught.value.retry_after) == ("read_only", 60)
    assert uses[2]() == "own"
    assert [use.calls for use in uses] == [0, 0, 1]
    assert [(event.feature, event.cause) for event in listener.of(FeatureDegraded)] == [("comments", "read_only"), ("order", "read_only")]
    queued.clear()
    assert queued.level is OFF, "an operator's order is another"
    resilience.read_write(by="bob")
    assert (uses[0](), uses[1]()) == ("own", "own")
    assert [(event.read_only, event.by) for event in listener.of(ReadOnlyChanged)] == [(True, "ann"), (False, "bob")]
    assert [(entry.what, entry.cause, entry.by) for entry in order.history] == [
        ("ordered", "read_only", "ann"),
        ("changed", "read_only", "ann"),
        ("lifted", "read_only", "bob"),
        ("changed", "read_only", "bob"),
    ]


def test_a_feature_that_is_declared_later_too(resilience: Resilience) -> None:
    resilience.read_only()
    with pytest.raises(Rejected):
        Uses("sync", resilience.feature("order", writes=True))()


def test_it_ends_by_itself(resilience: Resilience, clock: FakeClock) -> None:
    order = Uses("sync", resilience.feature("order", writes=True))
    ledger = resilience.dependency("ledger", writes=True)
    resilience.read_only(until=60)
    assert resilience.writes.stop is not None
    clock.advance(60)
    assert order() == "own"
    assert ledger.call_sync(lambda: "booked") == "booked"
    assert resilience.writes.refuses(clock.now()) is None


def test_shadow_mode(resilience: Resilience, listener: RecordingListener) -> None:
    order = Uses("sync", resilience.feature("order", writes=True))
    ledger = resilience.dependency("ledger", writes=True)
    resilience.read_only(enforce=False)
    assert order() == "own"
    assert ledger.call_sync(lambda: "booked") == "booked"
    assert rejections(listener) == [("", "read_only", False), ("ledger", "read_only", False)]


@pytest.mark.anyio
async def test_a_dependency_that_writes(resilience: Resilience, listener: RecordingListener) -> None:
    ledger = resilience.dependency("ledger", writes=True)
    stock = resilience.dependency("stock")

    async def booked() -> str:
        return "booked"

    assert await ledger.call(booked) == "booked"
    resilience.read_only(retry_after=7)
    with pytest.raises(Rejected) as caught:
        await ledger.call(booked)
    assert (caught.value.dependency, caught.value.policy, caught.value.retry_after) == ("ledger", "read_only", 7)
    assert ledger.state == "closed"
    assert await stock.call(booked) == "booked"
    assert rejections(listener) == [("ledger", "read_only", True)]
    resilience.reset()
    assert await ledger.call(booked) == "booked"


@pytest.mark.anyio
async def test_over_http_reading_goes_on(resilience: Resilience, library: Any) -> None:
    resilience.dependency("ledger", origin="http://ledger", writes=True)
    inner = FaultyTransport([200])
    resilience.read_only()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience, inner)) as client:
        assert (await client.get("http://ledger/7")).status_code == 200
        with pytest.raises(library.TransportError) as caught:
            await client.post("http://ledger/7")
        assert isinstance(caught.value, Rejected)
    assert len(inner.requests) == 1


def test_what_the_fallback_of_a_dependency_is_for(resilience: Resilience) -> None:
    """A write that is queued instead is a fallback, and answers for the refusal."""
    ledger = resilience.dependency("ledger", writes=True, fallback=lambda: "queued")
    resilience.read_only()
    assert ledger.call_sync(lambda: "booked") == "queued"


def test_outside_a_resilience_writes_are_taken() -> None:
    assert Dependency("ledger", writes=True).call_sync(lambda: "booked") == "booked"
    with pytest.raises(TypeError, match="writes"):
        Dependency("ledger", writes="yes")  # type: ignore[arg-type]


def test_it_is_logged_with_who_and_why(resilience: Resilience, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "resilient")
    resilience.read_only(by="ann", why="migration")
    resilience.read_write(by="bob")
    assert "the service is read-only, by 'ann': 'migration'" in caplog.text
    assert "the service takes writes, by 'bob'" in caplog.text


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"by": 3}, TypeError),
        ({"why": "a" * 501}, ValueError),
        ({"until": -1}, ValueError),
        ({"until": datetime(2030, 1, 1)}, ValueError),  # noqa: DTZ001
        ({"retry_after": 0}, ValueError),
        ({"enforce": 1}, TypeError),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception], resilience: Resilience) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        resilience.read_only(**settings)
    assert resilience.writes.stop is None
