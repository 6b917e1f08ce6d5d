"""Waiting for one's turn under a rate limit: who waits on which event loop or thread, and who is woken."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..core.quota import Quota
from ..core.ratelimit import SLACK, Limiter, Place

if TYPE_CHECKING:
    from ..protocols import Runtime

__all__ = ["Turns"]


class Turns:
    """Waits in the lines of limiters that share one lock.

    Everybody sets a timer of his own for when his turn should come, and whoever wakes lets all go who may; so no waiter
    depends on another one whose event loop is gone.
    """

    __slots__ = ("lock",)

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock

    async def wait(self, limiter: Limiter, cost: float, runtime: Runtime, latest: float) -> int | None:
        """Wait until `cost` may go. Returns its ticket, or None if that will not be by `latest`: as soon as that is known."""
        now = runtime.now()
        with self.lock:
            woken = limiter.advance(now)
            place = limiter.join(cost, now, runtime.waiter()) if limiter.when(cost, now) <= latest + SLACK else None
        self.wake(limiter, woken, now)
        if place is None:
            return None
        try:
            while place.ticket is None:
                await runtime.wait(place.owner, min(place.at, latest))
                now = runtime.now()
                with self.lock:
                    woken = limiter.advance(now)
                    if place.ticket is None:
                        hopeless = not limiter.in_time(place, now, latest)
                        if not hopeless:
                            place.owner = runtime.waiter()
                self.wake(limiter, woken, now)
                if place.ticket is None and hopeless:
                    self._leave(limiter, place, now)
                    return None
        except BaseException:
            self._leave(limiter, place, runtime.now())  # a turn that came together with the cancellation is passed on
            raise
        return place.ticket

    def _leave(self, limiter: Limiter, place: Place, now: float) -> None:
        with self.lock:
            limiter.drop(place, now)
            woken = limiter.advance(now)
        self.wake(limiter, woken, now)

    def wake(self, limiter: Limiter | Quota, places: list[Place], now: float) -> None:
        """Wake the owners of `places`; what those had whose event loop is gone is passed on. Called without the lock."""
        while places:
            gone = [place for place in places if not place.owner.wake()]
            places = []
            if gone and isinstance(limiter, Limiter):  # nobody waits for anything else
                with self.lock:
                    for place in gone:
                        limiter.drop(place, now)
                    places = limiter.advance(now)
