"""SIGTERM, in the right order: first the load balancer is told, and only then the server, which closes its listener at once.

The handler that was there (the server's) is put back and the signal raised once more when it is its turn: so whatever it
is - a function, a callback of the event loop, the system's default - does what it would have done, only later.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from ..background import begin_on

if TYPE_CHECKING:
    from .departure import Departure
    from .drain import Drain
    from .leaving import Leaving

__all__ = ["SignalChain"]

logger = logging.getLogger("resilient")

SAME = 2.0
"""Seconds within which a second signal is the first one once more: systemd tells every process of a service, and the parent
of several workers tells them again."""
HANDOVER = 1.0
"""Seconds for which a server that was told goes on being served: uvicorn looks ten times a second whether it is to stop."""


class SignalChain:
    """The signals that one server's run is ended by.

    Args:
        leaving: is ordered to leave.
        settings: which signals, and how long readiness fails before the server is told.
        home: the event loop of the server.
    """

    def __init__(self, leaving: Leaving, settings: Drain, home: Any) -> None:
        self._leaving = leaving
        self._settings = settings
        self._home = home
        self._links: dict[int, _Link] = {}

    def take(self) -> None:
        """Stand in front of whoever handles the signals. Only the main thread may; elsewhere (a test client's) nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            logger.info("the server does not run in the main thread: no signal begins a drain")
            return
        for number in self._settings.signals:
            if getattr(signal.getsignal(number), "__self__", None) is self._home:  # uvloop; nobody can tell whom it calls
                name = signal.Signals(number).name
                logger.warning("the event loop handles %s itself, so the server stops at once: drain before, as by a preStop hook", name)
                continue
            self._links[number] = _Link(number, self._home, self._come, self._foresee)

    def give_back(self) -> None:
        """Stand there no more."""
        for link in self._links.values():
            link.give_back()

    def _come(self, link: _Link) -> None:
        """In the handler, wherever the main thread happens to be: perhaps while it holds one of our locks."""
        if not begin_on(self._home, lambda: self._leave(link)):
            link.pass_on()

    def _foresee(self, link: _Link) -> None:
        """Another service of this process stands in front and hands the signal on later: the delay of this one begins now."""

        async def begin() -> None:
            self._begin(link)

        begin_on(self._home, begin)  # where it cannot, the signal itself will come

    def _begin(self, link: _Link) -> tuple[Departure, float]:
        leaving, settings = self._leaving, self._settings
        # Where readiness has failed ever since the start there is nothing to notice, and nobody was sent here.
        delay = settings.delay if leaving.started else 0.0
        until = delay if link.deadly else delay + HANDOVER
        word = signal.Signals(link.number).name
        return leaving.begin(until, settings.budget, by=word, why="signal", final=True), delay

    async def _leave(self, link: _Link) -> None:
        leaving = self._leaving
        departure, delay = self._begin(link)
        if link.deadly:
            await departure  # nobody waits for what is under way but us
        else:
            order = leaving.order
            if order is not None:
                await anyio.sleep(max(order.began + delay - leaving.now(), 0.0))
        link.pass_on()


class _Link:
    """One signal: who handled it before, and how often it has come."""

    __slots__ = ("_before", "_come", "_first", "_foresee", "_home", "_in_loop", "_released", "number")

    def __init__(self, number: int, home: Any, come: Callable[[_Link], None], foresee: Callable[[_Link], None]) -> None:
        self.number = number
        self._home = home
        self._come = come
        self._foresee = foresee
        self._first: float | None = None
        self._released = False
        # Who asked the event loop is called by it, whatever stands here; asyncio does not say who that is in public.
        handlers = getattr(home, "_signal_handlers", None)
        self._in_loop: Any = handlers.get(number) if isinstance(handlers, dict) and isinstance(home, asyncio.AbstractEventLoop) else None
        if self._in_loop is not None:
            home.remove_signal_handler(number)
        self._before = signal.getsignal(number)
        signal.signal(number, self._handle)

    @property
    def deadly(self) -> bool:
        """Whether the process would end at once."""
        return self._in_loop is None and self._before == signal.SIG_DFL

    @property
    def _behind(self) -> _Link | None:
        """The link of another service of this process, which is handed the signal next."""
        behind = getattr(self._before, "__self__", None)
        return behind if isinstance(behind, _Link) else None

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._released:
            if callable(self._before):  # somebody took hold of us and has given us back after our time
                self._before(number, frame)
        elif self._first is None:
            self._first = now
            self._come(self)
            behind = self._behind
            while behind is not None:
                behind._foresee(behind)
                behind = behind._behind
        elif now - self._first >= SAME:
            self.pass_on()  # whoever asks twice does not want to wait

    def pass_on(self) -> None:
        """Let whoever handled it before have it."""
        if not self._released:
            self.give_back()
            signal.raise_signal(self.number)

    def give_back(self) -> None:
        """Put back whoever handled it before."""
        if self._released:
            return
        self._released = True
        if signal.getsignal(self.number) != self._handle:
            return  # somebody stands in front of us by now, and will call us
        before = self._before
        if self._in_loop is not None and not self._home.is_closed():
            self._home.add_signal_handler(self.number, self._in_loop._callback, *self._in_loop._args)
        else:
            signal.signal(self.number, signal.SIG_DFL if before is None else before)
