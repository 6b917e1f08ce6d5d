"""The routes of the dashboard: the page and its files, the state, the stream, the controls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .answers import HEADERS, Refusal, json_answer
from .assets import Asset, assets
from .board import Dashboard
from .controls import Controls
from .guard import Ask, Guard, hosts_of, token_of
from .stream import Stream

__all__ = ["PATH", "dashboard_routes"]

PATH = "/resilience"
Answer = Callable[[Request], Awaitable[Response]]


def dashboard_routes(
    board: Dashboard, prefix: str = "", *, authorize: Ask | None = None, readers: Ask | None = None, hosts: Iterable[str] | None = None
) -> list[Route]:
    """Routes for Starlette and FastAPI: `/resilience` and what lies under it.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """
    for name, ask in (("authorize", authorize), ("dashboard_readers", readers)):
        if ask is not None and not callable(ask):
            raise TypeError(f"{name}: expected a function of the request, got {ask!r}")
    guard = Guard(authorize, readers, hosts_of(hosts))
    desk = Desk(board, guard)
    files = assets()
    endpoints = {
        "": Endpoint(guard, desk.page(files.pop("index.html")), navigates=True),
        **{f"/{name}": Endpoint(guard, desk.page(asset)) for name, asset in files.items()},
        "/state": Endpoint(guard, desk.state),
        "/stream": Endpoint(guard, desk.stream, methods=("GET",)),
        "/controls": Endpoint(guard, desk.controls.use, methods=("POST",)),
    }
    made = [
        Route(f"{prefix}{PATH}{path}", endpoint, name=f"resilient_dashboard{path.replace('/', '_')}", include_in_schema=False)
        for path, endpoint in endpoints.items()
    ]
    board.own_routes(route.path for route in made)
    return made


class Endpoint:
    """An ASGI application for one path, so that what it refuses has our headers too."""

    def __init__(self, guard: Guard, answer: Answer, *, methods: tuple[str, ...] = ("GET", "HEAD"), navigates: bool = False) -> None:
        self._guard = guard
        self._answer = answer
        self._methods = methods
        self._navigates = navigates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            if request.method not in self._methods:
                raise Refusal(405, f"This takes {' and '.join(self._methods)}.", headers={"allow": ", ".join(self._methods)})
            self._guard.check_source(request, navigates=self._navigates)
            response = await self._answer(request)
        except Refusal as refusal:
            response = refusal.answer()
        await response(scope, receive, send)


class Desk:
    """What is answered to whom."""

    def __init__(self, board: Dashboard, guard: Guard) -> None:
        self.board = board
        self.guard = guard
        self.controls = Controls(board, guard)

    def page(self, asset: Asset) -> Answer:
        """An endpoint for one of the files."""
        headers = {**HEADERS, "cache-control": "no-cache", "etag": asset.etag}

        async def answer(request: Request) -> Response:
            await self.guard.check_reader(request)
            if asset.etag in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            return Response(asset.content, 200, headers, asset.media_type)

        return answer

    async def state(self, request: Request) -> Response:
        """The whole document."""
        controls = await self._controls(request)
        picture = self.board.look()
        return json_answer(picture.text({**self.board.told(), "controls": controls}))

    async def stream(self, request: Request) -> Response:
        """What changes."""
        controls = await self._controls(request)
        journal, _ = self.board.journal, self.board.worker
        name = request.headers.get("last-event-id") or request.query_params.get("after")
        seen = journal.heard if name is None else journal.number(name)
        return Stream(self.board, seen, controls)

    async def _controls(self, request: Request) -> dict[str, Any] | None:
        """What a reader may do, if he may read."""
        await self.guard.check_reader(request)
        operator = await self.guard.operator_if_any(request)
        if operator is None:
            return None
        return {"token": token_of(self.board.run, operator), "who": operator, "actions": self.controls.actions}
