"""How long to wait before a retry.

Rules of this file: a delay is a function of the retry's number and of a random number, both given. Settings are frozen
and validated; no retry number is too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from .bounds import not_negative, one_of, positive

__all__ = ["Backoff", "Constant", "Exponential", "Jitter", "Linear"]

Jitter = Literal["full", "equal", "none"]
_JITTERS = ("full", "equal", "none")


@runtime_checkable
class Backoff(Protocol):
    """Anything that knows how long to wait."""

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait before retry number `attempt` (1 is the first retry); `random` is in [0, 1)."""
        ...


def _spread(delay: float, jitter: Jitter, random: float) -> float:
    """Callers that failed together must not come back together (Brooker, "Exponential Backoff and Jitter", 2015)."""
    if jitter == "full":
        return delay * random
    if jitter == "equal":
        return delay / 2 * (1 + random)
    return delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Delays that grow by a factor: `initial * factor ** (attempt - 1)`, never above `maximum`.

    Args:
        initial: seconds before the first retry, before jitter.
        maximum: the most seconds, whatever the attempt.
        factor: growth per retry, 1 or more.
        jitter: "full" draws from [0, delay), "equal" from [delay/2, delay), "none" does not draw.
    """

    initial: float = 0.2
    maximum: float = 20.0
    factor: float = 2.0
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        positive("initial", self.initial)
        positive("maximum", self.maximum)
        positive("factor", self.factor)
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor!r}")
        one_of("jitter", self.jitter, _JITTERS)

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait before retry number `attempt`."""
        try:
            grown = self.initial * float(self.factor) ** (attempt - 1)
        except OverflowError:
            grown = self.maximum
        return _spread(min(self.maximum, grown), self.jitter, random)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Delays that grow by a step: `initial + step * (attempt - 1)`, never above `maximum`.

    Args:
        initial: seconds before the first retry, before jitter.
        step: seconds added for each further one.
        maximum: the most seconds, whatever the attempt.
        jitter: as for `Exponential`; "equal" by default, so that no wait is shorter than half of what was written.
    """

    initial: float = 0.2
    step: float = 0.2
    maximum: float = 20.0
    jitter: Jitter = "equal"

    def __post_init__(self) -> None:
        not_negative("initial", self.initial)
        not_negative("step", self.step)
        positive("maximum", self.maximum)
        one_of("jitter", self.jitter, _JITTERS)

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait before retry number `attempt`."""
        # The step is compared before it is multiplied: an int too large for a float would raise.
        steps = min(attempt - 1, 2**53)
        return _spread(min(self.maximum, self.initial + self.step * steps), self.jitter, random)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Constant:
    """The same delay each time.

    Args:
        delay: seconds, before jitter; kept as `seconds`.
        jitter: as for `Exponential`; "equal" by default, so that no wait is shorter than half of what was written.
    """

    seconds: float
    jitter: Jitter

    def __init__(self, delay: float, *, jitter: Jitter = "equal") -> None:
        not_negative("delay", delay)
        one_of("jitter", jitter, _JITTERS)
        object.__setattr__(self, "seconds", delay)
        object.__setattr__(self, "jitter", jitter)

    def __repr__(self) -> str:
        return f"Constant(delay={self.seconds!r}, jitter={self.jitter!r})"

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait, whichever retry it is."""
        return _spread(self.seconds, self.jitter, random)
