"""What the calls through a closed circuit say of the dependency, and which rule they break.

Rules of this file: evidence and its reading, O(1) a call; what follows from it is decided in `breaker`.

Rules that trip, looked at when a call fails (or was slow), all comparisons inclusive but those of a stall:

    outage         so many failures in a row of the outage kind, no success for `outage_quiet` seconds, and half of
                   that passed since the first of those calls was made: a blip trips nothing, though nobody had asked
                   for an hour before. Where there was no success yet, the row itself must have lasted the whole time.
                   A failure of another kind is an answer: it ends the row, for whoever answers is not dead, but it is
                   no success.
    stall          hangs are seen before any timeout fires: no success for `stall_after`, and so many of the oldest calls
                   in flight have waited longer than that and than `stall_factor` times the 95th percentile of successes.
                   It is looked at when a call arrives, for hanging calls tell nothing.
    failure_rate   of the calls in the window, if they are enough
    slow_rate      likewise
    consecutive    so many failures in a row of any kind; given, it is the only rule (pybreaker's `fail_max`)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .outcome import OUTAGE, Outcome
from .rules import Rules
from .window import CountWindow, TimeWindow

__all__ = ["Health"]


class Health:
    """How the last calls went.

    Attributes:
        consecutive_failures: failures of any kind since the last success.
        last_success: when the last one came; minus infinity where none is known.
        crowd: how many calls in flight make it worth while to look for a stall; infinite where there is no such rule.
        rules: what is read from all that; see `adopt`.
    """

    __slots__ = ("_outages", "_row_since", "_window", "consecutive_failures", "crowd", "last_success", "rules")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.crowd = _crowd(rules)
        self.consecutive_failures = 0
        self.last_success = -math.inf
        self._window = _new_window(rules)
        # The row of outage failures, and since when nothing but failures came.
        self._outages = 0
        self._row_since = 0.0

    def adopt(self, rules: Rules) -> None:
        """Read by other rules from now on. What the window saw is kept if its shape is."""
        old, self.rules = self.rules, rules
        self.crowd = _crowd(rules)
        if (old.window, old.buckets, old.count_window) != (rules.window, rules.buckets, rules.count_window):
            self._window = _new_window(rules)

    def note(self, outcome: Outcome, slow: bool, now: float, duration: float | None) -> None:
        """Note a call that failed or was slow."""
        if not outcome.failed:
            self.last_success = now
            self.consecutive_failures = self._outages = 0
        else:
            self._lengthen_row(outcome, now if duration is None else now - duration)
        self._window.record(now, outcome.failed, slow)

    def _lengthen_row(self, outcome: Outcome, began: float) -> None:
        self.consecutive_failures += 1
        if outcome is not OUTAGE:
            self._outages = 0
            return
        if not self._outages:
            self._row_since = began
        self._outages += 1

    def broken_rule(self, outcome: Outcome, slow: bool, now: float) -> str | None:
        """The rule that a call which failed or was slow has broken."""
        rules = self.rules
        if rules.consecutive is not None:
            return "consecutive" if self.consecutive_failures >= rules.consecutive else None
        if outcome is OUTAGE and self._outages >= rules.outage_failures:
            row, quiet = now - self._row_since, rules.outage_quiet
            known = self.last_success > -math.inf
            if row >= quiet or (known and now - self.last_success >= quiet and row >= quiet / 2):
                return "outage"
        calls, failures, slow_calls = self._window.totals(now)
        if calls < rules.minimum_calls:
            return None
        # Quotients, for 0.7 * 10 is above 7 in floating point and 7 / 10 is 0.7.
        if outcome.failed and failures / calls >= rules.failure_rate:
            return "failure_rate"
        if slow and slow_calls / calls >= (rules.slow_rate or rules.failure_rate):
            return "slow_rate"
        return None

    def hang(self, p95: float) -> float:
        """Seconds from which on a call hangs, with such a 95th percentile of successes."""
        return max(self.rules.stall_factor * p95, self.rules.stall_after)

    def stalled(self, waits: Iterable[float], p95: float, now: float) -> bool:
        """Whether the stall rule is broken, by what the oldest calls in flight have waited; `trip` is left to the caller."""
        rules = self.rules
        if rules.stall_calls is None or rules.consecutive is not None:
            return False
        if now - self.last_success < rules.stall_after:
            return False
        limit = self.hang(p95)
        return sum(wait > limit for wait in waits) >= rules.stall_calls

    def totals(self, now: float) -> tuple[int, int, int]:
        """Calls, failures and slow calls in the window."""
        return self._window.totals(now)

    def forget(self) -> None:
        """Forget how calls went, but for when the last success was."""
        self._window.clear()
        self.consecutive_failures = self._outages = 0


def _crowd(rules: Rules) -> float:
    return math.inf if rules.stall_calls is None or rules.consecutive is not None else rules.stall_calls


def _new_window(rules: Rules) -> TimeWindow | CountWindow:
    if rules.count_window is not None:
        return CountWindow(rules.count_window)
    return TimeWindow(rules.window, rules.buckets)
