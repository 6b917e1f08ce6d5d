"""What users of pybreaker bring along: listeners that may fail, storages that may block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import pybreaker

__all__ = ["Audience", "Mirror", "excluded", "listening", "store"]

logger = logging.getLogger("resilient")

METHODS = ("before_call", "success", "failure", "state_change")


class Audience:
    """Calls other people's code; what it raises is logged, once for each class of listener, and goes no further."""

    __slots__ = ("_broken",)

    def __init__(self) -> None:
        self._broken: set[type] | None = None  # nearly every breaker has nobody that could fail

    def tell(self, listener: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            listener(*args, **kwargs)
        except Exception:
            whose = getattr(listener, "__self__", listener)
            if self._broken is None:
                self._broken = set()
            if type(whose) not in self._broken and len(self._broken) < 100:
                self._broken.add(type(whose))
                logger.exception("%r, given to a circuit breaker, failed; further failures of its kind are not logged", whose)


class Lock(Protocol):
    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...


class Mirror:
    """Tells somebody else's breaker or storage of a state, off the call path: a storage may be a database.

    Written is each state as it comes, or the latest where writing takes longer than the next one; in the end always the
    present one. A write that fails is logged, and the next transition tries again.

    Args:
        read: the present state.
        write: stores a state.
        storage: where it ends up; only `CircuitMemoryStorage` is trusted not to block, and written to at once ...
        lock: ... unless this, which `write` takes, is held by somebody else.
    """

    __slots__ = ("_audience", "_lock", "_read", "_shown", "_state", "_theirs", "_write", "_writing", "immediate")

    def __init__(
        self,
        read: Callable[[], str],
        write: Callable[[str], object],
        storage: pybreaker.CircuitBreakerStorage,
        lock: Lock | None = None,
    ) -> None:
        # Not a subclass of it: who knows where that one writes to.
        self.immediate = type(storage) is pybreaker.CircuitMemoryStorage
        self._read = read
        self._write = write
        self._theirs = lock
        self._lock = threading.Lock()
        self._audience = Audience()
        self._state: str | None = None
        self._shown: str | None = None
        self._writing = False

    def write(self, state: str) -> None:
        with self._lock:
            self._state = state
            if self._writing:
                return
            self._writing = True
        if self.immediate and (self._theirs is None or self._theirs.acquire(blocking=False)):
            try:
                self._drain()
            finally:
                if self._theirs is not None:
                    self._theirs.release()
        else:
            self._drain_in_background()

    def _drain_in_background(self) -> None:
        thread = threading.Thread(target=self._drain, name="resilient-breaker-storage", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had now: the next transition tries again
            logger.exception("a circuit breaker's storage could not be written to")
            with self._lock:
                self._writing = False

    def _drain(self) -> None:
        while True:
            with self._lock:
                state, self._state = self._state, None
                if state is None:
                    # Two transitions in two threads may be told here the wrong way round.
                    state = self._read()
                    if state == self._shown:
                        self._writing = False
                        return
                self._shown = state
            self._audience.tell(self._write, state)


def store(storage: pybreaker.CircuitBreakerStorage, state: str) -> None:
    """Put a breaker's state into a storage, as pybreaker does."""
    if state == pybreaker.STATE_OPEN:
        storage.opened_at = datetime.now(UTC)
    storage.state = state


def excluded(exclude: Any) -> list[Any]:
    """What is excluded, as a list.

    Raises:
        TypeError: naming `exclude`.
    """
    if exclude is None:
        return []
    if isinstance(exclude, type) or not isinstance(exclude, Iterable):
        raise TypeError(f"exclude: expected exception classes or functions in a list, got {exclude!r}")
    found = list(exclude)
    for one in found:
        if not (issubclass(one, BaseException) if isinstance(one, type) else callable(one)):
            raise TypeError(f"exclude: expected an exception class or a function of the exception, got {one!r}")
    return found


def listening(listeners: Any) -> list[Any]:
    """Who listens, as a list.

    Raises:
        TypeError: naming `listeners`.
    """
    if listeners is None:
        return []
    if not isinstance(listeners, Iterable):
        raise TypeError(f"listeners: expected them in a list, got {listeners!r}")
    found = list(listeners)
    for one in found:
        missing = [method for method in METHODS if not callable(getattr(one, method, None))]
        if missing:
            raise TypeError(f"listeners: expected a pybreaker.CircuitBreakerListener, got {one!r} without {', '.join(missing)}")
    return found
