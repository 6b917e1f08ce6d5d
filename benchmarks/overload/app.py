"""The app under load, served by uvicorn in a process of its own.

    python -m overload.app PORT BURN MODE

MODE is bare or ours, and with `-sync` the handler is a plain function, which Starlette runs in a thread.
"""

from __future__ import annotations

import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from resilient import Resilience
from resilient.asgi import Admission


def make(mode: str, burn: float) -> Starlette:
    """The app; every request burns so many seconds of CPU time."""

    def work() -> PlainTextResponse:
        until = time.thread_time() + burn
        while time.thread_time() < until:
            pass
        return PlainTextResponse("done")

    async def page(request: Request) -> PlainTextResponse:
        return work()

    def page_in_thread(request: Request) -> PlainTextResponse:
        return work()

    app = Starlette(routes=[Route("/", page_in_thread if mode.endswith("-sync") else page)])
    if mode.startswith("ours"):
        Resilience().install(app, admission=Admission(trusted=["127.0.0.1"]))
    return app


if __name__ == "__main__":
    port, burn, mode = sys.argv[1:]
    uvicorn.run(make(mode, float(burn)), host="127.0.0.1", port=int(port), log_level="error", access_log=False, backlog=4096)
