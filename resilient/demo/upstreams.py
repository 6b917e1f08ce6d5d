"""The three services that the shop calls, each with a switch for the ways in which it can fail.

    python -m resilient.demo.upstreams catalog

Switch by hand with `curl -X POST 'http://127.0.0.1:PORT/fault?mode=hang'`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

TRICKLE_GAP = 0.2  # seconds between two chunks of a trickled body: well below the read timeout of any client
MAX_CLIENTS = 16  # names counted apart, for a User-Agent is whatever the caller says


class Fault(Enum):
    """What the switch can be set to."""

    NONE = "none"
    HANG = "hang"  # accepts the request and says nothing until the fault is over
    FLAKY = "flaky"  # answers 503 half of the time
    DOWN = "down"  # answers 503 every time
    TRICKLE = "trickle"  # headers at once, then one byte of the body at a time until the fault is over


def _item(key: str) -> Any:
    return {"id": key, "name": f"Article {key}", "price": 1990}


def _recommendations(key: str) -> Any:
    return [f"{key}-{suffix}" for suffix in ("case", "cable", "stand")]


def _reviews(key: str) -> Any:
    return [{"stars": 5, "text": f"Article {key} works as described."}, {"stars": 4, "text": "Came a day late."}]


CONTENTS = {"catalog": _item, "recommendations": _recommendations, "reviews": _reviews}


class Upstream:
    """One service: it answers with its content, misbehaves as its fault says and counts who called.

    Args:
        name: one of `CONTENTS`.
        seed: makes the half of the answers that `flaky` spoils the same in each run.
    """

    def __init__(self, name: str, *, seed: int = 1) -> None:
        if name not in CONTENTS:
            raise ValueError(f"name must be one of {', '.join(CONTENTS)}, not {name!r}")
        self.fault = Fault.NONE
        self.calls: Counter[str] = Counter()
        self._content = CONTENTS[name]
        self._switched = asyncio.Event()
        self._chance = random.Random(f"{name} {seed}")
        self.app = Starlette(
            routes=[
                Route("/fault", self.switch, methods=["POST"]),
                Route("/calls", self.counts),
                Route("/{kind}/{key}", self.answer),
            ]
        )

    async def switch(self, request: Request) -> Response:
        """Sets the fault and lets go of every request that the previous one holds."""
        try:
            self.fault = Fault(request.query_params.get("mode"))
        except ValueError:
            return JSONResponse({"modes": [fault.value for fault in Fault]}, status_code=422)
        self._switched.set()
        self._switched = asyncio.Event()
        return JSONResponse({"fault": self.fault.value})

    async def counts(self, request: Request) -> Response:
        """The calls so far by the first word of the caller's User-Agent."""
        return JSONResponse(self.calls)

    async def answer(self, request: Request) -> Response:
        """The content, unless the fault has it otherwise."""
        self._count(request.headers.get("user-agent", ""))
        content = self._content(request.path_params["key"])
        if self.fault is Fault.HANG:
            await self._hang(request)
        elif self.fault is Fault.DOWN or (self.fault is Fault.FLAKY and self._chance.random() < 0.5):
            return JSONResponse({"error": "service unavailable"}, status_code=503)
        elif self.fault is Fault.TRICKLE:
            return StreamingResponse(self._trickle(json.dumps(content)), media_type="application/json")
        return JSONResponse(content)

    def _count(self, agent: str) -> None:
        client = agent.partition(" ")[0]
        self.calls[client if client in self.calls or len(self.calls) < MAX_CLIENTS else "other"] += 1

    async def _hang(self, request: Request) -> None:
        """Until the switch moves or the caller hangs up, so that abandoned requests do not pile up here."""
        ends = [asyncio.ensure_future(self._switched.wait()), asyncio.ensure_future(_gone(request))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _trickle(self, body: str) -> AsyncIterator[str]:
        switched = self._switched
        for position, character in enumerate(body):
            if switched.is_set():
                yield body[position:]
                return
            yield character
            await asyncio.sleep(TRICKLE_GAP)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


if __name__ == "__main__":
    serve(Upstream(sys.argv[1]).app)
