"""What a call's end says about the dependency: the table of outcomes, and nothing that acts on it.

Rules of this file: pure functions of a status, an error or a duration. Five inward outcomes, three outward words. What
a member tells is a plain attribute of it, set once, because it is read on every call.
"""

from __future__ import annotations

import enum
import socket
from typing import Self

from ..errors import Rejected

__all__ = ["Outcome", "outcome_of_cut", "outcome_of_error", "outcome_of_status"]


class Outcome(enum.Enum):
    """How a call ended, seen from the dependency's side.

    Attributes:
        label: the outward word: "success", "failure" or "ignored".
        failed: the dependency is to blame.
        counted: it says something about the dependency, good or bad.
    """

    SUCCESS = "success", "success"
    FAILURE = "failure", "failure"
    """It answered, and the answer was a failure (500), or a plain function raised."""
    OUTAGE = "outage", "failure"
    """Nobody there: connect errors, timeouts, 502, 503, 504."""
    THROTTLED = "throttled", "ignored"
    """429: healthy and busy. It counts nowhere, but a trial of a half-open circuit that meets it has failed."""
    IGNORED = "ignored", "ignored"
    """Says nothing about the dependency: the caller went away, or one of our own limits refused."""

    label: str
    failed: bool
    counted: bool

    def __new__(cls, word: str, label: str) -> Self:
        member = object.__new__(cls)
        member._value_ = word
        member.label = label
        member.failed = label == "failure"
        member.counted = label != "ignored"
        return member


# Looking a member up on its class costs more than reading a global.
SUCCESS, FAILURE, OUTAGE, THROTTLED, IGNORED = Outcome

_OUTAGE_STATUSES = frozenset({502, 503, 504})
_FAILURE_STATUSES = frozenset({408, 425})
# gaierror is what a name that does not resolve raises; the timeouts of asyncio, sockets and futures are TimeoutError.
_OUTAGE_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)


def outcome_of_status(status: int) -> Outcome:
    """The outcome of a response by its status alone.

    A number outside 100..599 counts as a 5xx (RFC 9110 section 15).
    """
    if 100 <= status < 400:
        return SUCCESS
    if status in _OUTAGE_STATUSES:
        return OUTAGE
    if status == 429:
        return THROTTLED
    if status == 501 or (400 <= status < 500 and status not in _FAILURE_STATUSES):
        return SUCCESS
    return FAILURE


def outcome_of_error(error: BaseException) -> Outcome:
    """The outcome of a plain function that raised `error`.

    What is not an `Exception` (a cancellation, a closed generator, Ctrl-C) is the caller's doing and ignored.
    """
    if isinstance(error, Rejected) or not isinstance(error, Exception):
        return IGNORED
    return OUTAGE if isinstance(error, _OUTAGE_ERRORS) else FAILURE


def outcome_of_cut(ran: float, own_timeout: float, p95: float | None) -> Outcome:
    """The outcome of a call that something shorter than its own timeout cut: a caller's deadline or cancellation.

    A hang must be seen even where every caller is impatient, and one impatient caller must not open a healthy circuit.

    Args:
        ran: seconds from its start to the cut.
        own_timeout: seconds it would have been given.
        p95: the 95th percentile of the dependency's successes, in seconds; None while fewer than 20 are known.
    """
    if ran >= own_timeout - 0.001:
        return OUTAGE
    usual = min(own_timeout / 2, 1.0) if p95 is None else p95
    return OUTAGE if ran > usual else IGNORED
