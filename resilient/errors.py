"""Every error that `resilient` raises itself, and its one warning. The caller's own exceptions pass through unwrapped.

    ResilienceError
    ├── Rejected                a policy said no; nothing was sent
    │   ├── CircuitOpen         also a pybreaker.CircuitBreakerError
    │   ├── BulkheadFull
    │   ├── RateLimited
    │   ├── SpendExceeded
    │   └── Overloaded
    ├── DeadlineExceeded        also a TimeoutError
    └── AllTargetsFailed

Raised into an httpx or httpx2 client they also are that library's `TransportError` (`DeadlineExceeded`: its
`TimeoutException`); those classes are importable as `resilient.httpx.CircuitOpen` and so on.
"""

from __future__ import annotations

from typing import Any

import pybreaker

__all__ = [
    "AllTargetsFailed",
    "BulkheadFull",
    "CircuitOpen",
    "ConfigurationWarning",
    "DeadlineExceeded",
    "Overloaded",
    "RateLimited",
    "Rejected",
    "ResilienceError",
    "SpendExceeded",
    "cause_of",
]


class ResilienceError(Exception):
    """Base of all errors of this library.

    Attributes:
        dependency: name of the dependency that the call was for, or None outside one.
        policy: the policy that raised, e.g. "breaker".
        reason: a machine-readable word, e.g. "outage" or "queue_full".
        retry_after: seconds after which another try may succeed, or None if unknown.
    """

    cause = "resilience_error"
    """The error's kind as one word, for labels and degradation records: bounded, and free of anybody's data."""
    error_token = "proxy_internal_error"
    """What went wrong in the vocabulary of RFC 9209 section 2.3, for problem details and logs."""

    dependency: str | None = None
    policy: str | None = None
    reason: str | None = None
    retry_after: float | None = None
    # Where httpx.RequestError, a base of the bound classes, keeps its request; the client fills it in.
    _request: Any = None

    def __init__(
        self,
        message: str = "",
        *,
        dependency: str | None = None,
        policy: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        # Not cooperative on purpose: the bases that a bound class adds want other arguments.
        Exception.__init__(self, message)
        self.dependency = dependency
        self.policy = policy
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        return message or type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with `args` alone; and below OSError a new instance has no `args` at all.
        state = {key: value for key, value in self.__dict__.items() if key != "_request"}
        return _revive, (type(self), self.args), state


def _revive(kind: type[ResilienceError], args: tuple[Any, ...]) -> ResilienceError:
    error = kind.__new__(kind)
    Exception.__init__(error, *args)
    return error


class Rejected(ResilienceError):
    """A policy refused the call before anything was sent, so that another try elsewhere is always safe."""

    cause = "rejected"
    error_token = "destination_unavailable"


class CircuitOpen(Rejected, pybreaker.CircuitBreakerError):
    """The dependency is known to be failing and is being left alone until `retry_after`."""

    cause = "circuit_open"


class BulkheadFull(Rejected):
    """Every slot was taken and the wait for one was over."""

    cause = "bulkhead_full"
    error_token = "connection_limit_reached"


class RateLimited(Rejected):
    """The sending rate agreed for the dependency is used up."""

    cause = "rate_limited"
    error_token = "connection_limit_reached"


class SpendExceeded(Rejected):
    """A hard quota (calls, tokens, money) is used up for its period."""

    cause = "spend_exceeded"
    error_token = "http_request_denied"


class Overloaded(Rejected):
    """This service itself is overloaded and sheds work."""

    cause = "overloaded"
    error_token = "connection_limit_reached"


class DeadlineExceeded(ResilienceError, TimeoutError):
    """The time that was allowed is over. `reason` says whose: attempt, total, inbound, idle, first_byte; or stall:
    the circuit opened while the call was hanging, and something else was ready to answer for it.
    """

    cause = "deadline"
    error_token = "http_response_timeout"


class AllTargetsFailed(ResilienceError):
    """No target of a failover answered; `causes` holds what each of them raised, in order."""

    cause = "all_targets_failed"
    error_token = "destination_unavailable"

    def __init__(self, message: str = "", *, causes: tuple[BaseException, ...] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.causes = causes


class ConfigurationWarning(UserWarning):
    """The policies of a pipeline do not fit each other: they work, but not as whoever wrote them will think.

    Given where they are put together. To have it raised instead: `warnings.simplefilter("error", ConfigurationWarning)`.
    """


def cause_of(error: BaseException) -> str:
    """What went wrong, as one word: ours say it themselves, an answer by its status, any other error by its class."""
    if isinstance(error, ResilienceError):
        return error.cause
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return f"status_{status}"
    return type(error).__name__
