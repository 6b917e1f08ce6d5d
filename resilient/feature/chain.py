"""Several things to serve in place of an answer, each for when those before it fail too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.degradation import Level
from ..core.orders import Verdict
from ..substitute import Substitute

__all__ = ["MISSING", "Chain", "chain"]

MISSING: Any = type("MISSING", (), {"__repr__": lambda self: "MISSING", "__doc__": "No fallback was given; None is one."})()


class Chain:
    """Fallbacks in order; see `chain`. A fallback by itself is a chain of one."""

    __slots__ = ("steps",)

    def __init__(self, *fallbacks: Any) -> None:
        if not fallbacks:
            raise TypeError("fallback: a chain needs at least one")
        self.steps: tuple[Substitute, ...] = tuple(
            step for one in fallbacks for step in (one.steps if isinstance(one, Chain) else (Substitute(one),))
        )

    def __repr__(self) -> str:
        return f"chain({', '.join(repr(step.value) for step in self.steps)})"

    @property
    def level(self) -> Level:
        """What the first one makes of the feature."""
        return self.steps[0].level

    def first(self, verdict: Verdict) -> int:
        """Which one to begin with, where the function is not called because of `verdict`.

        Who orders a level wants nothing better: "static" leaves out what has to be computed, if anything is left then.
        """
        if not verdict.ordered or verdict.level is Level.REDUCED:
            return 0
        last = len(self.steps) - 1
        return next((number for number, step in enumerate(self.steps) if step.level is Level.STATIC), last)

    def check(self, fn: Callable[..., Any], *, is_async: bool) -> None:
        """Find out now, not in the outage, that one of them cannot be called in place of `fn`."""
        for step in self.steps:
            step.check(fn, is_async=is_async)


def chain(*fallbacks: Any) -> Chain:
    """A fallback that consists of several: `feature("reviews", fallback=chain(stored, ask_the_replica, []))`.

    They are tried in order; one that raises is told (`FallbackFailed`) and gives way to the next. What the last one
    raises reaches the caller.

    Args:
        fallbacks: each as for the `fallback` of a `Feature`: a value, a function, a class; or another chain.

    Raises:
        TypeError: there is none.
    """
    return Chain(*fallbacks)
