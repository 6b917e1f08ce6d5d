"""A circuit's transitions: made by hand, given their length, and told to everybody concerned."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pybreaker

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import positive
from ..core.breaker import Transition
from ..events import CircuitChanged
from .guests import Audience, Mirror
from .kinship import Kinship

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["BreakFor", "Changing"]

logger = logging.getLogger("resilient")
BreakFor = Callable[[int, str], float]


class Changing(Kinship):
    """A breaker that tells of its transitions: to its pipelines' listeners, to pybreaker's, and to a storage."""

    _audience: Audience | None = None
    _mirror: Mirror | None = None
    _break_for: BreakFor | None = None
    _random: Callable[[], float]
    _owners: tuple[weakref.ref[Pipeline], ...] = ()
    _key = ""

    def join(self, owner: Pipeline) -> None:
        """Tell `owner` of transitions from now on, unless it is the variant of one that is told. Pipelines that are gone are forgotten."""
        joined, relative = self._joined(), owner.variant_of
        while relative is not None:
            if relative in joined:
                return
            relative = relative.variant_of
        if owner.clock is not self._clock():
            # Everything is timed by one clock: that of the pipelines it stands in.
            self._pipeline = None
        known = tuple(ref for ref in self._owners if ref() not in (None, owner))
        self._owners = (*known, weakref.ref(owner))

    def _joined(self) -> list[Pipeline]:
        return [owner for ref in self._owners if (owner := ref()) is not None]

    def _clock(self) -> Clock:
        owners = self._joined()
        return owners[-1].clock if owners else SYSTEM_CLOCK

    def _tell(self, listener: Callable[..., object], *args: object) -> None:
        """Call other people's code."""
        if self._audience is None:
            self._audience = Audience()
        self._audience.tell(listener, *args)

    def _lengthened(self, changed: Transition | None, now: float) -> Transition | None:
        """The transition, with the break that `break_for` wants: it is other people's code, so it is asked outside the lock.

        What it raises, or a length that is none, is logged, and the break is what it would have been without.
        """
        if changed is None or changed.retry_after is None or self._break_for is None:
            return changed
        try:
            seconds = self._break_for(changed.number, changed.reason)
            positive("break_for", seconds)
        except Exception:
            logger.exception("break_for, given to a circuit breaker, failed; the break is one of %g s", changed.retry_after)
            return changed
        with self._lock:
            lengthened = self._core.lengthen(changed, seconds, now)
        return replace(changed, retry_after=seconds) if lengthened else changed

    def _announce(self, changed: Transition, now: float, first: Pipeline | None) -> None:
        """Queue the news for everybody concerned; called outside the lock. `first` is whose call it was, if any."""
        owners = self._joined()
        for owner in owners:
            owner.post(
                CircuitChanged(
                    at=now,
                    dependency=owner.name,
                    old=changed.old,
                    new=changed.new,
                    reason=changed.reason,
                    retry_after=changed.retry_after,
                    key=self._key,
                )
            )
            if first is not None and owner.outbox is not first.outbox:
                # Its own next call may be long in coming.
                first.outbox.defer(owner.outbox.flush)
        if self._mirror is not None:
            self._mirror.write(changed.new)
        if self._listeners:
            old, new = pybreaker.CircuitBreakerState(self, changed.old), pybreaker.CircuitBreakerState(self, changed.new)
            teller = first or (owners[0] if owners else None)
            for listener in self.listeners:
                if teller is None:
                    self._tell(listener.state_change, self, old, new)
                else:
                    teller.outbox.defer(functools.partial(listener.state_change, self, old, new))

    def _change(self, act: Callable[[float], Transition | None]) -> None:
        now = self._clock().now()
        with self._lock:
            changed = act(now)
        changed = self._lengthened(changed, now)
        if changed is not None:
            self._announce(changed, now, None)
            for owner in self._joined():
                owner.outbox.flush()

    def trip(self, reason: str = "forced") -> None:
        """Open for one break, as if a rule had tripped; it recovers by itself."""
        random = self._random()
        self._change(lambda now: self._core.trip(now, reason, random))

    def reset(self) -> None:
        """A fresh start: closed, with nothing remembered."""
        self.close()

    @property
    def reason(self) -> str:
        """Why it is not closed: outage, stall, failure_rate, slow_rate, consecutive, forced; empty when it is."""
        return self._core.reason
