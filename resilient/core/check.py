"""How something stands that is checked again and again: well, ill, or not known.

Rules of this file: results go in, a state comes out. Who asks, and when, is decided elsewhere; `now` and `random` are
arguments.

The first result decides at once. After that it takes `failures` bad ones in a row to become ill and `successes` good ones
in a row to become well again, so that one blip changes nothing. A result that is older than `lasts` says nothing any more: the
state is unknown until there is another, and then what it was before is what has to be outweighed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["HURRY", "ILL", "JITTER", "STATES", "UNKNOWN", "WELL", "Change", "Standing", "pause"]

WELL, ILL, UNKNOWN = "well", "ill", "unknown"
STATES = (WELL, ILL, UNKNOWN)

JITTER = 0.1  # of an interval, to either side: replicas that were started together do not stay together
HURRY = 1.0  # seconds, at most, between two questions where somebody waits for the answer


def pause(interval: float, random: float, *, hurried: bool = False) -> float:
    """Seconds until the next question. `random` is from 0 to 1; `hurried` where somebody waits for the answer."""
    seconds = min(interval, HURRY) if hurried else interval
    return seconds * (1 + JITTER * (2 * random - 1))


class Change(NamedTuple):
    """A state that is left for another, and why."""

    old: str
    new: str
    reason: str


class Standing:
    """The state of one check.

    Args:
        failures: bad results in a row that make what was well ill.
        successes: good results in a row that make what was ill well.
        lasts: seconds for which a result means anything.
        apart: seconds by which a bad result follows on the one before if it is to count: asking more often, for somebody
            waits, shall not make a blip an illness.

    Attributes:
        reason: why the last result was bad; empty if it was good, or there is none.
        at: when the last result came; minus infinity before the first.
        since: when the state became what it was told to be last.
        told: the state as of the last `look`.
        against: results in a row that speak against the state.
    """

    __slots__ = ("_apart", "_counted_at", "_failures", "_lasts", "_successes", "_verdict", "against", "at", "reason", "since", "told")

    def __init__(self, failures: int, successes: int, lasts: float, apart: float = 0.0) -> None:
        self._failures = failures
        self._successes = successes
        self._lasts = lasts
        self._apart = apart
        self.since = -math.inf
        self.told = UNKNOWN
        self.forget()

    def forget(self) -> None:
        """As before the first result. The next `look` tells of it."""
        self._verdict = UNKNOWN
        self.reason = ""
        self.at = self._counted_at = -math.inf
        self.against = 0

    def record(self, well: bool, reason: str, now: float) -> None:
        """Take in a result; `reason` is why it is bad."""
        verdict = WELL if well else ILL
        if verdict == self._verdict:
            self.against = 0
        elif well or self.against == 0 or now - self._counted_at >= self._apart:
            self._counted_at = now
            self.against += 1
            enough = 1 if self._verdict == UNKNOWN else self._successes if well else self._failures
            if self.against >= enough:
                self._verdict, self.against = verdict, 0
        self.reason = "" if well else reason
        self.at = now

    def state(self, now: float) -> str:
        """well, ill or unknown."""
        return UNKNOWN if now - self.at > self._lasts else self._verdict

    def look(self, now: float) -> Change | None:
        """The change since the last look, if there is one."""
        old, new = self.told, self.state(now)
        if old == new:
            return None
        self.told, self.since = new, now
        return Change(old, new, "no result lately" if new == UNKNOWN else self.reason)
