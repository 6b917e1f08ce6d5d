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

from ..core.breaker import CLOSED, HALF_OPEN, OPEN
from .breaker import CircuitBreaker
from .guests import Audience, Mirror, store

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["ForeignBreaker"]

# One driver a breaker, though two pipelines be built at once.
_FINDING = threading.Lock()
SHORTEST = 0.001  # pybreaker allows a break of 0 seconds, which for us would be none


class ForeignBreaker(pybreaker.CircuitBreakerListener):
    """Runs our engine for somebody else's breaker, and keeps the two in step.

    It listens to the breaker, so that what its owner does by hand is followed (its settings too, from the next call
    on), and tells it of our transitions. The breaker's own counters are kept where its storage is in memory; any other
    storage is read once, when the driver is made, and written to, both in the background.
    """

    def __init__(self, breaker: pybreaker.CircuitBreaker) -> None:
        self.foreign = breaker
        self._settings = self._their_settings()
        fail_max, reset_timeout, success_threshold = self._settings
        self.engine = CircuitBreaker(fail_max, reset_timeout, success_threshold, listeners=[_Relay(self)], name=breaker.name)
        # The very list, so that what is excluded later is excluded here too.
        self.engine._excluded_exceptions = breaker._excluded_exceptions
        self._mirror = Mirror(lambda: self.engine.current_state, self._lead, breaker._state_storage, breaker._lock)
        self.in_memory = self._mirror.immediate
        # What is known of the breaker's state without asking its storage.
        self._known: str = breaker._state.name
        self._leading = threading.local()
        breaker.add_listener(self)
        if self.in_memory:
            self._follow(breaker.current_state)
        else:
            threading.Thread(target=self._look, name="resilient-breaker-storage", daemon=True).start()

    def __repr__(self) -> str:
        return f"<driver of {self.foreign!r}>"

    @classmethod
    def of(cls, breaker: pybreaker.CircuitBreaker) -> ForeignBreaker:
        """The driver of `breaker`: one for each, however many pipelines it stands in."""
        with _FINDING:
            for listener in breaker.listeners:
                if isinstance(listener, cls):
                    return listener
            return cls(breaker)

    # -- the policy -----------------------------------------------------------------------------------------------

    @property
    def current_state(self) -> str:
        """closed, open or half-open."""
        return self.engine.current_state

    @property
    def reason(self) -> str:
        """Why it is not closed: consecutive, forced; empty when it is."""
        return self.engine.reason

    def join(self, owner: Pipeline) -> None:
        """Tell `owner` of transitions from now on."""
        self.engine.join(owner)

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        settings = self._their_settings()
        if settings != self._settings:
            self._settings = settings
            self.engine.fail_max, self.engine.reset_timeout, self.engine.success_threshold = settings
        return self.engine.run(call, inner)

    def reset(self) -> None:
        """A fresh start, for the breaker too."""
        self.engine.reset()

    def _their_settings(self) -> tuple[int, float, int]:
        foreign = self.foreign
        return max(foreign.fail_max, 1), max(foreign.reset_timeout, SHORTEST), max(foreign.success_threshold, 1)

    # -- in step --------------------------------------------------------------------------------------------------

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        """The breaker changed: by its owner's hand, unless we did it."""
        self._known = new_state.name
        if not getattr(self._leading, "now", False):
            self._follow(new_state.name)

    def _look(self) -> None:
        Audience().tell(lambda: self._follow(self.foreign.current_state))

    def _follow(self, state: str) -> None:
        engine = self.engine
        self._known = state
        if state != engine.current_state:
            # pybreaker's open() is no isolation: after its reset_timeout it lets trials through.
            {CLOSED: engine.close, OPEN: engine.trip}.get(state, engine.half_open)()

    def _lead(self, state: str) -> None:
        foreign = self.foreign
        if state == self._known:
            return
        self._leading.now = True
        try:
            {CLOSED: foreign.close, OPEN: foreign.open}.get(state, foreign.half_open)()
        except Exception:
            # One of its listeners failed in the middle of its transition; what it stands at must be right all the same.
            store(foreign._state_storage, state)
            self._known = state
            raise
        finally:
            self._leading.now = False


class _Relay(pybreaker.CircuitBreakerListener):
    """Hears our engine; tells the foreign breaker and its listeners."""

    def __init__(self, driver: ForeignBreaker) -> None:
        self._driver = driver
        self._audience = Audience()

    def _others(self) -> list[pybreaker.CircuitBreakerListener]:
        return [listener for listener in self._driver.foreign.listeners if listener is not self._driver]

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        for listener in self._others():
            self._audience.tell(listener.before_call, self._driver.foreign, func, *args, **kwargs)

    def success(self, cb: Any) -> None:
        driver = self._driver
        if driver.in_memory:
            storage = driver.foreign._state_storage
            storage.reset_counter()
            if driver.current_state == HALF_OPEN:
                storage.increment_success_counter()
        for listener in self._others():
            self._audience.tell(listener.success, driver.foreign)

    def failure(self, cb: Any, exc: BaseException) -> None:
        driver = self._driver
        if driver.in_memory:
            driver.foreign._state_storage.increment_counter()
        for listener in self._others():
            self._audience.tell(listener.failure, driver.foreign, exc)

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self._driver._mirror.write(new_state.name)
