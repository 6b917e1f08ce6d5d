"""What is said of a feature from outside: switched off by an operator, for all or for some of its uses, for a time.

Rules of this file: no clock, no chance, no events. `now` and a drawn number are arguments. What is said is said of
everybody or of one tenant; saying it again takes the place of what was said before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from .degradation import Level

__all__ = ["LONGEST_TEXT", "MOST_ORDERS", "Order", "Orders", "Verdict", "drawn", "worst"]

MOST_ORDERS = 1000
"""Orders that a feature keeps at a time, one for everybody and one for each tenant."""

GENERAL: tuple[tuple[str, str | None], ...] = (("operator", None), ("read_only", None))

LONGEST_TEXT = 500
"""Characters of who and why that are kept."""


class Verdict(NamedTuple):
    """Why a feature, or one use of it, is not to have more than `level`.

    Attributes:
        cause: operator, read_only, schedule, load, dependency:<name>, feature:<name>; or what a use failed with.
        by: who said so, if anybody did.
        why: in their words.
        dependency: the dependency that it is about; empty if none is known.
        ordered: whether somebody said so, rather than something being found out.
    """

    level: Level
    cause: str
    by: str = ""
    why: str = ""
    dependency: str = ""
    ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody has said of a feature.

    Attributes:
        level: the best that its uses get.
        tenant: whose uses; None for everybody's.
        share: how many of the uses, from 0 to 1.
        until: when it is over, on the clock of the `Resilience`; infinity for when it is lifted.
        cause: operator, or read_only.
        enforce: whether it is more than counted.
        key: says whose use it is, for a share of them; by default as the feature has it.
    """

    level: Level
    tenant: str | None = None
    share: float = 1.0
    until: float = math.inf
    by: str = ""
    why: str = ""
    cause: str = "operator"
    enforce: bool = True
    key: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.level, self.cause, self.by, self.why, ordered=True)


def drawn(name: str, key: str) -> float:
    """A number in [0, 1) that is always the same for the same two.

    The feature's name takes part, so that no user is first in every roll-out.
    """
    digest = blake2b(f"{name}\0{key}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def worst(verdicts: list[Verdict]) -> Verdict | None:
    """The most severe one; of several, the first."""
    return max(verdicts, key=lambda one: one.level.severity, default=None)


class Orders:
    """The orders that a feature is under."""

    __slots__ = ("_orders", "next_end")

    def __init__(self) -> None:
        self._orders: dict[tuple[str, str | None], Order] = {}
        self.next_end = math.inf
        """When the first of them is over, or a moment before."""

    def __len__(self) -> int:
        return len(self._orders)

    def all(self, now: float) -> list[Order]:
        return [order for order in self._orders.values() if now < order.until]

    def put(self, order: Order) -> Order | None:
        """Take an order. Returns the one that it takes the place of.

        Raises:
            OverflowError: there are as many as are kept.
        """
        place = (order.cause, order.tenant)
        if place not in self._orders and len(self._orders) >= MOST_ORDERS:
            raise OverflowError(f"there are {MOST_ORDERS} orders; lift one first")
        replaced = self._orders.get(place)
        self._orders[place] = order
        self.next_end = min(self.next_end, order.until)
        return replaced

    def lift(self, cause: str, tenant: str | None = None, *, everyone: bool = False) -> list[Order]:
        """Forget the order for a tenant (None: for everybody), or all of them. Returns what was forgotten."""
        places = [place for place in self._orders if place[0] == cause and (everyone or place[1] == tenant)]
        return [self._orders.pop(place) for place in places]

    def expire(self, now: float) -> list[Order]:
        """Forget and return what is over."""
        if now < self.next_end:
            return []
        over = [place for place, order in self._orders.items() if now >= order.until]
        forgotten = [self._orders.pop(place) for place in over]
        self.next_end = min((order.until for order in self._orders.values()), default=math.inf)
        return forgotten

    def general(self, now: float) -> list[Order]:
        """Those that are for every use there is."""
        return [order for order in self.about(None, now) if order.share == 1]

    def about(self, tenant: str | None, now: float) -> list[Order]:
        """Those that a use for `tenant` may be under."""
        places = GENERAL if tenant is None else (*GENERAL, ("operator", tenant))
        found = [order for place in places if (order := self._orders.get(place)) is not None]
        return [order for order in found if now < order.until]
