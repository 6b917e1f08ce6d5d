"""Whether the client of one request is still there, found out without taking from the app what it is to read.

A client's leaving is a message, and whoever receives it first has it. So while the app does not ask we do, but only for
what can be kept for it: once the body was read to its end, or where none is announced. What came in is handed to the app
when it asks, and `http.disconnect` whenever it asks again: hypercorn sends it once. An app that waits for the message
itself gets it and is left to itself, as a streaming response does that ends on its own.

Nothing is asked before the request has lasted a while, and most don't: until then there is an entry in a timer's slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anyio

from ..wheel import native_loop, slot_in
from .protocols import Message, Receive, Scope

if TYPE_CHECKING:
    from .disconnect import Disconnects
    from .limit import Limited

__all__ = ["Attendance"]

DISCONNECT = "http.disconnect"


class Attendance:
    """Looks after the client of one request.

    Args:
        disconnects: when to begin, and whether to act.
        scope: of the request.
        receive: the server's.
        exchange: is told once the client has gone.
    """

    __slots__ = (
        *("_arrived", "_asking", "_context", "_disconnects", "_due", "_error", "_exchange", "_gone", "_kept", "_over", "_read"),
        *("_reading", "_receive", "_scope", "_slot", "_stop"),
    )

    def __init__(self, disconnects: Disconnects, scope: Scope, receive: Receive, exchange: Limited) -> None:
        self._disconnects = disconnects
        self._receive = receive
        self._exchange: Limited | None = exchange
        self._scope = scope
        self._read: bool | None = None  # the body, to its end; None until somebody has to know
        self._kept: Message | None = None  # what was received and is the app's
        self._error: Exception | None = None
        self._gone = False
        self._over = False  # nothing is to be done about a client that goes now
        self._due = False  # it has lasted long enough
        self._asking = 0  # how many of the app's own receives are out
        self._reading = False  # ours is
        self._arrived: anyio.Event | None = None
        self._slot: set[Any] | None = None
        self._stop: Callable[[], object] | None = None

    # -- what the app asks ----------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message; the app's `receive`."""
        while True:
            if self._kept is not None:
                message, self._kept = self._kept, None
                self._look_on()
                return message
            if self._gone:
                return {"type": DISCONNECT}
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._asking += 1
            try:
                if not self._reading:
                    message = await self._receive()
                    self._note(message)
                    return message
                if self._arrived is None:
                    self._arrived = anyio.Event()
                await self._arrived.wait()
            finally:
                self._asking -= 1
                self._look_on()

    def _note(self, message: Message) -> None:
        if message["type"] == DISCONNECT:
            self._gone = True
        else:
            self._read = not message.get("more_body", False)

    # -- what we ask ----------------------------------------------------------------------------------------------

    def begin(self, context: Context) -> None:
        """The request begins: look after it once it has lasted a while."""
        self._context = context
        loop = native_loop()
        if loop is None:
            self._disconnects.look_later(self)
        else:
            self._slot = slot = slot_in(loop, self._disconnects.after)
            slot.add(self)

    def cancel(self) -> None:
        """It has lasted a while; called by the timer, to which all it holds is to be cancelled."""
        self._due = True
        self._look_on()

    def _look_on(self) -> None:
        """Ask for the next message, if nobody does and if it can be kept for the app."""
        if not self._due or self._reading or self._asking or self._over or self._gone:
            return
        if self._read is None:
            self._read = not _announces_body(self._scope)
        if not self._read or self._kept is not None or self._error is not None:
            return
        self._reading = True
        if self._slot is None:
            import trio

            scope = anyio.CancelScope()
            self._stop = scope.cancel
            trio.lowlevel.spawn_system_task(self._watch_in, scope, context=self._context)
        else:
            self._stop = asyncio.get_running_loop().create_task(self._watch(), context=self._context).cancel

    async def _watch_in(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self._watch()

    async def _watch(self) -> None:
        try:
            while self._read and not self._gone:
                message = await self._receive()
                self._note(message)
                if not self._gone:
                    self._kept = message
                    if self._asking:
                        break  # the app waits for it
        except Exception as error:  # noqa: BLE001 - raised where the app receives
            self._error = error
        finally:
            self._reading = False
            waited = self._arrived is not None and self._asking
            if self._arrived is not None:
                self._arrived.set()
                self._arrived = None
        if self._gone and not waited and not self._over and self._exchange is not None:
            self._exchange.left(enforce=self._disconnects.enforce)

    # -- the end --------------------------------------------------------------------------------------------------

    def answered(self) -> None:
        """The response is complete: what comes now is no reason to end anything, least of all a background task."""
        self._over = True

    def end(self) -> None:
        """The app has returned."""
        self._over = True
        self._exchange = None
        if self._slot is not None:
            self._slot.discard(self)
        if self._reading and self._stop is not None:
            self._stop()
        self._stop = None


def _announces_body(scope: Scope) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in scope["headers"])
