"""How much time a call and its attempts have.

Rules of this file: arithmetic on absolute times of one clock, seconds throughout. Infinity is "no deadline".
"""

from __future__ import annotations

import math

__all__ = ["attempt_limit", "clamp", "effective", "useful"]


def effective(
    now: float,
    total: float | None,
    inherited_at: float | None,
    inbound: bool,
    reserve: float = 0.005,
    extension: float | None = None,
) -> float:
    """The moment a call that begins now must end: the earliest of all who have a say.

    Args:
        now: when the call begins.
        total: seconds that its policy grants it; None grants any.
        inherited_at: the deadline (a moment, not seconds) of the work that it is made for.
        inbound: that deadline is a caller's over the network, so that `reserve` is kept back for the reply.
        reserve: seconds.
        extension: the deadline (a moment) that the request itself carries, from an earlier hop or from the user.
    """
    at = math.inf if total is None else now + total
    if inherited_at is not None:
        at = min(at, inherited_at - reserve if inbound else inherited_at)
    return at if extension is None else min(at, extension)


def attempt_limit(now: float, deadline: float, attempt: float | None, may_follow: bool) -> float:
    """The moment an attempt that begins now must end.

    Its own limit of `attempt` seconds exists to leave time for another; an attempt that none can follow has it all.
    """
    if attempt is None or not may_follow:
        return deadline
    return min(deadline, now + attempt)


def useful(now: float, deadline: float, min_useful: float) -> bool:
    """Whether what is left is worth starting an attempt for."""
    return deadline > now and deadline - now >= min_useful


def clamp(timeout: float | None, remaining: float) -> float:
    """A timeout in seconds, None meaning none, that ends no later than the deadline does. Never negative."""
    return max(0.0, remaining if timeout is None else min(timeout, remaining))
