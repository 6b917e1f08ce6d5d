"""When a dependency is left alone, and when it is asked again.

Rules of this file: one state machine, no clock, no chance, no lock; the caller holds one lock around each method and
reports the transition that it is handed after the lock is let go.

    closed ──a rule trips──> open ──its break is over──> half-open ──too many trials failed──> open, for longer
       ^                      ^                              │
       └──────────────────────┼────── the trials went well ──┘        open(), half_open(), close(), trip(): by hand

Every admitted call holds a permit: the generation it was admitted in while the circuit was closed (an int, so that
nothing is allocated), a `Trial` while it was half-open. Each transition begins a new generation, and the result of an
older one changes nothing: a call that was sent before the outage neither opens nor closes anything after it.

Rules that trip, looked at when a call fails (or was slow), all comparisons inclusive:

    outage         so many failures in a row of the outage kind, no success for `outage_quiet` seconds, and half of
                   that passed since the first of those calls was made: a blip trips nothing, though nobody had asked
                   for an hour before. Where there was no success yet, the row itself must have lasted the whole time.
                   A failure of another kind is an answer: it ends the row, for whoever answers is not dead, but it is
                   no success.
    failure_rate   of the calls in the window, if they are enough
    slow_rate      likewise
    consecutive    so many failures in a row of any kind; given, it is the only rule (pybreaker's `fail_max`)

Reasons of other transitions: `forced` (by hand), `break_over`, `trial` (too many trials failed), `recovered`.
"""

from __future__ import annotations

import math

from .outcome import IGNORED, OUTAGE, SUCCESS, Outcome
from .permit import Permit, Transition, Trial
from .rules import Rules
from .window import CountWindow, TimeWindow

__all__ = ["CLOSED", "HALF_OPEN", "OPEN", "Breaker", "Permit", "Rules", "Transition", "Trial"]

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"

FORCED = "forced"
# The permit of a breaker that is switched off: no generation has this number.
_UNCOUNTED = -1


class Breaker:
    """The state of one circuit.

    Attributes:
        state: `CLOSED`, `OPEN` or `HALF_OPEN`.
        generation: how many transitions there were. While the state is `CLOSED` it is itself a valid permit.
        reason: why the circuit is not closed: the rule that tripped, kept until it closes; "" while it is closed.
        forced: it was opened by hand, and stays so until it is closed by hand.
        consecutive_failures: failures of any kind since the last success.
        trial_successes: successes of the present round of trials.
        enabled: False admits every call and counts none.
        rules: see `configure`.
        recovered: a transition to closed that `admit` has made, for the caller to take and report; else None.
    """

    __slots__ = (
        "_break",
        "_closed",
        "_last_success",
        "_outages",
        "_row_since",
        "_trial_failures",
        "_trials",
        "_window",
        "consecutive_failures",
        "enabled",
        "forced",
        "generation",
        "open_until",
        "reason",
        "recovered",
        "rules",
        "state",
        "trial_successes",
    )

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.state = CLOSED
        self.generation = 0
        # The generation while the circuit is closed, else None: the permits that `record` takes. Who reads state and
        # generation without the lock may take a permit of a generation that was over in between.
        self._closed: int | None = 0
        self.reason = ""
        self.forced = False
        self.enabled = True
        self.consecutive_failures = 0
        self.trial_successes = 0
        self._trial_failures = 0
        # The trials that are out, oldest first; never more than `rules.trials`.
        self._trials: list[Trial] = []
        self._window = _new_window(rules)
        # The row of outage failures, and since when nothing but failures came.
        self._outages = 0
        self._row_since = 0.0
        self._last_success: float | None = None
        # Length of the last break before jitter; 0 while closed.
        self._break = 0.0
        self.open_until = 0.0
        self.recovered: Transition | None = None

    def admit(self, now: float) -> Permit | None:
        """Ask to make a call. Returns its permit, to be given to `record` exactly once; None rejects the call.

        An open circuit whose break is over becomes half-open here: `Trial.transition` tells.
        """
        if not self.enabled:
            return _UNCOUNTED
        if self.state is CLOSED:
            return self.generation
        transition = None
        if self.state is OPEN:
            if now < self.open_until:
                return None
            transition = self._move(HALF_OPEN, "break_over")
        elif not self._place_free(now):
            return None
        elif self.state is CLOSED:
            return self.generation
        trial = Trial(self.generation, now + self.rules.lease, transition)
        self._trials.append(trial)
        return trial

    def _place_free(self, now: float) -> bool:
        """Whether the round of trials has a place, made by a lost trial if need be."""
        trials = self._trials
        if self.trial_successes + self._trial_failures + len(trials) < self.rules.trials:
            return True
        free = False
        for trial in [trial for trial in trials if now >= trial.expires]:
            if trial.answered:
                trials.remove(trial)
                self._last_success = now
                self.trial_successes += 1
            elif not free:
                trials.remove(trial)
                free = True
        if self.trial_successes + self._trial_failures >= self.rules.trials:
            self.recovered = self._close("recovered")
            return True
        return free

    def record_success(self, generation: int, now: float) -> None:
        """`record` for a closed permit and a success whose duration is of no interest, which never trips anything."""
        if generation != self._closed:
            return
        self._last_success = now
        if self.consecutive_failures:
            self.consecutive_failures = self._outages = 0
        window = self._window
        if now >= window.ends:
            window.turn(now)
        window.calls += 1

    def record(self, permit: Permit, outcome: Outcome, now: float, duration: float | None, random: float) -> Transition | None:
        """Tell how a call ended. Returns the transition that it caused, if any.

        Args:
            permit: what the call was admitted with.
            outcome: how it ended.
            now: when.
            duration: seconds that it took; None if that says nothing (a stream whose reader was slow).
            random: in [0, 1), to spread the ends of breaks.
        """
        slow_call = self.rules.slow_call
        slow = slow_call is not None and duration is not None and duration >= slow_call
        if isinstance(permit, Trial):
            return self._record_trial(permit, outcome, slow, now, random)
        if permit != self._closed or not outcome.counted:
            return None
        if not outcome.failed and not slow:
            self.record_success(permit, now)
            return None
        if outcome.failed:
            self._lengthen_row(outcome, now if duration is None else now - duration)
        else:
            self._last_success = now
            self.consecutive_failures = self._outages = 0
        self._window.record(now, outcome.failed, slow)
        reason = self._broken_rule(outcome, slow, now) if self.enabled else None
        return None if reason is None else self._open(reason, now, random)

    def _lengthen_row(self, outcome: Outcome, began: float) -> None:
        self.consecutive_failures += 1
        if outcome is not OUTAGE:
            self._outages = 0
            return
        if not self._outages:
            self._row_since = began
        self._outages += 1

    def _broken_rule(self, outcome: Outcome, slow: bool, now: float) -> str | None:
        """The rule that a call which failed or was slow has broken."""
        rules = self.rules
        if rules.consecutive is not None:
            return "consecutive" if self.consecutive_failures >= rules.consecutive else None
        if outcome is OUTAGE and self._outages >= rules.outage_failures:
            row, quiet = now - self._row_since, rules.outage_quiet
            if row >= quiet or (self._last_success is not None and now - self._last_success >= quiet and row >= quiet / 2):
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

    def _record_trial(self, trial: Trial, outcome: Outcome, slow: bool, now: float, random: float) -> Transition | None:
        if trial not in self._trials:
            # Another generation's, or lost: its place was given to another call.
            return None
        self._trials.remove(trial)
        if (now >= trial.expires and not trial.answered) or outcome is IGNORED or not self.enabled:
            return None
        # A slow trial has failed: a circuit that opened for slowness must not close on it.
        if outcome is SUCCESS and not slow:
            self._last_success = now
            self.trial_successes += 1
        else:
            self._trial_failures += 1
            self.consecutive_failures += outcome.failed
        rules = self.rules
        if self._trial_failures / rules.trials >= rules.trial_failure_rate:
            return self._open("trial", now, random)
        if self.trial_successes + self._trial_failures >= rules.trials:
            return self._close("recovered")
        return None

    def retry_after(self, now: float) -> float | None:
        """Seconds after which another try may be admitted, for who is rejected now; None if closed or unknown (forced).

        Half-open, nobody knows when the trials end. The answer is the length of the last break, for as long again the
        circuit stays open if they fail, or the time until the first lease ends if that is sooner; 0 with a place free.
        """
        if self.state is OPEN:
            left = self.open_until - now
            return None if self.forced else left if left > 0 else 0.0
        if self.state is CLOSED:
            return None
        if not self._trials or self.trial_successes + self._trial_failures + len(self._trials) < self.rules.trials:
            return 0.0
        first = min(trial.expires for trial in self._trials)
        return max(0.0, min(self._break or self.rules.break_time, first - now))

    def open(self, now: float) -> Transition | None:
        """Isolate the dependency: nothing is admitted until `close` or `half_open`."""
        self.forced = True
        self.reason = FORCED
        self.open_until = math.inf
        return None if self.state is OPEN else self._move(OPEN, FORCED)

    def half_open(self, now: float) -> Transition | None:
        """Admit a round of trials now, whatever the state."""
        self.forced = False
        self.reason = self.reason or FORCED
        return None if self.state is HALF_OPEN else self._move(HALF_OPEN, FORCED)

    def close(self, now: float) -> Transition | None:
        """Admit every call and forget all failures, also where the circuit is closed already."""
        # No success was seen that would say since when the dependency answers.
        self._last_success = None
        if self.state is not CLOSED:
            return self._close(FORCED)
        self._forget()
        return None

    def trip(self, now: float, reason: str, random: float) -> Transition | None:
        """Open the circuit for a break, for a reason that was seen elsewhere. An open one stays as it is."""
        return None if self.state is OPEN or not self.enabled else self._open(reason, now, random)

    def configure(self, rules: Rules) -> None:
        """Change the rules. What the window saw is kept if its shape is; a round of trials begins anew."""
        old, self.rules = self.rules, rules
        if (old.window, old.buckets, old.count_window) != (rules.window, rules.buckets, rules.count_window):
            self._window = _new_window(rules)
        self._begin_round()

    def _open(self, reason: str, now: float, random: float) -> Transition:
        rules = self.rules
        self._break = min(rules.max_break, max(rules.break_time, self._break * rules.growth))
        # Jitter comes on top of the cap, or at the cap all replicas would ask at the same moment.
        pause = self._break * (1 + rules.jitter * (2 * random - 1))
        self.open_until = now + pause
        if self.reason in ("", FORCED):
            self.reason = reason
        return self._move(OPEN, reason, pause)

    def _close(self, reason: str) -> Transition:
        self._forget()
        self.reason = ""
        self.forced = False
        self._break = 0.0
        return self._move(CLOSED, reason)

    def _forget(self) -> None:
        self._window.clear()
        self.consecutive_failures = self._outages = 0

    def _begin_round(self) -> None:
        self._trials.clear()
        self.trial_successes = self._trial_failures = 0

    def _move(self, state: str, reason: str, retry_after: float | None = None) -> Transition:
        transition = Transition(self.state, state, reason, retry_after)
        self.state = state
        self.generation += 1
        self._closed = self.generation if state is CLOSED else None
        self._begin_round()
        return transition


def _new_window(rules: Rules) -> TimeWindow | CountWindow:
    if rules.count_window is not None:
        return CountWindow(rules.count_window)
    return TimeWindow(rules.window, rules.buckets)
