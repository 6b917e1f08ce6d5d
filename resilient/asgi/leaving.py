"""The run of a drain in one service: what is told when, and who is still inside.

Nothing here needs an event loop that stays: a service may be drained from a loop, from a thread, and from a program
that has no loop at all; its run then has a thread of its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from ..background import begin_on, home_here
from ..core.drain import DrainOrder
from ..events import DrainChanged
from ..runtime import AsyncRuntime
from ..waiters import Moment
from ..wheel import current_home
from .departure import Departure
from .hooks import DrainHooks
from .route import route_template
from .sigterm import SignalChain

if TYPE_CHECKING:
    from .drain import Drain
    from .layer import Layer
    from .protocols import Surroundings

__all__ = ["Leaving"]

BUDGET = 20.0
"""Seconds that what is under way has, unless somebody says otherwise."""
TICK = 0.05  # seconds between two looks at who is still inside; nothing looks but while a service drains
TOLD = 5  # routes that are named


class Leaving:
    """What a `Resilience` knows of its service's leave.

    Args:
        resilience: whose clock and outbox.
        given: settings of `Drain` that stand over the program's.

    Attributes:
        order: the timetable while the service drains, else None.
        inside: the requests and websockets that are under way, as layers.
        begun: readiness fails.
        closing: no new work is taken on: no request, no retry, no hedge; streams should end.
        settings: those of the middleware.
        hooks: what is called when a drain begins.
    """

    __slots__ = ("_departure", "_homes", "_lock", "_resilience", "begun", "closing", "given", "hooks", "inside", "order", "settings")

    def __init__(self, resilience: Surroundings, given: Mapping[str, Any] | None = None) -> None:
        self._resilience = resilience
        self.given = given or {}
        self._lock = threading.Lock()
        self.hooks = DrainHooks(resilience)
        self._homes: list[Any] = []  # the event loops of the servers that run now
        self._departure: Departure | None = None
        self.order: DrainOrder | None = None
        self.inside: set[Any] = set()
        self.begun = Moment()
        self.closing = Moment()
        self.settings: Drain | None = None

    # -- who is inside --------------------------------------------------------------------------------------------

    def under_way(self) -> list[Any]:
        """What has to end: each request once, and none that only asks how the service is."""
        settings = self.settings
        for gone in [one for one in list(self.inside) if one.is_gone]:
            self.inside.discard(gone)  # nobody will end it
        found = [one for one in list(self.inside) if not self.knows(one._outer)]
        return found if settings is None else [one for one in found if not settings.spares(one._scope)]

    def knows(self, layer: Layer | None) -> bool:
        """Whether a layer of a request, or one around it, is inside."""
        while layer is not None:
            if layer in self.inside:
                return True
            layer = layer._outer
        return False

    @property
    def in_flight(self) -> int:
        """How many requests and websockets are under way."""
        return len(self.under_way())

    def now(self) -> float:
        """The present moment, on the clock that orders are given by."""
        return self._resilience.clock.now()

    @property
    def started(self) -> bool:
        """Whether the service's start-up is over, so that requests may have been sent here."""
        return bool(getattr(self._resilience, "startup_complete", True))

    # -- orders ---------------------------------------------------------------------------------------------------

    def begin(self, delay: float, budget: float | None, by: str = "", why: str = "", *, final: bool = False) -> Departure:
        """Begin to leave, or leave sooner than was ordered before. From whichever thread."""
        if budget is None:
            budget = self.given.get("budget", BUDGET) if self.settings is None else self.settings.budget
        now = self.now()
        order = DrainOrder(now, now + delay, now + delay + budget, by, why, final)
        with self._lock:
            first = self.order is None
            self.order = order if self.order is None else self.order.joined(order)
            departure = self._departure
            if departure is None:
                departure = self._departure = Departure()
        if first:
            self._tell("begun")
            self.begun.set()
        if delay <= 0:
            self.close()
        self._go_on(departure)
        return departure

    def fail_readiness(self) -> None:
        """Only that: nothing is refused, and nothing ends."""
        now = self.now()
        with self._lock:
            first = self.order is None
            if first:
                self.order = DrainOrder(now, float("inf"), float("inf"))
        if first:
            self._tell("begun")
            self.begun.set()

    def resume(self, by: str = "", why: str = "") -> None:
        """Serve again as before."""
        if self.order is not None:
            self.reset()
            event = DrainChanged(at=self.now(), what="resumed", by=by, why=why, in_flight=self.in_flight)
            self._resilience.outbox.emit(event)

    def reset(self) -> None:
        """As if nothing had been ordered; nobody is told."""
        with self._lock:
            self.order = None
            departure, self._departure = self._departure, None
        self.begun.clear()
        self.closing.clear()
        if departure is not None:
            departure.end()
            departure.wake()

    def close(self) -> None:
        """Take on no new work from now on."""
        if self.closing.set():
            self._tell("closed")

    # -- the run --------------------------------------------------------------------------------------------------

    def _go_on(self, departure: Departure) -> None:
        """See that somebody looks after it: the loop that runs here if a server does there, or a server's; any other, or a thread."""
        with self._lock:
            begun, departure.begun = departure.begun and not departure.stuck, True
            homes = self._homes
        if begun:
            departure.wake()
            return

        async def work() -> None:
            await self._run(departure)

        here = home_here()
        # A loop that is no server's may end before the drain does, and servers wait for the drain.
        for home in (here, *reversed(homes)) if here in homes else (*reversed(homes), here):
            if home is not None and begin_on(home, work, departure.end):
                departure.home = home
                return
        departure.home = None
        threading.Thread(target=anyio.run, args=(work,), name="resilient-drain", daemon=True).start()

    async def _run(self, departure: Departure) -> None:
        try:
            if not self.hooks:
                departure.hooks_done.set()
                await self._see_it_through(departure)
                return
            async with anyio.create_task_group() as group:
                group.start_soon(self._call_hooks, departure)
                if await self._see_it_through(departure):
                    group.cancel_scope.cancel()
        finally:
            departure.end()

    async def _see_it_through(self, departure: Departure) -> bool:
        """Whether it came to its end; it does not where the service resumes, and then the hooks have the time they need."""
        runtime = AsyncRuntime(self._resilience.clock)
        while True:
            departure.waiter = waiter = runtime.waiter()
            with self._lock:
                order = self.order if self._departure is departure else None
            if order is None:
                return False
            now = runtime.now()
            if not order.closed(now):
                await runtime.wait(waiter, order.closes_at)
                continue
            self.close()
            departure.complete = departure.hooks_done.is_set() and not self.under_way()
            if departure.complete or order.over(now):
                self._tell("drained" if departure.complete else "overdue")
                return True
            await runtime.wait(waiter, min(now + TICK, order.ends_at))

    async def _call_hooks(self, departure: Departure) -> None:
        await self.hooks.call()
        departure.hooks_done.set()

    # -- the life of a server -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """From the start of a server to its end, which is a drain if there was none before."""
        home = current_home()
        with self._lock:
            self._homes = [*self._homes, home]
        settings = self.settings
        chain = SignalChain(self, settings, home) if settings is not None and settings.signals and self._resilience.enabled else None
        try:
            if chain is not None:
                chain.take()
            yield
        finally:
            if chain is not None:
                chain.give_back()
            with self._lock:
                homes = [*self._homes]
                homes.remove(home)
                self._homes = homes
            if not homes:
                await self._end()

    def ended(self) -> None:
        """The server is gone; should the program start another one, as tests do, that one serves from the beginning."""
        order = self.order
        if order is not None and order.final and not self._homes:
            self.reset()

    async def _end(self) -> None:
        """The server has served whom it had; what is left are hooks."""
        departure = self.begin(0.0, None, why="shutdown", final=True)
        await departure.hooks_done.wait()
        self.begin(0.0, 0.0, final=True)
        await departure

    # -- telling --------------------------------------------------------------------------------------------------

    def _tell(self, what: str) -> None:
        order = self.order
        found = self.under_way()
        routes = Counter(_routes(found)).most_common(TOLD) if what == "overdue" else ()
        by, why = ("", "") if order is None else (order.by, order.why)
        at = self.now()
        named = tuple(route for route, _ in routes)
        self._resilience.outbox.emit(DrainChanged(at=at, what=what, by=by, why=why, in_flight=len(found), routes=named))


def _routes(found: list[Any]) -> Iterator[str]:
    for one in found:
        yield route_template(one._scope)
