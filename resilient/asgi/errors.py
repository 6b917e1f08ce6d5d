"""Which answer an error of this library becomes when the app lets it escape."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from ..errors import AllTargetsFailed, DeadlineExceeded, ResilienceError
from .exposure import exposure
from .inbound import Inbound
from .protocols import ASGIApp, Surroundings
from .responses import Problem

__all__ = ["ErrorMapping", "ErrorMiddleware"]

SPREAD = 0.2  # of the time to wait, added at random, so that those who were refused together don't return together
SOON = 1.0  # seconds after which another try is worth it, where nothing better is known
LONGEST = 86_400  # a longer time says nothing, and infinity is how some say "until somebody closes it"


class ErrorMapping:
    """Makes a problem of an error.

    Args:
        chance: a source of numbers in [0, 1), for the spread of `Retry-After`.
    """

    __slots__ = ("_chance",)

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance

    def problem(self, error: BaseException, *, expose_causes: bool = False) -> Problem | None:
        """The problem that `error` is told as, or None if it is not ours. With `expose_causes` it names the dependency.

        A group is ours if all of its parts are; the first part speaks for it.
        """
        if isinstance(error, BaseExceptionGroup):
            ours, others = error.split(ResilienceError)
            return self.problem(_first(ours), expose_causes=expose_causes) if ours is not None and others is None else None
        if not isinstance(error, ResilienceError):
            return None
        late = isinstance(error, DeadlineExceeded)
        return Problem(
            status=504 if late else 503,
            error=error.error_token,
            detail="A service that this one needs did not answer in time." if late else "A service that this one needs is unavailable.",
            retry_after=self._retry_after(error),
            dependency=error.dependency if expose_causes else None,
        )

    def _retry_after(self, error: ResilienceError) -> int | None:
        """Whole seconds, rounded up and spread upward; None where nothing sensible is known."""
        seconds = _wait(error)
        if seconds is None:
            seconds = SOON  # every refusal says when to come back, also where nobody can know: soon, not all at once
        if not seconds < LONGEST:
            return None
        spread = max(seconds * SPREAD, 1.0) * self._chance()
        return max(math.ceil(seconds + spread), 1)


def _wait(error: BaseException) -> float | None:
    if isinstance(error, AllTargetsFailed) and error.retry_after is None:
        return min((wait for wait in map(_wait, error.causes) if wait is not None), default=None)
    return getattr(error, "retry_after", None)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


class ErrorMiddleware(Inbound):
    """Answers 503 or 504 with problem details when a `ResilienceError` escapes the app.

    Only while the response has not started: after that the error is raised on, so that the server breaks the response
    off. A handler for these errors inside the app wins, since they then don't escape. Errors of an HTTP client that the
    app itself used or raised (`httpx.HTTPStatusError`, `TransportError`) are the app's own and remain a 500.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        expose_causes: name the failed dependency in the problem.
    """

    def __init__(self, app: ASGIApp, resilience: Surroundings, *, expose_causes: bool = False) -> None:
        super().__init__(app, resilience)
        self.errors: ErrorMapping | None = ErrorMapping()
        self._exposes = exposure(expose_causes)
