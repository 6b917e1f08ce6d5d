"""What a feature is asked and told from outside: by the app, by templates, by operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

from ..core.bounds import fraction
from ..core.degradation import Level, worse
from ..core.orders import Order, Verdict
from .settings import level_of, seconds_until, tenant_of, text
from .standing import Standing

__all__ = ["Switch"]


class Switch(Standing):
    """A feature that can be asked, and switched by hand."""

    # -- what it is asked -------------------------------------------------------------------------------------------

    def level_for(self, *, tenant: str | None = None, key: str | None = None) -> Level:
        """The level that a use would have now: what everybody has, or less where an order is about this one.

        Only what is certain counts: a share of the load that is dimmed by chance does not.

        Args:
            tenant: whose use; by default that of the work being done, as the feature finds it out.
            key: which user's, for switches that are rolled out to a share; by default likewise.
        """
        if not self._resilience.enabled:
            return Level.FULL
        level = self.level
        verdict = self._refusal(tenant, key, chance=False) if self._watched else None
        return level if verdict is None else worse(level, verdict.level)

    async def current_level(self) -> Level:
        """`level_for()` as a dependency of FastAPI: `level: Level = Depends(reviews.current_level)`.

        It is a coroutine function so that FastAPI calls it in place: a plain one would be sent to a thread.
        """
        return self.level_for()

    def enabled_for(self, *, tenant: str | None = None, key: str | None = None) -> bool:
        """Whether to do something optional that no decorated function does: whether a use now would be more than its fallback.

        The question is a use: with the answer False the response says so, and it is counted. `level_for` only looks.

        Args:
            tenant: as for `level_for`.
            key: as for `level_for`.
        """
        if not self._watched or not self._resilience.enabled:
            return True
        verdict = self._refusal(tenant, key)
        if verdict is None:
            return True
        self._tell(verdict.level, verdict)
        return verdict.ordered and verdict.level is Level.REDUCED

    # -- what it is told --------------------------------------------------------------------------------------------

    def set_level(
        self,
        level: Level | str,
        *,
        by: str = "",
        why: str = "",
        until: datetime | float | None = None,
        share: float = 1.0,
        key: Callable[[], str | None] | None = None,
        tenant: str | None = None,
    ) -> None:
        """Let the feature be no better than `level`, until `clear`. It holds at once, whatever the dependencies say.

        There is one order for everybody and one for each tenant; another takes its place. The most severe of all that
        speaks about a use counts, so that "full" only lifts the order.

        Args:
            level: "static" and "off" call the function no more: the fallback is served, or `Rejected` raised without
                one. "reduced" serves a fallback that is made for the use if that comes first, and else calls the
                function, which may ask for the level and do less.
            by: who says so; at most 500 characters, as for `why`.
            why: the reason, for those who ask later.
            until: when it is over: a date with a time zone, or seconds from now.
            share: how many of the uses it is for, from 0 to 1: the same keys at any time, and more with a larger share.
            key: says whose use it is, where it is for a share; by default the feature's own `key`, then the tenant. Uses
                without one are chosen by chance.
            tenant: whose uses it is for; by default everybody's.

        Raises:
            TypeError, ValueError: a parameter is wrong; or the level is not for this feature: one that is required, or
                has no fallback, has nothing between full and off.
            OverflowError: there are 1000 orders already.
        """
        level = level_of(level)
        fraction("share", share, zero=True)
        tenant_of(tenant)
        text("by", by)
        text("why", why)
        if key is not None and not callable(key):
            raise TypeError(f"key: expected a function without arguments, got {key!r}")
        if level is Level.FULL or share == 0:
            self._lift("operator", tenant, everyone=False, by=by, why=why)
            return
        self._allowed("level", level)
        if self.required and share < 1:
            raise ValueError(f"share, required: {self.name} is required; it is there for everybody or for nobody")
        end = math.inf if until is None else self._resilience.clock.now() + seconds_until(until, self._wall())
        self._order(Order(level=level, tenant=tenant, share=share, until=end, by=by, why=why, key=key))

    def clear(self, *, by: str = "", why: str = "", tenant: str | None = None) -> None:
        """Lift what `set_level` said: all of it, or what it said about one tenant. Other triggers stay.

        Raises:
            TypeError, ValueError: a parameter is wrong.
        """
        text("by", by)
        text("why", why)
        self._lift("operator", tenant_of(tenant), everyone=tenant is None, by=by, why=why)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those that `set_level` takes, the best one first: what is required has nothing between full and off."""
        if self.required:
            return (Level.FULL, Level.OFF)
        return tuple(level for level in Level if level is not Level.STATIC or self._fallback is not None)

    def _allowed(self, parameter: str, level: Level) -> None:
        if self.required and level is not Level.OFF:
            raise ValueError(f"{parameter}, required: {self.name} is required; it can be off, and nothing between that and full")
        if level is Level.STATIC and self._fallback is None:
            raise ValueError(f"{parameter}: {self.name} has no fallback that could be served; it can be off")

    def _wait(self, verdict: Verdict) -> float | None:
        """Seconds until the orders that a refusal comes of are over, if that is known."""
        now = self._resilience.clock.now()
        with self._lock:
            ends = [order.until - now for order in self._orders.all(now) if order.cause == verdict.cause]
        return min((end for end in ends if end != math.inf), default=None)
