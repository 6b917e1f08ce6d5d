"""Users who do not wait for each other: an open-loop load with Poisson arrivals."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from .client import BrokenError
from .recording import PING, PRODUCT, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .client import Answer, Origin

RATE = 25.0
"""Requests a second to each app: five busy processes have to share a machine that may have two cores."""

PING_SHARE = 0.2
MAX_IN_FLIGHT = 1000  # beyond it a request counts as failed unsent: the load stays bounded, the app gets no mercy
OPTIONAL = ("recommendations", "reviews")


def arrivals(rate: float, seed: str) -> Iterator[tuple[float, str]]:
    """(seconds since the start, target) of one request after the other, for ever; the same for the same seed."""
    chance = random.Random(seed)
    at = 0.0
    while True:
        at += chance.expovariate(rate)
        yield at, PING if chance.random() < PING_SHARE else f"{PRODUCT}/{chance.randrange(1, 500)}"


class Load:
    """The users of one app.

    Args:
        app: whom the samples are booked under.
        origin: where it lives.
        timeout: seconds after which a user gives up.
        clock: seconds since the run began.
        book: gets each sample when its request is over.

    Attributes:
        sent: requests that have arrived so far, answered or not.
    """

    def __init__(self, app: str, origin: Origin, *, timeout: float, clock: Callable[[], float], book: Callable[[Sample], None]) -> None:
        self._app = app
        self._origin = origin
        self._timeout = timeout
        self._clock = clock
        self._book = book
        self._waiting: set[float] = set()
        self.sent = 0

    @property
    def in_flight(self) -> int:
        """Requests that have not been answered yet."""
        return len(self._waiting)

    @property
    def longest_wait(self) -> float:
        """Seconds that the oldest request in flight has waited, 0 without one."""
        return self._clock() - min(self._waiting) if self._waiting else 0.0

    async def run(self, arrivals: Iterator[tuple[float, str]], seconds: float) -> None:
        """Sends what arrives within `seconds`; returns when the last request is over."""
        async with asyncio.TaskGroup() as users:
            for at, target in arrivals:
                if at >= seconds:
                    break
                await asyncio.sleep(at - self._clock())
                self.sent += 1
                if len(self._waiting) < MAX_IN_FLIGHT:
                    users.create_task(self._user(at, target))
                else:
                    self._book(Sample(self._app, _page(target), at, self._timeout, 0, "dropped"))

    async def _user(self, at: float, target: str) -> None:
        self._waiting.add(at)
        try:
            status, error, marked, absent = await self._visit(at, target)
        finally:
            self._waiting.discard(at)
        self._book(Sample(self._app, _page(target), at, self._clock() - at, status, error, marked, absent))

    async def _visit(self, at: float, target: str) -> tuple[int, str, tuple[str, ...], tuple[str, ...]]:
        """Status, error, and the features that are marked and absent."""
        try:
            async with asyncio.timeout(at + self._timeout - self._clock()):
                answer = await self._origin.request(target)
        except TimeoutError:
            return 0, "timeout", (), ()
        except (BrokenError, ConnectionResetError, BrokenPipeError):
            return 0, "broken", (), ()
        except OSError:
            return 0, "refused", (), ()
        absent = _absent(answer) if answer.status == 200 and target != PING else ()
        return answer.status, "", degraded_features(answer), absent


def _page(target: str) -> str:
    return PING if target == PING else PRODUCT


def degraded_features(answer: Answer) -> tuple[str, ...]:
    """The features that the `Degraded` header of an answer names: `a;level=static, b;level=off` -> ("a", "b")."""
    names = (member.split(";")[0].strip() for member in answer.headers.get("degraded", "").split(","))
    return tuple(sorted(name for name in names if name))


def _absent(answer: Answer) -> tuple[str, ...]:
    page = answer.json()
    return tuple(name for name in OPTIONAL if not page[name])
