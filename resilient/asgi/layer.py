"""Middleware in middleware, as where an app that is mounted in another has its own: what they share of one request.

The request has one degradation record, the outermost; it is counted once for each `Resilience`, and so is its being
late; each deadline holds, and is lifted together with those further out.
"""

from __future__ import annotations

from ..context import Deadline
from ..core.degradation import DegradationRecord
from .protocols import Scope, Surroundings

__all__ = ["LAYER_KEY", "Layer"]

LAYER_KEY = "resilient.layer"
"""Where the innermost layer of a request stands in the ASGI scope while it lasts, for middleware further in to find."""


class Layer:
    """What one middleware has of a request, among those that it goes through.

    Attributes:
        counts: whether it puts the request into the metrics of its `Resilience`.
        admits: whether it has let the request in, for its `Resilience`.
    """

    # What only nested layers and late requests need are defaults on the class.
    __slots__ = ("__dict__", "_deadline", "_outer", "_outer_at", "_own_at", "_record", "_resilience", "_scope", "admits", "counts")

    _scope: Scope
    _resilience: Surroundings
    _record: DegradationRecord | None
    _outer: Layer | None
    _inner: Layer | None = None
    _told: tuple[Surroundings, ...] = ()
    """Who knows that the request is late; kept by the outermost."""
    _doubted: tuple[Surroundings, ...] = ()
    """Who knows that it came too late by what it said, and was served all the same; likewise."""
    _deadline: Deadline | None
    # Set together with the deadline: when its own limit ends, and those further out.
    _own_at: float
    _outer_at: float
    counts: bool
    admits: bool

    def nest(self, outer: Layer) -> None:
        """Its middleware lies in that of `outer`."""
        outer._inner = self
        self.counts = self.counts and not outer.counts_for(self._resilience)

    def leave(self) -> None:
        """The request is over here. Nothing may go on holding it: the scope holds the layer, which holds the scope."""
        outer = self._outer
        if outer is None:
            self._scope.pop(LAYER_KEY, None)
        else:
            self._scope[LAYER_KEY] = outer
            self._outer = None
        if self._inner is not None:
            self._inner = None

    def counts_for(self, resilience: Surroundings) -> bool:
        """Whether it or one around it puts the request into the metrics of `resilience`."""
        if self.counts and self._resilience is resilience:
            return True
        return self._outer is not None and self._outer.counts_for(resilience)

    def admits_for(self, resilience: Surroundings) -> bool:
        """Whether it or one around it has let the request in for `resilience`."""
        if self.admits and self._resilience is resilience:
            return True
        return self._outer is not None and self._outer.admits_for(resilience)

    @property
    def has_record(self) -> bool:
        """Whether it or one around it keeps the request's degradation record."""
        return self._record is not None or (self._outer is not None and self._outer.has_record)

    def first_to_be_late(self) -> bool:
        """Whether its `Resilience` has yet to be told that the request is late. Two limits may be over at one time."""
        outermost = self._outermost()
        if any(told is self._resilience for told in outermost._told):
            return False
        outermost._told += (self._resilience,)
        return True

    def first_to_doubt(self) -> bool:
        """Whether its `Resilience` has yet to be told that the request is served though it came too late by what it said."""
        outermost = self._outermost()
        if any(told is self._resilience for told in outermost._doubted):
            return False
        outermost._doubted += (self._resilience,)
        return True

    def _outermost(self) -> Layer:
        layer = self
        while layer._outer is not None:
            layer = layer._outer
        return layer

    def lifted(self, outer_at: float) -> None:
        """A limit, its own or one further out, holds no more; `outer_at` is when the rest of those further out end."""
        at = outer_at
        if self._deadline is not None:
            self._outer_at = outer_at
            # The object itself is changed: tasks that were started meanwhile have it in contexts of their own.
            self._deadline.at = at = min(self._own_at, outer_at)
        if self._inner is not None:
            self._inner.lifted(at)
