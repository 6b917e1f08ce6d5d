"""What operators may do from the dashboard. Each use is told: an event, and a line in the log."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..events import ControlUsed
from ..policies.foreign import ForeignBreaker
from .answers import Refusal, json_answer
from .board import Dashboard, dumped
from .guard import Guard, check_token
from .order import Order, read

__all__ = ["MOST_A_MINUTE", "Controls"]

logger = logging.getLogger("resilient")

MOST_A_MINUTE = 60
"""Uses of controls; one more is refused."""

MOST_LOGGED = 10  # refusals a minute that are logged


class Controls:
    """The controls of one dashboard.

    Args:
        board: whose.
        guard: says who may use them.
    """

    def __init__(self, board: Dashboard, guard: Guard) -> None:
        self._board = board
        self._guard = guard
        self._resilience = board.resilience
        self._uses = PerMinute(MOST_A_MINUTE)
        self._refusals = PerMinute(MOST_LOGGED)

    @property
    def actions(self) -> tuple[str, ...]:
        """What there is to do."""
        drain = ("drain",) if callable(getattr(self._resilience, "drain", None)) else ()
        return ("isolate", "half_open", "close", "set_level", "clear", "read_only", "read_write", *drain)

    async def use(self, request: Request) -> Response:
        """Do what is asked for.

        Raises:
            Refusal: whoever asks may not, or it can't be done.
        """
        if self._guard.authorize is None:
            raise Refusal(404, "This dashboard has no controls.")
        try:
            operator = await self._guard.operator(request)
            check_token(request, self._board.run, operator)
            self._count()
            order = await read(request, self.actions)
            about = self._act(order, operator)
        except Refusal as refusal:
            if self._refusals.take(self._resilience.clock.now()) is None:
                logger.warning("dashboard: a control was refused (%d, %s)", refusal.status, refusal)
            raise
        now = self._resilience.clock.now()
        told = _told(order)
        self._resilience.outbox.emit(ControlUsed(at=now, action=order.action, about=about, by=operator, why=order.why, told=told))
        self._board.look_again()
        return json_answer(dumped({"done": order.action, "about": about, "by": operator}))

    def _count(self) -> None:
        wait = self._uses.take(self._resilience.clock.now())
        if wait is not None:
            raise Refusal(429, f"At most {MOST_A_MINUTE} controls a minute.", headers={"retry-after": str(int(wait) + 1)})

    # -- what is done -----------------------------------------------------------------------------------------------

    def _act(self, order: Order, by: str) -> str:
        """Do it, and say what it was done to.

        Raises:
            Refusal: it can't be done.
        """
        resilience, why = self._resilience, order.why
        match order.action:
            case "isolate" | "half_open" | "close":
                circuit = self._circuit(order.name)
                {"isolate": circuit.open, "half_open": circuit.half_open, "close": circuit.close}[order.action]()
                return f"dependency:{order.name}"
            case "set_level" | "clear":
                self._switch(order, by)
                return f"feature:{order.name}"
            case "read_only":
                resilience.read_only(by=by, why=why, until=order.until)
            case "read_write":
                resilience.read_write(by=by, why=why)
            case _:
                resilience.drain(delay=self._delay(order), by=by, why=why)
        return ""

    def _delay(self, order: Order) -> float:
        """Seconds for whoever sends requests here to notice: as many as at a signal, unless the operator says otherwise."""
        usual = getattr(getattr(self._resilience, "leaving", None), "settings", None)
        return float(getattr(usual, "delay", 0.0)) if order.delay is None else order.delay

    def _circuit(self, name: str) -> Any:
        dependency = self._resilience.dependencies.get(name)
        if dependency is None:
            raise Refusal(404, "There is no dependency of that name.", field="name")
        breaker = dependency.breaker
        if breaker is None:
            raise Refusal(409, "This dependency has no circuit breaker.", field="name")
        # The engine of a guest: his own storage, which may be far away, is told in the background.
        return breaker.engine if isinstance(breaker, ForeignBreaker) else breaker

    def _switch(self, order: Order, by: str) -> None:
        feature = self._resilience.features.get(order.name)
        if feature is None:
            raise Refusal(404, "There is no feature of that name.", field="name")
        if order.action == "set_level" and order.level not in feature.levels:
            raise Refusal(400, f"level: {order.name} can be {', '.join(feature.levels)}.", field="level")
        try:
            if order.action == "clear":
                feature.clear(by=by, why=order.why, tenant=order.tenant)
            else:
                feature.set_level(order.level, by=by, why=order.why, until=order.until, share=order.share, tenant=order.tenant)
        except OverflowError as error:
            raise Refusal(409, f"{order.name}: {error}.") from error
        except ValueError as error:  # a share of what is required, a tenant that is none
            raise Refusal(400, str(error), field=str(error).partition(":")[0].partition(",")[0]) from error


class PerMinute:
    """Allows so many a minute, and says how long the next has to wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: deque[float] = deque(maxlen=most)
        self._lock = threading.Lock()

    def take(self, now: float) -> float | None:
        """None if this one is allowed, else the seconds until one is."""
        with self._lock:
            if len(self._taken) == self._most and now - self._taken[0] < 60:
                return 60 - (now - self._taken[0])
            self._taken.append(now)
            return None


def _told(order: Order) -> str:
    parts = [order.level]
    if order.share < 1:
        parts.append(f"{order.share:.0%} of uses")
    if order.tenant is not None:
        parts.append(f"tenant {order.tenant!r}")
    if order.until is not None:
        parts.append(f"for {order.until:g} s")
    if order.delay is not None:
        parts.append(f"after {order.delay:g} s")
    return ", ".join(part for part in parts if part)
