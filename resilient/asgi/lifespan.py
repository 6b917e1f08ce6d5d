"""The life of a service: what begins once its app has started, and ends before it stops.

Whoever needs that adds a context to the `Lifespan` of the `Resilience`; every middleware of this package lives it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from .protocols import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Lifespan"]

logger = logging.getLogger("resilient")

LIVED = "resilient.lifespan"
"""Where the scope says whose lifespans middleware further out lives already."""
LAST_WORDS = 5.0  # seconds for what has to end although the server did not ask for it

Context = Callable[[], AbstractAsyncContextManager[Any]]


class Lifespan:
    """What a service does besides its app, from the one's start to the other's end.

    Each server's run has contexts of its own: an app that is started again, or twice, enters each of them again.
    """

    __slots__ = ("_contexts", "_over")

    def __init__(self) -> None:
        self._contexts: tuple[Context, ...] = ()
        self._over: tuple[Callable[[], None], ...] = ()

    def add(self, context: Context, *, over: Callable[[], None] | None = None) -> None:
        """Enter `context()` once the app has started and before the server is told so: before the first request. Leave it
        when the server wants to stop and before the app is told so; newest first.

        Both happen where the app runs its lifespan, so a context may await, but must keep no cancel scope or task group
        open: `background.begin_task` runs what goes on meanwhile. What it raises is logged, and keeps no service from starting.

        Args:
            context: makes a context for one run.
            over: called when the app has stopped too.
        """
        self._contexts = (*self._contexts, context)
        if over is not None:
            self._over = (*self._over, over)

    async def live(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's lifespan. What the app raises passes, for it may be how it says that it has none."""
        lived = scope.get(LIVED, ())
        if any(one is self for one in lived):
            await app(scope, receive, send)
            return
        scope[LIVED] = (*lived, self)
        life = _Life(self._contexts, receive, send)
        try:
            await app(scope, life.receive, life.send)
            await life.go_on()
        finally:
            scope[LIVED] = lived
            if not lived:
                del scope[LIVED]
            if life.entered:
                with anyio.move_on_after(LAST_WORDS, shield=True):
                    await life.leave()
            for over in self._over:
                over()


class _Life:
    """One run of a service."""

    __slots__ = ("_asked", "_contexts", "_receive", "_send", "_told", "entered")

    def __init__(self, contexts: tuple[Context, ...], receive: Receive, send: Send) -> None:
        self._contexts = contexts
        self._receive = receive
        self._send = send
        self._asked = self._told = ""  # the last message of the server's, and of the app's
        self.entered: list[AbstractAsyncContextManager[Any]] = []

    async def receive(self) -> Message:
        message = await self._receive()
        self._asked = message["type"]
        if self._asked == "lifespan.shutdown":
            await self.leave()
        return message

    async def send(self, message: Message) -> None:
        self._told = message["type"]
        if self._told == "lifespan.startup.complete":
            await self._enter()
        await self._send(message)

    async def go_on(self) -> None:
        """The app has returned; where it had nothing to say, or said nothing of the end, it is said for it."""
        if not self._told:
            if not self._asked:
                await self.receive()
            await self.send({"type": "lifespan.startup.complete"})
        if self._told == "lifespan.startup.complete":
            if self._asked != "lifespan.shutdown":
                await self.receive()
            await self.send({"type": "lifespan.shutdown.complete"})

    async def _enter(self) -> None:
        for make in self._contexts:
            try:
                context = make()
                await context.__aenter__()
            except Exception:
                logger.exception("%r failed to start with the service", make)
            else:
                self.entered.append(context)

    async def leave(self) -> None:
        while self.entered:
            context = self.entered.pop()
            try:
                await context.__aexit__(None, None, None)
            except Exception:
                logger.exception("%r failed to end with the service", context)
