"""What trips a circuit breaker and what closes it again: its settings, checked once.

Rules of this file: settings only. What they mean is decided in `breaker`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .bounds import fraction, not_negative, positive, whole

__all__ = ["Rules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What trips a breaker and what closes it again.

    Args:
        outage_failures: failures of the outage kind in a row that trip, given `outage_quiet`.
        outage_quiet: seconds without a success.
        stall_calls: calls that have to hang to trip; None for no such rule.
        stall_factor: a call hangs once it has waited longer than so many times the 95th percentile of the successes ...
        stall_after: ... and longer than so many seconds, in which there was no success either.
        failure_rate: part of the calls in the window that trips, from `minimum_calls` calls on.
        minimum_calls: how many calls a rate needs to mean something.
        window: seconds that the rates look back.
        buckets: in how many steps they forget.
        count_window: look back over so many calls instead.
        slow_call: a call that took so many seconds is slow; None counts none.
        slow_rate: part of slow calls that trips; `failure_rate` if only `slow_call` is given.
        consecutive: trip after so many failures in a row of any kind, and by no other rule.
        break_time: seconds that the circuit stays open at first.
        max_break: the longest break, before jitter.
        growth: factor by which the break grows with each failed round of trials.
        jitter: part of the break by which it may be shorter or longer.
        trials: calls that a half-open circuit admits in a round.
        trial_failure_rate: part of the trials that, failed, opens the circuit again; fewer close it.
        lease: seconds after which a trial is lost and its place given again. It should outlast a call's own timeout,
            or the verdict of a call that timed out comes too late to count.
    """

    outage_failures: int = 5
    outage_quiet: float = 1.0
    stall_calls: int | None = 5
    stall_factor: float = 10.0
    stall_after: float = 1.0
    failure_rate: float = 0.7
    minimum_calls: int = 20
    window: float = 10.0
    buckets: int = 10
    count_window: int | None = None
    slow_call: float | None = None
    slow_rate: float | None = None
    consecutive: int | None = None
    break_time: float = 1.0
    max_break: float = 3.0
    growth: float = 2.0
    jitter: float = 0.2
    trials: int = 3
    trial_failure_rate: float = 0.5
    lease: float = 30.0

    def __post_init__(self) -> None:
        for name in ("outage_failures", "minimum_calls", "buckets", "trials"):
            whole(name, getattr(self, name))
        for name in ("stall_calls", "count_window", "consecutive"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
        for name in ("window", "break_time", "max_break", "lease"):
            positive(name, getattr(self, name))
        for name in ("failure_rate", "trial_failure_rate"):
            fraction(name, getattr(self, name))
        for name in ("outage_quiet", "stall_factor", "stall_after"):
            not_negative(name, getattr(self, name))
        fraction("jitter", self.jitter, zero=True)
        positive("growth", self.growth)
        if self.growth < 1:
            raise ValueError(f"growth must be at least 1, not {self.growth!r}")
        if self.max_break < self.break_time:
            raise ValueError(f"max_break must be at least break_time = {self.break_time!r}, not {self.max_break!r}")
        if self.slow_call is not None:
            positive("slow_call", self.slow_call)
        if self.slow_rate is not None:
            fraction("slow_rate", self.slow_rate)
            if self.slow_call is None:
                raise ValueError("slow_rate needs slow_call: the seconds after which a call is slow")
