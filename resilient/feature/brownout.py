"""Brownout: optional features are dimmed as load grows, so that what must be done stays fast."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from ..clock import Clock
from ..core.bounds import flag, fraction, not_negative, positive, whole
from ..core.brownout import Dimmer, quantile, shares
from ..events import BrownoutChanged
from ..outbox import Outbox

__all__ = ["Brownout", "Dimmed"]

MOST_SAMPLES = 10_000  # of one period; what comes beyond them says the same
IDLE = 10.0  # seconds without a sample after which all that was learnt is of another load


class Dimmed(Protocol):
    """What it needs of a feature."""

    @property
    def dim(self) -> float: ...
    @property
    def optional(self) -> bool: ...
    def _dim(self, share: float) -> None: ...


class Lit(Protocol):
    """What it needs of a `Resilience`."""

    @property
    def clock(self) -> Clock: ...
    @property
    def outbox(self) -> Outbox: ...


class Brownout:
    """Serve optional features less often while the service is slower than it should be.

    Each `period` the time that requests took (the `percentile` of them, up to the start of the response) is compared with
    `target`, or a load that somebody else measures with 1. The share of optional work that can be afforded follows by the
    control law of Klein, Maggio, Årzén and Hernández-Rodriguez, "Brownout: Building More Robust Cloud Applications" (ICSE
    2014); see `resilient.core.brownout`. It is spent on the features that are dimmed last: the others are at their
    fallback, and one in between for some of its uses, which chance picks.

    Optional is a feature that has a fallback and is neither critical nor required, unless its `dim` is 0.

    Args:
        target: seconds that a request may take.
        percentile: of how many requests that is said, from 0 to 1.
        period: seconds after which the share is set anew.
        min_samples: requests in a period below which it goes on; a load that was told needs none.
        pole: from 0 to below 1: how much of an error is left after a period. More is slower, and steadier.
        margin: how far below the target the service must be before it does more, as a share of the target.
        dwell: seconds after each step down before the next one up.
        enforce: False finds out and tells, and dims nothing.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        target: float,
        percentile: float = 0.99,
        period: float = 0.5,
        min_samples: int = 10,
        pole: float = 0.7,
        margin: float = 0.1,
        dwell: float = 1.0,
        enforce: bool = True,
    ) -> None:
        positive("target", target)
        positive("period", period)
        not_negative("dwell", dwell)
        whole("min_samples", min_samples)
        fraction("percentile", percentile)
        for name, value in (("pole", pole), ("margin", margin)):
            fraction(name, value, zero=True)
            if value == 1:
                raise ValueError(f"{name} must be below 1, not {value!r}")
        flag("enforce", enforce)
        self.target = target
        self.percentile = percentile
        self.period = period
        self.min_samples = min_samples
        self.enforce = enforce
        self.measured: float = 0.0
        """What the last period has shown, over what is wanted."""
        self._dimmer = Dimmer(pole, margin, dwell)
        self._lit: Lit | None = None
        self._features: tuple[Dimmed, ...] = ()
        self._samples: list[float] = []
        self._load: float | None = None
        self._ends_at = self._heard_at = 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Brownout {self._dimmer.share:.0%} of optional work>"

    @property
    def share(self) -> float:
        """Of the optional work that is done, or would be without `enforce=False`; from 0 to 1."""
        return self._dimmer.share

    def join(self, resilience: Lit) -> None:
        """Dim the features of this `Resilience`.

        Raises:
            ValueError: it dims those of another one already.
        """
        if self._lit not in (None, resilience):
            raise ValueError("brownout: it belongs to another Resilience already")
        self._lit = resilience

    def watch(self, features: Iterable[Dimmed]) -> None:
        """These are all the features there are, in the order declared."""
        optional = [one for one in features if one.optional and one.dim > 0]
        with self._lock:
            self._features = tuple(sorted(optional, key=lambda one: -one.dim))
            self._spread()

    def observe(self, seconds: float) -> None:
        """A request took so long; the middleware says so, and whoever serves otherwise may."""
        if self._lit is not None:
            now = self._lit.clock.now()
            with self._lock:
                self._begin(now)
                if len(self._samples) < MOST_SAMPLES:
                    self._samples.append(seconds)
                if now < self._ends_at:
                    return
                event = self._end(now)
            if event is not None:
                self._lit.outbox.emit(event)

    def load(self, load: float) -> None:
        """The load is so much, where 1 is as much as it should be: of a limit, of a delay in a queue, of a processor.

        Where both are told, the worse of the two counts.

        Raises:
            TypeError, ValueError: it is no number from 0.
        """
        not_negative("load", load)
        if self._lit is not None:
            now = self._lit.clock.now()
            with self._lock:
                self._begin(now)
                self._load = load if self._load is None else max(load, self._load)
                if now < self._ends_at:
                    return
                event = self._end(now)
            if event is not None:
                self._lit.outbox.emit(event)

    def reset(self) -> None:
        """Dim nothing, with nothing learnt."""
        with self._lock:
            self._forget()

    # -- under the lock -------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        if now - self._heard_at > max(IDLE, 2 * self.period):
            self._forget()
            self._ends_at = now + self.period
        self._heard_at = now

    def _end(self, now: float) -> BrownoutChanged | None:
        """A period is over."""
        self._ends_at = now + self.period
        samples, load = self._samples, self._load
        if load is None and len(samples) < self.min_samples:
            return None
        slow = quantile(samples, self.percentile) / self.target if len(samples) >= self.min_samples else 0.0
        self._samples, self._load = [], None
        self.measured = measured = max(slow, load or 0.0)
        before = self._dimmer.share
        share = self._dimmer.update(measured, now)
        if share == before:
            return None
        self._spread()
        if (before == 1) == (share == 1):
            return None
        return BrownoutChanged(at=now, share=share, measured=measured, enforced=self.enforce)

    def _spread(self) -> None:
        if self.enforce:
            for feature, share in zip(self._features, shares(self._dimmer.share, len(self._features)), strict=True):
                feature._dim(share)

    def _forget(self) -> None:
        self._dimmer.reset()
        self._samples, self._load, self.measured = [], None, 0.0
        self._spread()
