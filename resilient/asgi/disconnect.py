"""Requests whose client has gone: which of them are cancelled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from ..core.bounds import flag, positive
from ..core.writes import SAFE_METHODS
from .attendance import Attendance
from .criticality import path_of, patterns
from .inbound import Inbound
from .protocols import ASGIApp, Scope, Surroundings

__all__ = ["DisconnectMiddleware", "Disconnects"]


class Disconnects:
    """Says for which requests the app is cancelled once the client has gone, before their response is complete.

    Only for those whose method is safe (RFC 9110 section 9.2.1: GET, HEAD, OPTIONS, ...), unless a pattern names another:
    half of a write is worse than one that nobody waits for.

    Args:
        routes: True for all routes, or patterns: "/search", "/reports/{id}", "POST /render".
        after: seconds that a request has lasted before anybody looks; until then it costs an entry in a timer.
        enforce: False cancels nothing and only counts.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(self, routes: bool | Iterable[str] = True, *, after: float = 0.1, enforce: bool = True) -> None:
        self._routes = None if routes is True else patterns("routes", () if routes is False else routes)
        positive("after", after)
        flag("enforce", enforce)
        self.after = after
        self.enforce = enforce
        self._lines: WeakKeyDictionary[Any, deque[tuple[float, Attendance]]] = WeakKeyDictionary()

    @classmethod
    def of(cls, given: Disconnects | bool | Iterable[str]) -> Disconnects | None:
        """What `cancel_on_disconnect` stands for; None for nothing."""
        if isinstance(given, cls):
            return given
        if isinstance(given, bool):
            return cls() if given else None
        listed = patterns("cancel_on_disconnect", given)
        return cls([route.pattern for route in listed]) if listed else None

    def watches(self, scope: Scope) -> bool:
        """Whether a request is one of them."""
        method = scope["method"]
        if self._routes is None:
            return method in SAFE_METHODS
        path, safe = path_of(scope), method in SAFE_METHODS
        return any((safe or route.methods is not None) and route.matches(method, None, path) for route in self._routes)

    def look_later(self, attendance: Attendance) -> None:
        """On trio, which has no timer without a task: one task for all that wait, for as long as there are any."""
        import trio

        token = trio.lowlevel.current_trio_token()
        line = self._lines.get(token)
        if line is None:
            line = self._lines[token] = deque()
        line.append((trio.current_time() + self.after, attendance))
        if len(line) == 1:
            trio.lowlevel.spawn_system_task(_sweep, line)


async def _sweep(line: deque[tuple[float, Attendance]]) -> None:
    import trio

    while line:
        due, attendance = line[0]
        await trio.sleep_until(due)
        attendance.cancel()
        line.popleft()


class DisconnectMiddleware(Inbound):
    """Cancels the app when the client has gone, for safe methods.

    No server does it by itself: a search that nobody will see runs to its end, and holds its connections and slots. The app
    is cancelled through a cancel scope of anyio, up to the last chunk of its response; outbound calls that it makes are
    cancelled with it, and count neither as a success nor as a failure of their dependency unless they had taken longer than
    it usually does. Background tasks are left alone, and so is an app that waits for `http.disconnect` itself.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        routes, after, enforce: as of `Disconnects`.
    """

    def __init__(
        self, app: ASGIApp, resilience: Surroundings, *, routes: bool | Iterable[str] = True, after: float = 0.1, enforce: bool = True
    ) -> None:
        super().__init__(app, resilience)
        self.disconnects: Disconnects | None = Disconnects(routes, after=after, enforce=enforce)
