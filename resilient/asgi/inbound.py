"""What every middleware of this package is: an `Inbound` with one or more of its aspects switched on.

So each behaviour is written once, and all of them together cost one scope check, one wrapped `send` and one cancel scope.
"""

from __future__ import annotations

import math
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..runtime import AsyncRuntime
from .exchange import Exchange
from .protocols import ASGIApp, Attended, Latencies, Measured, Receive, Scope, Send, Surroundings, check_resilience

if TYPE_CHECKING:
    from .admission import Admission
    from .criticality import InboundCriticality
    from .deadline import InboundDeadlines, Trusted
    from .degradation import DegradationHeader
    from .disconnect import Disconnects
    from .door import Door
    from .drain import Drain, DrainGate
    from .errors import ErrorMapping
    from .lifespan import Lifespan
    from .metrics import RequestMetrics
    from .stale import StaleResponses
    from .writes import WriteGate

__all__ = ["Inbound"]


class Inbound:
    """An ASGI application around another. Subclasses switch its aspects on.

    Anything but an HTTP request passes through untouched, and so does everything while the `Resilience` is disabled. With the
    lifespan begins and ends what the `Resilience` does besides.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
    """

    admission: Admission | None = None
    deadlines: InboundDeadlines | None = None
    degradation: DegradationHeader | None = None
    drain: DrainGate | None = None
    lifespan: Lifespan | None = None
    errors: ErrorMapping | None = None
    requests: RequestMetrics | None = None
    stale: StaleResponses | None = None
    writes: WriteGate | None = None
    disconnects: Disconnects | None = None
    # Set together with the admission.
    criticality: InboundCriticality
    door: Door
    _exposes: Callable[[Scope], bool] | None = None
    """Whether the caller of a request may be told what is behind; None for nobody."""

    def __init__(self, app: ASGIApp, resilience: Surroundings) -> None:
        if not callable(app):
            raise TypeError(f"app: expected an ASGI application, got {app!r}")
        check_resilience(resilience)
        self.app = app
        self.resilience = resilience
        self.brownout: Latencies | None = getattr(resilience, "brownout", None)
        self.lifespan: Lifespan | None = getattr(resilience, "lifespan", None)
        self._health: Attended | None = getattr(resilience, "health", None)
        self._runtime = AsyncRuntime(resilience.clock)
        self.now: Callable[[], float] = self._runtime.now
        self.abandoned: deque[Callable[[], None]] = deque()
        """What finalizers of requests left to be done by the next one; shared with the door, if there is one."""
        self._shown = {"resilience": resilience, "features": getattr(resilience, "features", {})}

    def take_on(self, admission: Admission, resilience: Measured, trusted: Trusted = ()) -> None:
        """Let `admission` decide who is let in; those who are `trusted` may say how much their requests matter."""
        self.criticality = admission.criticalities(trusted)
        self.door = admission.door(resilience)
        self.abandoned = self.door.abandoned
        self.admission = admission

    def leave_by(self, drain: Drain, resilience: Any) -> None:
        """Let `drain` say what becomes of requests while the service is about to stop."""
        from .drain import DrainGate  # which is an `Inbound` itself

        leaving = getattr(resilience, "leaving", None)
        if leaving is not None:
            self.drain = DrainGate(drain, leaving)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0912 - a frame for each aspect would cost more
        admission = self.admission
        if scope["type"] != "http" or not self.resilience.enabled:
            await self._pass(scope, receive, send)
            return
        if self._health is not None and self._health.pending:
            self._health.attend()  # the app has no lifespan, or its loop is another one
        while self.abandoned:
            self.abandoned.popleft()()
        loop = _get_running_loop()
        exchange = Exchange(self, scope, send, loop)
        try:
            if self.degradation is not None:
                self._show(scope)
            drain, writes = self.drain, self.writes
            if (
                (drain is not None and drain.leaving.order is not None) or (writes is not None and writes.mode.stop is not None)
            ) and await self._refused(exchange, scope):
                return
            if self.stale is not None:
                exchange.keep_copy(self.stale.copy(scope, self.resilience, self._runtime, self._exposes))
            if self.disconnects is not None:
                receive = exchange.attended(self.disconnects, receive)
            deadlines = self.deadlines
            seconds = math.inf if deadlines is None else deadlines.fixed or exchange.time_for(deadlines)
            if seconds is None:
                await exchange.ended(caught=True)
            elif admission is not None and not exchange.come(admission, self.door, loop):
                await exchange.turn_away(admission)
            elif seconds == math.inf and not exchange.is_attended:
                await exchange.app(scope, receive, exchange.send)
            else:
                with exchange.bounded(deadlines, seconds, loop) as cancel_scope:
                    await exchange.app(scope, receive, exchange.send)
                if (exchange.cut or not exchange.native) and cancel_scope.cancel_called:
                    await exchange.ended(caught=cancel_scope.cancelled_caught)
        except BaseException as error:
            if exchange.is_lost(error):
                exchange.abandon()
                if isinstance(error, RuntimeError) and isinstance(error.__context__, GeneratorExit):
                    return  # it is the cancel scope's, which cannot be left where its task is not
                raise
            if not isinstance(error, Exception) or not await exchange.answered(error):
                raise
        finally:
            if not exchange.abandoned:
                exchange.close()

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no HTTP request, or while everything is switched off."""
        if self._health is not None and self._health.pending and scope["type"] != "lifespan":
            self._health.attend()
        if scope["type"] == "http":
            if self.degradation is not None:
                self._show(scope)
        elif scope["type"] == "websocket" and self.resilience.enabled:
            await self._attend(scope, receive, send)
            return
        elif scope["type"] == "lifespan" and self.lifespan is not None:
            await self.lifespan.live(self.app, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def exposes(self, scope: Scope) -> bool:
        """Whether the caller of a request may be told what is behind."""
        return self._exposes is not None and self._exposes(scope)

    async def _attend(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A websocket: past the drain, then past the admission, as far as there are any."""
        admission, app = self.admission, self.app
        if admission is not None:

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await admission.attend(self, scope, receive, send)

        if self.drain is None:
            await app(scope, receive, send)
        else:
            await self.drain.attend(self, app, scope, receive, send)

    def _show(self, scope: Scope) -> None:
        """Let endpoints and templates find the `Resilience` and its features at `request.state`."""
        state = scope.get("state")
        if state is None:
            scope["state"] = {**self._shown}
        else:
            state.update(self._shown)

    async def _refused(self, exchange: Exchange, scope: Scope) -> bool:
        """Whether the request was refused, for the service is about to stop or read-only."""
        drain, writes = self.drain, self.writes
        if drain is not None and exchange.comes_too_late(drain):
            await exchange.send_away(drain)
            return True
        resilience: Any = self.resilience
        stop = None if writes is None else writes.mode.refuses(resilience.clock.now())
        problem = None if stop is None or writes is None or not writes.refuses(scope) else writes.answer(stop, resilience)
        if problem is not None:
            await exchange.refuse(problem)
        return problem is not None
