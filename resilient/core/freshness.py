"""Whether a stored answer may be used, and for what.

Rules of this file: comparisons of numbers that were read when the answer was stored. `now` and chance are arguments.
Order of precedence: what the origin forbids, then what the request forbids, then the windows that anybody grants.

RFC 9111 sections 4.2 and 5.2.1; RFC 5861 for `stale-while-revalidate` and `stale-if-error`.
"""

from __future__ import annotations

import math
from enum import Enum

from .asked import Asked
from .caching import CachingRules
from .directives import Directives, delta_seconds
from .entry import Entry

__all__ = ["FRESH", "REFRESH", "STALE", "VALIDATE", "Use", "look", "outlasts", "refresh_early", "seconds_of_use", "usable_on_error"]


class Use(Enum):
    """What a stored answer is good for.

    FRESH: it is the answer. REFRESH: it is, stale, and a new one is to be fetched behind it. STALE: it is, stale, since
    the request takes it so (`max-stale`). VALIDATE: the origin is asked first.
    """

    FRESH = "fresh"
    REFRESH = "refresh"
    STALE = "stale"
    VALIDATE = "validate"


# Looking a member up on its class costs more than reading a global.
FRESH, REFRESH, STALE, VALIDATE = Use


def look(entry: Entry, asked: Asked | None, now: float, rules: CachingRules) -> Use:
    """What a stored answer is good for to a request that it was chosen for.

    Args:
        entry: the answer.
        asked: the request; None for a function's call.
        now: the present moment, in monotonic time.
        rules: the operator's.
    """
    if asked is not None and not asked.plain and asked.directives:
        return _demanded(entry, asked.directives, now, rules)
    if entry.needs_validation:
        return VALIDATE
    ttl = entry.ttl(now)
    if ttl > 0:
        return FRESH
    return REFRESH if -ttl <= _revalidation_window(entry, rules) else VALIDATE


def _revalidation_window(entry: Entry, rules: CachingRules) -> float:
    """Seconds for which it may be used while it is revalidated; -1 for none."""
    if entry.strict or entry.needs_validation:
        return -1.0
    window = entry.stale_while_revalidate
    if entry.status < 400 and rules.stale_while_revalidate > window:
        window = rules.stale_while_revalidate
    return min(window, rules.max_stale) or -1.0


def _demanded(entry: Entry, directives: Directives, now: float, rules: CachingRules) -> Use:
    """The same for a request that has directives (RFC 9111 section 5.2.1)."""
    if entry.needs_validation or "no-cache" in directives or "no-store" in directives:
        return VALIDATE
    age = entry.age(now)
    ttl = entry.lifetime - age
    takes_stale = "max-stale" in directives
    if "max-age" in directives:
        most = delta_seconds(directives["max-age"]) or 0
        if most == 0 or age > most or (ttl <= 0 and not takes_stale):
            return VALIDATE
    least = delta_seconds(directives.get("min-fresh"))
    if least is not None and ttl < least:
        return VALIDATE
    if ttl > 0:
        return FRESH
    if -ttl <= _revalidation_window(entry, rules):
        return REFRESH
    if takes_stale and not entry.strict:
        argument = directives["max-stale"]
        window = rules.max_stale if argument is None else min(float(delta_seconds(argument) or 0), rules.max_stale)
        if -ttl <= window and window > 0:
            return STALE
    return VALIDATE


def usable_on_error(entry: Entry, asked: Asked | None, now: float, rules: CachingRules) -> str | None:
    """Whether a stored answer may stand in for an error, and by whose leave (RFC 5861 section 4, RFC 9111 section 4.2.4).

    The origin's window and that of the request are permissions: the longer one counts. The operator's counts where
    neither forbids it, for good answers only. The operator's cap bounds all of them. A request that wants no answer
    older than so many seconds has its windows counted from there, and one that wants none unvalidated only its own.

    Args:
        entry: the answer, one that no write has made invalid.
        asked: the request; None for a function's call.
        now: the present moment, in monotonic time.
        rules: the operator's.

    Returns:
        "stale-if-error" (the origin or the request permits it), "fallback" (the operator does), or None. None for an answer
        that is `strict` or `needs_validation` means that the caller is owed a 504 (RFC 9111 section 5.2.2.2).
    """
    if entry.status >= 500 or entry.status in rules.stale_statuses:
        return None
    age = entry.age(now)
    staleness = age - entry.lifetime
    if (entry.needs_validation or (entry.strict and staleness >= 0)) and not rules.ignore_origin_prohibition:
        return None
    granted = entry.stale_if_error
    operator = max(rules.stale_if_error, granted) if rules.stale_if_error > 0 and entry.status < 400 else 0.0
    if asked is not None and not asked.plain and (directives := asked.directives):
        if "no-store" in directives:
            return None
        own = float(delta_seconds(directives.get("stale-if-error")) or 0)
        if "no-cache" in directives or ("max-age" in directives and not delta_seconds(directives["max-age"])):
            granted, operator = own, 0.0
        else:
            granted = max(granted, own)
        staleness = _beyond_what_was_asked(directives, age, staleness)
    if rules.max_stale <= 0:
        return None
    if granted > 0 and staleness <= min(granted, rules.max_stale):
        return "stale-if-error"
    return "fallback" if operator > 0 and staleness <= min(operator, rules.max_stale) else None


def _beyond_what_was_asked(directives: Directives, age: float, staleness: float) -> float:
    """Seconds by which an answer is older than both its lifetime and the request would have it."""
    oldest = delta_seconds(directives.get("max-age"))
    least = delta_seconds(directives.get("min-fresh"))
    return max(age - oldest if oldest else staleness, staleness + (least or 0))


def outlasts(entry: Entry, status: int, now: float, rules: CachingRules) -> bool:
    """Whether a stored answer stays although one came that could be kept: an error never replaces what can stand in for it."""
    return (
        (status >= 500 or status in rules.stale_statuses)
        and entry.status < 500
        and entry.status not in rules.stale_statuses
        and -entry.ttl(now) <= _longest_window(entry, rules)
    )


def _longest_window(entry: Entry, rules: CachingRules) -> float:
    """Seconds beyond its lifetime for which an answer is good for anything without being validated."""
    if (entry.strict or entry.needs_validation) and not rules.ignore_origin_prohibition:
        return 0.0
    window = max(entry.stale_if_error, entry.stale_while_revalidate)
    if entry.status < 400:
        window = max(window, rules.stale_if_error, rules.stale_while_revalidate)
    return min(window, rules.max_stale)


# An answer that can be validated saves its body even when it may no longer be used as it is: for as long again as it was
# fresh, or for this many seconds.
_LEAST_VALIDATION = 600.0


def seconds_of_use(entry: Entry, now: float, rules: CachingRules) -> float:
    """Seconds from now on for which it makes sense to keep an answer; 0 for one that is worthless already."""
    if entry.etag is None and entry.last_modified is None:
        window = _longest_window(entry, rules)
    elif entry.lifetime >= rules.max_stale:
        window = rules.max_stale  # no window is longer
    else:
        window = max(_longest_window(entry, rules), min(max(entry.lifetime, _LEAST_VALIDATION), rules.max_stale))
    seconds = entry.ttl(now) + window
    return seconds if seconds > 0 else 0.0


def refresh_early(entry: Entry, now: float, chance: float, beta: float = 1.0) -> bool:
    """Whether to fetch a new answer before this one is stale, so that of many processes hardly more than one does.

    XFetch (Vattani, Chierichetti and Lowenstein, "Optimal probabilistic cache stampede prevention", VLDB 2015): yes if
    now - took * beta * ln(chance) >= expiry. The chance of a single look with t seconds left is exp(-t / (beta * took)).

    Args:
        entry: the answer.
        now: the present moment, in monotonic time.
        chance: a number in (0, 1], evenly drawn.
        beta: above 1 earlier, below later.
    """
    return -entry.took * beta * math.log(chance) >= entry.ttl(now) if chance > 0 else True
