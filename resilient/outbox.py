"""Hands events to listeners, after all is settled and outside every lock."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context

from .events import Event, Listener

__all__ = ["Outbox"]

logger = logging.getLogger("resilient")

# Events wait only while a listener is running; a listener that blocks for ever must not grow memory.
CAPACITY = 10_000


class Outbox:
    """A bounded queue of events in front of listeners.

    Policies `post` while they settle; the runner calls `flush` when nothing is held any more. At the limit the oldest
    events are dropped and counted in `dropped`; errors of listeners are logged once a listener and counted.

    Attributes:
        heard: whether somebody listens besides the library itself.
        in_context: whether a listener wants to be called in the context that an event comes from, by an attribute of that
            name. Whoever delivers an event may be another task or thread than the one that it happened in.
    """

    __slots__ = ("_broken", "_delivering", "_own", "dropped", "heard", "in_context", "listener_errors", "listeners", "pending")

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self.listeners: tuple[Listener, ...] = tuple(listeners)
        self._own: tuple[Listener, ...] = ()
        self.heard: bool = bool(self.listeners)
        self.in_context: bool = any(map(_wants_context, self.listeners))
        self.pending: deque[Event | tuple[Event, Context] | Callable[[], object]] = deque(maxlen=CAPACITY)
        self.dropped: int = 0
        self.listener_errors: int = 0
        self._delivering = threading.Lock()
        self._broken: set[type] = set()

    def add(self, listener: Listener, *, own: bool = False) -> None:
        """Hand every later event to `listener` too; `own` for one that is told in another way what makes events at high rates.

        Raises:
            TypeError: `listener` has no `on_event` method.
        """
        if not isinstance(listener, Listener):
            raise TypeError(f"listener: expected an object with on_event(event), got {listener!r}")
        if own:
            self._own = (*self._own, listener)
        self._listen((*self.listeners, listener))

    def remove(self, listener: Listener) -> None:
        """Hand no later event to `listener`, however often it was added."""
        self._own = _without(listener, self._own)
        self._listen(_without(listener, self.listeners))

    def _listen(self, listeners: tuple[Listener, ...]) -> None:
        self.listeners = listeners
        self.heard = len(listeners) > len(self._own)
        self.in_context = any(map(_wants_context, listeners))

    def post(self, event: Event, context: Context | None = None) -> None:
        """Queue an event. Never blocks, never calls user code: safe under a lock.

        Args:
            event: what happened.
            context: where it happened, if that is not here.
        """
        if self.listeners:
            if len(self.pending) == CAPACITY:
                self.dropped += 1
            self.pending.append((event, copy_context() if context is None else context) if self.in_context else event)

    def defer(self, told: Callable[[], object]) -> None:
        """Queue a call of somebody else's code, in order with the events."""
        if len(self.pending) == CAPACITY:
            self.dropped += 1
        self.pending.append(told)

    def flush(self) -> None:
        """Deliver what is queued, in order, unless somebody is doing so already: then that one delivers it too."""
        # A flag with try-semantics rather than a lock: nobody ever waits for a listener.
        while self.pending and self._delivering.acquire(blocking=False):
            try:
                self._deliver()
            finally:
                self._delivering.release()

    def emit(self, event: Event, context: Context | None = None) -> None:
        """Post and flush at once, for callers that hold nothing."""
        self.post(event, context)
        self.flush()

    def _deliver(self) -> None:
        while self.pending:
            try:
                item = self.pending.popleft()
            except IndexError:  # somebody else has emptied it: a reset
                return
            if isinstance(item, tuple):
                event, context = item
                for listener in self.listeners:
                    self.guard(listener, functools.partial(context.run, listener.on_event, event))
            elif isinstance(item, Event):
                for listener in self.listeners:
                    self.guard(listener, functools.partial(listener.on_event, item))
            else:
                method = item.func if isinstance(item, functools.partial) else item
                self.guard(getattr(method, "__self__", method), item)

    def guard(self, whose: object, told: Callable[[], object]) -> None:
        """Call somebody else's code at once; what it raises is counted, logged once a class, and goes no further."""
        try:
            told()
        except Exception:
            self.listener_errors += 1
            if type(whose) not in self._broken and len(self._broken) < 100:
                self._broken.add(type(whose))
                logger.exception("listener %r failed; further failures of its kind are only counted", whose)


def _without(listener: Listener, known: tuple[Listener, ...]) -> tuple[Listener, ...]:
    return tuple(one for one in known if one is not listener)


def _wants_context(listener: Listener) -> bool:
    return getattr(listener, "in_context", False) is True
