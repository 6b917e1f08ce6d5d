"""Middleware in middleware, as where an app that is mounted in another has its own: what they share of one request.

The request has one degradation record, the outermost; it is counted once for each `Resilience`, and so is its being
late; each deadline holds, and is lifted together with those further out.
"""

from __future__ import annotations

import math

from ..context import Deadline
from .protocols import Scope, Surroundings

__all__ = ["LAYER_KEY", "Layer"]

LAYER_KEY = "resilient.layer"
"""Where the innermost layer of a request stands in the ASGI scope while it lasts, for middleware further in to find."""


class Layer:
    """What one middleware has of a request, among those that it goes through.

    Args:
        scope: the request's; the layer stands in it until `leave`.
        resilience: the `Resilience` that the middleware belongs to.
        measures: whether it is to put the request into the metrics.
    """

    __slots__ = ("_deadline", "_inner", "_outer", "_outer_at", "_own_at", "_resilience", "_scope", "_told", "counts", "keeps_record")

    def __init__(self, scope: Scope, resilience: Surroundings, *, measures: bool) -> None:
        self._scope = scope
        self._resilience = resilience
        self._outer: Layer | None = scope.get(LAYER_KEY)
        self._inner: Layer | None = None
        scope[LAYER_KEY] = self
        self.keeps_record = False
        self.counts = measures
        self._deadline: Deadline | None = None
        self._own_at = self._outer_at = math.inf
        self._told: tuple[Surroundings, ...] = ()  # who knows that the request is late; kept by the outermost
        if self._outer is not None:
            self._outer._inner = self
            self.counts = measures and not self._outer.counts_for(resilience)

    def leave(self) -> None:
        """The request is over here. Nothing may go on holding it: the scope holds the layer, which holds the scope."""
        outer, self._outer, self._inner = self._outer, None, None
        if outer is None:
            self._scope.pop(LAYER_KEY, None)
        else:
            self._scope[LAYER_KEY] = outer

    @property
    def nested(self) -> bool:
        return self._outer is not None

    def counts_for(self, resilience: Surroundings) -> bool:
        """Whether it or one around it puts the request into the metrics of `resilience`."""
        if self.counts and self._resilience is resilience:
            return True
        return self._outer is not None and self._outer.counts_for(resilience)

    @property
    def has_record(self) -> bool:
        """Whether it or one around it keeps the request's degradation record."""
        return self.keeps_record or (self._outer is not None and self._outer.has_record)

    def first_to_be_late(self) -> bool:
        """Whether its `Resilience` has yet to be told that the request is late. Two limits may be over at one time."""
        outermost = self
        while outermost._outer is not None:
            outermost = outermost._outer
        if any(told is self._resilience for told in outermost._told):
            return False
        outermost._told += (self._resilience,)
        return True

    def moved(self, own_at: float, outer_at: float) -> None:
        """The deadline is another, for its own limit or for one further out."""
        self._own_at, self._outer_at = own_at, outer_at
        at = min(own_at, outer_at)
        if self._deadline is not None:
            # The object itself is changed: tasks that were started meanwhile have it in contexts of their own.
            self._deadline.at = at
        if self._inner is not None:
            self._inner.moved(self._inner._own_at, at)
