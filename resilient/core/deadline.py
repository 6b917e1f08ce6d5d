"""How much time a call and its attempts have.

Rules of this file: arithmetic on absolute times of one clock, seconds throughout. Infinity is "no deadline".
"""

from __future__ import annotations

__all__ = ["clamp", "useful"]


def useful(now: float, deadline: float, min_useful: float) -> bool:
    """Whether what is left is worth starting an attempt for."""
    return deadline > now and deadline - now >= min_useful


def clamp(timeout: float | None, remaining: float) -> float:
    """A timeout in seconds, None meaning none, that ends no later than the deadline does. Never negative."""
    return max(0.0, remaining if timeout is None else min(timeout, remaining))
