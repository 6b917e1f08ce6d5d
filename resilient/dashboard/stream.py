"""The event stream: the newest state, each event of the journal, and an end to it when the service drains.

Nothing is queued for a reader. What he has not read yet is in the journal, which is bounded; of the state there is only
ever the newest. A reader who is too slow for the journal is told to begin anew.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..runtime import AsyncRuntime
from .answers import HEADERS, Refusal
from .board import Dashboard, dumped
from .journal import Entry

__all__ = ["Stream"]

BEAT = 1.0  # seconds between two states at the most: rates change without an event
APART = 0.2  # seconds between two states at the least: transitions come in swarms
AWAKE = 15.0  # seconds between two comments, which tell proxies that somebody is there
PATIENCE = 30.0  # seconds that a reader may leave us waiting until he takes what was sent
LONGEST = 3600.0  # seconds after which he has to come again, and to show that he may
RETRY = 2000  # milliseconds after which a browser comes again

HEAD = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")] + [
    (name.encode(), value.encode()) for name, value in HEADERS.items()
]


class Stream(Response):
    """One reader's stream.

    Args:
        board: what is shown.
        seen: the number of the last event that he has; None if that is not known, and he must begin anew.
        controls: what this very reader may do.
    """

    def __init__(self, board: Dashboard, seen: int | None, controls: dict[str, Any] | None) -> None:
        self.background = None
        self._board = board
        self._journal = board.journal
        self._seen = seen
        self._behind = False
        self._more = {"controls": controls}
        self._runtime = AsyncRuntime(board.resilience.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._board.enter(self):
            full = Refusal(503, "As many streams are open as there may be.", headers={"retry-after": "5"})
            await full.answer()(scope, receive, send)
            return
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                await self._tell(send)
                group.cancel_scope.cancel()
        except* OSError:
            pass  # how some servers say that the reader is gone
        finally:
            self._board.leave(self)

    async def _tell(self, send: Send) -> None:
        now = self._runtime.now
        ends_at, awake_at = now() + LONGEST, now() + AWAKE
        if not await _sent(send, {"type": "http.response.start", "status": 200, "headers": HEAD}):
            return
        text, over = f"retry: {RETRY}\n\n", False
        while not over:
            draining = self._board.resilience.draining
            over = draining or now() >= ends_at
            if draining:
                self._board.look_again()  # it is the last state that he gets, and is to say why
            text += self._news()
            if not await _sent(send, {"type": "http.response.body", "body": text.encode(), "more_body": not over}):
                return
            if not over:
                await self._wait()
            text = ""
            if now() >= awake_at:
                text, awake_at = ": awake\n\n", now() + AWAKE

    async def _wait(self) -> None:
        """Until there is an event, or the next second begins: all who wait for that share one look."""
        runtime = self._runtime
        began = runtime.now()
        # A state from before the last event is put right as soon as there may be another.
        until = began if self._behind else (math.floor(began / BEAT) + 1) * BEAT
        waiter = runtime.waiter()
        assert self._seen is not None  # the first news have settled that
        if self._journal.wait(waiter, self._seen):
            try:
                await runtime.wait(waiter, until)
            finally:
                self._journal.forget(waiter)
        left = began + APART - runtime.now()
        if left > 0:
            await runtime.sleep(left)

    def _news(self) -> str:
        """What he has not been told yet, and the state."""
        journal = self._journal
        entries = None if self._seen is None else journal.since(self._seen)
        if entries is None:
            self._seen = journal.heard
            parts = [_part("reset", "{}", journal.name(self._seen))]
        else:
            parts = list(self._logs(entries))
        picture = self._board.look()
        self._behind = picture.seen < journal.heard
        parts.append(_part("state", picture.text(self._more), journal.name(self._seen or 0)))
        return "".join(parts)

    def _logs(self, entries: Iterable[Entry]) -> Iterable[str]:
        for entry in entries:
            self._seen = entry.number
            yield _part("log", dumped(entry.document), self._journal.name(entry.number))


def _part(event: str, data: str, name: str) -> str:
    return f"event: {event}\nid: {name}\ndata: {data}\n\n"


async def _sent(send: Send, message: dict[str, Any]) -> bool:
    """Whether the reader takes it."""
    with anyio.move_on_after(PATIENCE) as scope:
        await send(message)
    return not scope.cancelled_caught


async def _until_gone(receive: Callable[[], Awaitable[Any]], scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
