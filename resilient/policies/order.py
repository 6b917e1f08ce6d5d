"""The order in which policies stand, and what becomes of it where some of them are replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["place_of", "replaced"]

# Outermost first. By name: a policy of the program that inherits one of ours stands where ours does, and so does a plain
# pybreaker.CircuitBreaker.
ORDER: tuple[tuple[str, ...], ...] = (
    ("Fallback",),
    ("Cache",),
    ("CachedFallback",),
    ("Timeout",),
    ("RateLimit",),
    ("AdaptiveThrottle",),
    ("Retry",),
    ("Hedge",),
    ("Failover",),
    ("Bulkhead", "AdaptiveConcurrency"),
    ("CircuitBreaker", "ForeignBreaker"),
    ("Chaos",),
)
PLACES = {name: place for place, names in enumerate(ORDER) for name in names}


def place_of(policy: Any) -> int | None:
    """Where a policy of this kind stands, from 0 outermost; None for one of a kind that we do not know."""
    return next((PLACES[kind.__name__] for kind in type(policy).__mro__ if kind.__name__ in PLACES), None)


def replaced(policies: Iterable[Any], given: Iterable[Any]) -> tuple[Any, ...]:
    """`policies`, with those in `given` in place of the ones of their kind.

    A kind that is not there yet is put where it belongs; one that we do not know stands outermost, unless it replaces
    another of its class.
    """
    kinds: dict[Any, list[Any]] = {}
    for policy in given:
        kinds.setdefault(_kind(policy), []).append(policy)
    chosen: list[Any] = []
    for policy in policies:
        kind = _kind(policy)
        if kind not in kinds:
            chosen.append(policy)
        elif kinds[kind]:  # in the place of the first; the others go
            chosen.extend(kinds[kind])
            kinds[kind] = []
    for kind, new in kinds.items():
        at = 0
        if isinstance(kind, int):
            at = next((index for index, policy in enumerate(chosen) if (place_of(policy) or 0) > kind), len(chosen))
        chosen[at:at] = new
    return tuple(chosen)


def _kind(policy: Any) -> Any:
    place = place_of(policy)
    return type(policy) if place is None else place
