"""Whether a failed attempt is made again, and when.

Rules of this file: a decision is a function of what is known when the attempt ended. The budget is asked afterwards, by
whoever holds it, for it is spent by asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from .deadline import useful

__all__ = ["Decision", "decide", "parse_retry_after", "seconds_of_date"]

# Nobody who says more means it, and what is added to a clock must stay a time.
_YEAR = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a failed attempt.

    Attributes:
        result: "retried"; "unrepeatable" (it would not help, or may not be sent twice); "exhausted" (no attempts left);
            "deadline" (too little time is left after the wait); "pushback" (the server asked for a longer wait than is
            left); "budget" (given by the policy, when the budget refuses).
        delay: seconds to wait before the next attempt, or that it would have taken.
    """

    result: str
    delay: float = 0.0


_UNREPEATABLE = Decision("unrepeatable")
_EXHAUSTED = Decision("exhausted")


def decide(
    *,
    attempt: int,
    attempts: int,
    retryable: bool,
    repeatable: bool,
    delay: float,
    retry_after: float | None,
    remaining: float,
    min_useful: float,
    max_retry_after: float = 60.0,
) -> Decision:
    """Decide about attempt number `attempt` (1 is the first), which failed.

    Args:
        attempt: its number.
        attempts: how many may be made in all.
        retryable: the outcome is of a kind that another attempt may mend.
        repeatable: the request may be sent again: it is idempotent or was never sent, and its body can be replayed.
        delay: seconds that the backoff asks for, jitter included.
        retry_after: seconds that the server asks for; the backoff's delay comes on top.
        remaining: seconds until the deadline.
        min_useful: seconds that must be left for an attempt to be worth making.
        max_retry_after: seconds above which a server's wish is not followed.
    """
    if not (retryable and repeatable):
        return _UNREPEATABLE
    if attempt >= attempts:
        return _EXHAUSTED
    asked = 0.0 if retry_after is None else min(retry_after, max_retry_after)
    # Never earlier than asked, and the backoff on top, or all clients come back in the same instant; the longer of the two
    # where both together would be too late.
    wait = asked + delay
    if not useful(wait, remaining, min_useful):
        wait = max(asked, delay)
    if useful(wait, remaining, min_useful):
        return Decision("retried", wait)
    return Decision("pushback" if asked > delay else "deadline", max(delay, asked))


def parse_retry_after(value: str, now_wall: float, date: str | None) -> float | None:
    """Seconds that a `Retry-After` field asks for (RFC 9110 section 10.2.3), or None if it is not one.

    Args:
        value: the field's value: whole seconds, or an HTTP-date.
        now_wall: wall time, in seconds since the epoch, that a date is counted from ...
        date: ... unless the response has a `Date` field that can be read: then its clock and ours need not agree.
    """
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        # As a float: Python refuses to make an int of thousands of digits.
        return min(float(value), _YEAR)
    until = seconds_of_date(value)
    if until is None:
        return None
    since = None if date is None else seconds_of_date(date)
    return min(max(0.0, until - (now_wall if since is None else since)), _YEAR)


def seconds_of_date(value: str) -> float | None:
    """Seconds since the epoch of an HTTP-date, in any of its three forms (RFC 9110 section 5.6.7)."""
    # All three begin with the name of a day. The parser also takes what mail programs write, and reads dates into words.
    if not value[:3].isalpha() or len(value) > 64:
        return None
    try:
        moment = parsedate_to_datetime(value)
        # The old forms name no zone, and HTTP knows only one.
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
