"""Outbox: events reach listeners in order, once, outside every lock, and a bad listener harms nobody."""

from __future__ import annotations

import functools
import logging
import threading
from contextvars import Context, ContextVar
from typing import Any

import pytest

from resilient.events import CallRejected, Event
from resilient.outbox import CAPACITY, Outbox
from resilient.testing import RecordingListener


def event(number: float = 0) -> Event:
    return CallRejected(at=number, policy="bulkhead", reason="full")


class Broken:
    def on_event(self, event: Event) -> None:
        raise RuntimeError(f"event {event.at}")


def test_what_is_posted_is_delivered_by_a_flush(listener: RecordingListener) -> None:
    outbox = Outbox([listener])
    for number in range(3):
        outbox.post(event(number))
    assert listener.events == []
    outbox.flush()
    assert [one.at for one in listener.events] == [0, 1, 2]
    outbox.flush()
    assert len(listener.events) == 3 and not outbox.pending
    outbox.emit(event(3))
    assert len(listener.events) == 4


def test_every_listener_gets_every_event(listener: RecordingListener) -> None:
    late = RecordingListener()
    outbox = Outbox([listener])
    outbox.emit(event(1))
    outbox.add(late)
    outbox.emit(event(2))
    outbox.remove(listener)
    outbox.emit(event(3))
    assert [one.at for one in listener.events] == [1, 2] and [one.at for one in late.events] == [2, 3]


def test_it_is_heard_for_as_long_as_somebody_besides_the_library_listens(listener: RecordingListener) -> None:
    own, other = RecordingListener(), RecordingListener()
    outbox = Outbox()
    outbox.add(own, own=True)
    assert not outbox.heard
    outbox.add(listener)
    outbox.add(other)
    outbox.remove(listener)
    assert outbox.heard
    outbox.remove(other)
    assert not outbox.heard
    outbox.emit(event(1))
    assert len(own.events) == 1
    outbox.remove(own)
    outbox.add(listener)
    assert outbox.heard
    outbox.remove(listener)
    outbox.remove(listener)  # who is not there
    assert not outbox.heard and outbox.listeners == ()


def test_who_was_there_from_the_start_is_heard_and_may_leave(listener: RecordingListener) -> None:
    outbox = Outbox([listener])
    assert outbox.heard
    outbox.remove(listener)
    assert not outbox.heard


def test_without_listeners_nothing_is_kept() -> None:
    outbox = Outbox()
    outbox.post(event())
    assert not outbox.pending


@pytest.mark.parametrize("listener", [object(), print, None, {"on_event": print}])
def test_a_listener_has_on_event(listener: Any) -> None:
    with pytest.raises(TypeError, match="^listener"):
        Outbox().add(listener)


def test_a_broken_listener_is_counted_and_logged_once(listener: RecordingListener, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox([Broken(), Broken(), listener])
    with caplog.at_level(logging.ERROR, "resilient"):
        for number in range(5):
            outbox.emit(event(number))
    assert len(listener.events) == 5 and outbox.listener_errors == 10
    assert len(caplog.records) == 1 and caplog.records[0].exc_info is not None


def test_deferred_calls_keep_their_place_among_the_events(listener: RecordingListener, caplog: pytest.LogCaptureFixture) -> None:
    order: list[Any] = []
    listener.on_event = lambda one: order.append(one.at)  # type: ignore[method-assign]
    outbox = Outbox([listener])
    outbox.post(event(1))
    outbox.defer(functools.partial(order.append, "deferred"))
    outbox.defer(lambda: 1 / 0)
    outbox.defer(functools.partial(Broken().on_event, event(7)))
    outbox.post(event(2))
    outbox.flush()
    assert order == [1, "deferred", 2] and outbox.listener_errors == 2
    assert len(caplog.records) == 2  # one for each kind


def test_what_a_listener_causes_is_delivered_after_what_it_was_told() -> None:
    seen: list[float] = []

    class Chatty:
        def on_event(self, event: Event) -> None:
            seen.append(event.at)
            if event.at < 3:
                outbox.emit(CallRejected(at=event.at + 1, policy="x", reason="y"))
                seen.append(-event.at)

    outbox = Outbox([Chatty()])
    outbox.emit(event(1))
    assert seen == [1, -1, 2, -2, 3]


def test_a_listener_that_blocks_blocks_nobody_else_and_loses_nothing() -> None:
    entered, leave = threading.Event(), threading.Event()
    seen: list[float] = []

    class Slow:
        def on_event(self, event: Event) -> None:
            if not seen:
                entered.set()
                leave.wait(5)
            seen.append(event.at)

    outbox = Outbox([Slow()])
    blocked = threading.Thread(target=outbox.emit, args=(event(0),))
    blocked.start()
    entered.wait(5)
    for number in range(1, 10):
        outbox.emit(event(number))  # returns at once: whoever delivers will deliver these too
    assert seen == []
    leave.set()
    blocked.join(5)
    assert seen == list(range(10))


def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    seen: list[float] = []

    class Flooded:
        def on_event(self, one: Event) -> None:
            if not seen:
                for number in range(1, CAPACITY + 6):
                    outbox.post(event(number))
            seen.append(one.at)

    outbox = Outbox([Flooded()])
    outbox.emit(event(0))
    assert outbox.dropped == 5 and len(outbox.pending) == 0
    assert seen[:2] == [0, 6] and len(seen) == CAPACITY + 1


def test_from_many_threads_every_event_arrives_once() -> None:
    seen: list[float] = []
    outbox = Outbox()
    outbox.add(type("Ear", (), {"on_event": lambda self, one: seen.append(one.at)})())

    def emit(thread: int) -> None:
        for number in range(500):
            outbox.emit(event(thread * 1000 + number))

    threads = [threading.Thread(target=emit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 4000 and not outbox.pending and outbox.dropped == 0
    for thread in range(8):
        own = [at for at in seen if at // 1000 == thread]
        assert own == sorted(own)  # what one thread saw in an order is told in that order


def test_where_it_happened_may_be_a_context_without_any_variables() -> None:
    """As of a request whose refusal another request tells: it is not told as that one's."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen: list[str] = []

    class Here:
        in_context = True

        def on_event(self, event: Event) -> None:
            seen.append(whose.get())

    def another_request() -> None:
        whose.set("another's")
        outbox.emit(event(1), Context())
        outbox.emit(event(2))

    outbox = Outbox([Here()])
    Context().run(another_request)
    assert seen == ["nobody's", "another's"]
