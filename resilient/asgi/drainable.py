"""The part of a `Resilience` that takes leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ..core.bounds import flag, not_negative, positive
from ..feature.settings import text
from ..waiters import Moment
from .departure import Departure
from .hooks import Hook
from .leaving import Leaving

__all__ = ["Drainable"]

H = TypeVar("H", bound=Hook)


class Drainable:
    """A service that can be drained."""

    leaving: Leaving

    def drain(self, *, delay: float = 0.0, budget: float | None = None, by: str = "", why: str = "") -> Departure:
        """Take leave: /readyz is 503 from now on, and HTTP/1 connections are told to close.

        For `delay` seconds all requests are served: as long as whoever sends them takes to notice. Then new ones are answered
        503, retries, hedges and refreshes of caches end, and what is under way has `budget` seconds. Nothing of it is killed.
        It has begun when this returns; called once more, it can only become sooner. To be called from anywhere.

        Args:
            delay: seconds; 0 where nobody is sent here any more.
            budget: seconds; by default that of `Drain`, which is 20.
            by: who says so; at most 500 characters, as for `why`.
            why: the reason, for those who ask later.

        Returns:
            To be awaited, or left alone: whether all that was under way has ended in time. A request that awaits it waits for
            itself.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong.
        """
        not_negative("delay", delay)
        if budget is not None:
            not_negative("budget", budget)
        return self.leaving.begin(delay, budget, text("by", by), text("why", why))

    def resume(self, *, by: str = "", why: str = "") -> None:
        """Serve again as before, after or during a drain."""
        self.leaving.resume(text("by", by), text("why", why))

    @property
    def draining(self) -> bool:
        """Whether a drain has begun. Set to True it only fails readiness, and refuses nothing; to False it is `resume`."""
        return self.leaving.order is not None

    @draining.setter
    def draining(self, value: bool) -> None:
        flag("draining", value)
        if value:
            self.leaving.fail_readiness()
        else:
            self.leaving.resume()

    @property
    def drain_begun(self) -> Moment:
        """Comes when a drain begins: `await resilience.drain_begun.wait()`, `resilience.drain_begun.is_set()`."""
        return self.leaving.begun

    @property
    def drain_closing(self) -> Moment:
        """Comes when a drain takes on no new work: time for event streams to end, whose clients come back elsewhere."""
        return self.leaving.closing

    @overload
    def on_drain(self, hook: H, *, timeout: float = 10.0) -> H: ...
    @overload
    def on_drain(self, *, timeout: float = 10.0) -> Callable[[H], H]: ...
    def on_drain(self, hook: Any = None, *, timeout: float = 10.0) -> Any:
        """Call `hook` as soon as a drain begins, for work in the background to stop and to note how far it came.

        It is an async function, awaited on the event loop of the service, or a plain one, which gets a thread. All are called
        beside each other. A drain is not over before they are; one that fails or takes longer is logged and counted. To be
        used as a decorator too.

        Args:
            hook: a function without arguments.
            timeout: seconds that it may take; a thread is not waited for any longer.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong.
        """
        positive("timeout", timeout)
        if hook is None:
            return lambda given: self.on_drain(given, timeout=timeout)
        if not callable(hook):
            raise TypeError(f"hook: expected a function, got {hook!r}")
        self.leaving.hooks.add(hook, timeout)
        return hook
