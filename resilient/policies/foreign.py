"""A plain pybreaker.CircuitBreaker in a pipeline: it keeps its settings, state, storage and listeners; we drive it.

Its own `call` holds a lock while the function runs, takes a cancellation for a failure, an excluded error for a success,
and lets everybody through when half open. So it is never called: our engine decides by its settings, and the instance
is told what happened.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import pybreaker

from ..core.breaker import CLOSED, OPEN
from .breaker import CircuitBreaker
from .kinship import Mirror, tell

if TYPE_CHECKING:
    from ..call import Call
    from ..core.outcome import Outcome
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["ForeignBreaker"]


class ForeignBreaker(pybreaker.CircuitBreakerListener):
    """Runs our engine for somebody else's breaker, and keeps the two in step.

    It listens to the breaker, so that what its owner does by hand is followed, and tells it of our transitions. The
    breaker's own failure counter is kept too where its storage is in memory; no other storage is asked on the way.
    """

    def __init__(self, breaker: pybreaker.CircuitBreaker) -> None:
        self.foreign = breaker
        self.engine = CircuitBreaker(
            fail_max=breaker.fail_max,
            reset_timeout=breaker.reset_timeout,
            success_threshold=breaker.success_threshold,
            exclude=breaker.excluded_exceptions,
            listeners=[_Relay(self)],
            name=breaker.name,
        )
        self.mirror = Mirror(self._lead, breaker._state_storage)
        self._leading = threading.local()
        if self.mirror.immediate:
            self._follow(breaker.current_state)
        breaker.add_listener(self)

    @classmethod
    def of(cls, breaker: pybreaker.CircuitBreaker) -> ForeignBreaker:
        """The driver of `breaker`: one for each, however many pipelines it stands in."""
        for listener in breaker.listeners:
            if isinstance(listener, cls):
                return listener
        return cls(breaker)

    @property
    def current_state(self) -> str:
        return self.engine.current_state

    @property
    def reason(self) -> str:
        return self.engine.reason

    def join(self, owner: Pipeline) -> None:
        self.engine.join(owner)

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.engine.run(call, inner)

    def reset(self) -> None:
        self.engine.reset()

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        """The breaker changed: by its owner's hand, unless we did it."""
        if not getattr(self._leading, "now", False):
            self._follow(new_state.name)

    def _follow(self, state: str) -> None:
        engine = self.engine
        if state != engine.current_state:
            # pybreaker's open() is no isolation: after its reset_timeout it lets trials through.
            {CLOSED: engine.close, OPEN: engine.trip}.get(state, engine.half_open)()

    def _lead(self, state: str) -> None:
        foreign = self.foreign
        self._leading.now = True
        try:
            {CLOSED: foreign.close, OPEN: foreign.open}.get(state, foreign.half_open)()
        finally:
            self._leading.now = False


class _Relay(pybreaker.CircuitBreakerListener):
    """Hears our engine; tells the foreign breaker and its listeners."""

    def __init__(self, driver: ForeignBreaker) -> None:
        self._driver = driver

    def _others(self) -> list[pybreaker.CircuitBreakerListener]:
        return [listener for listener in self._driver.foreign.listeners if listener is not self._driver]

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        for listener in self._others():
            tell(listener.before_call, self._driver.foreign, func, *args, **kwargs)

    def success(self, cb: Any) -> None:
        if self._driver.mirror.immediate:
            self._driver.foreign._state_storage.reset_counter()
        for listener in self._others():
            tell(listener.success, self._driver.foreign)

    def failure(self, cb: Any, exc: BaseException) -> None:
        if self._driver.mirror.immediate:
            self._driver.foreign._state_storage.increment_counter()
        for listener in self._others():
            tell(listener.failure, self._driver.foreign, exc)

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self._driver.mirror.write(new_state.name)
