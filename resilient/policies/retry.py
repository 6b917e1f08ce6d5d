"""Retry: another attempt, where it is safe, useful and paid for."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..clock import SYSTEM_CLOCK, Clock
from ..core.backoff import Backoff, Exponential
from ..core.bounds import exception_classes, not_negative, whole
from ..core.budget import Budget
from ..core.outcome import Outcome
from ..core.retry import Decision, decide
from ..errors import DeadlineExceeded, Rejected
from ..events import RetryDecided
from .timeout import Timeout

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["Retry", "RetryBudget"]

logger = logging.getLogger("resilient")

NEVER = -math.inf
SUCCESS = Outcome.SUCCESS


class RetryBudget:
    """A limit on retries (and hedges) that grows with traffic: they help in a blip and must not feed an outage.

    Over any `window` at most `ratio` of the calls plus `reserve` a second are repeated (the form of Finagle's
    RetryBudget). Share one between the policies of a dependency.

    Args:
        ratio: retries per call.
        reserve: retries a second that are allowed at any traffic.
        window: seconds.
        saved: retries that may be saved up at most.
    """

    __slots__ = ("_budget", "_lock", "_settings", "clock")

    def __init__(self, *, ratio: float = 0.2, reserve: float = 3.0, window: float = 10.0, saved: int = 30) -> None:
        self._settings = {"ratio": ratio, "reserve": reserve, "window": window, "saved": saved}
        self._budget = Budget(**self._settings)
        self._lock = threading.Lock()
        self.clock: Clock = SYSTEM_CLOCK

    def deposit(self) -> None:
        """Count a call."""
        # Looked at without the lock: a debt made in this very moment is repaid by the next call.
        if self._budget.owed:
            with self._lock:
                self._budget.deposit()

    def withdraw(self, now: float) -> bool:
        """Pay for a retry. False if the budget refuses it."""
        with self._lock:
            return self._budget.withdraw(now)

    def remaining_ratio(self) -> float:
        """What is left, from 0 to 1."""
        now = self.clock.now()
        with self._lock:
            return self._budget.remaining_ratio(now)

    def reset(self) -> None:
        with self._lock:
            self._budget = Budget(**self._settings)


class Retry:
    """Repeat a failed attempt.

    HTTP calls are repeated by phase: any method when nothing was sent or processed, otherwise idempotent methods and
    requests with an `Idempotency-Key`, and never one whose body cannot be sent again. The effects of a plain function
    are unknown, so it is repeated only for the errors named in `on`. On exhaustion the last real answer or error is
    given to the caller, unwrapped.

    Args:
        attempts: how many in all, the first one included.
        backoff: `Exponential` (full jitter, 0.2 s doubled up to 20 s) by default.
        budget: shared limit on retries; a new `RetryBudget` by default.
        on: for plain functions: exception classes, or a function of the exception, that are safe to retry. A refusal by
            our own policies (`Rejected`) is never repeated.
        max_retry_after: seconds; a longer `Retry-After` is taken for this.
        random: a source of numbers in [0, 1), for the jitter.

    Raises:
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    __slots__ = ("_random", "_timed_each", "attempts", "backoff", "budget", "max_retry_after", "on", "own_budget")

    def __init__(
        self,
        *,
        attempts: int = 3,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        on: type[Exception] | Iterable[type[Exception]] | Callable[[Exception], bool] | None = None,
        max_retry_after: float = 60.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        whole("attempts", attempts)
        not_negative("max_retry_after", max_retry_after)
        self.attempts: int = attempts
        self.backoff: Backoff = Exponential() if backoff is None else backoff
        if isinstance(backoff, type) or not callable(getattr(self.backoff, "delay", None)):
            raise TypeError(f"backoff: expected an object with delay(attempt, random), got {backoff!r}")
        if budget is not None and not isinstance(budget, RetryBudget):
            raise TypeError(f"budget: expected a RetryBudget, got {budget!r}")
        self.budget: RetryBudget = RetryBudget() if budget is None else budget
        self.own_budget: bool = budget is None
        self.on: Callable[[Exception], bool] | None = _matcher(on)
        self.max_retry_after: float = max_retry_after
        if not callable(random):
            raise TypeError(f"random: expected a function, got {random!r}")
        self._random = random
        # Whether a `Timeout` stands further in, so that each attempt has a total of its own.
        self._timed_each = False

    def join(self, owner: Pipeline) -> None:
        """Tell the time by the clock of `owner`."""
        self.budget.clock = owner.clock
        inside = owner.policies[owner.policies.index(self) :]
        self._timed_each = self._timed_each or any(isinstance(policy, Timeout) for policy in inside)

    async def run(self, call: Call, inner: Inner) -> Any:
        self.budget.deposit()
        mark = len(call.held)
        may_repeat = not call.once and (call.repeatable or self.on is not None)
        outer = (call.deadline, call.limit) if self._timed_each else None
        last: _Attempt | None = None
        attempt = 0
        try:
            while True:
                attempt += 1
                if call.timed:
                    # A limit for one attempt makes sense only while another may follow it.
                    call.attempt_limit = call.attempt_timeout if may_repeat and attempt < self.attempts else math.inf
                    call.attempt_started, call.attempt_deadline = NEVER, math.inf
                try:
                    result = await inner(call)
                    if call.plain:
                        return result
                    outcome = call.outcome_of(result)
                    if outcome is SUCCESS and outer is None:
                        return result
                    now = _Attempt(result, None, outcome)
                except Exception as error:  # noqa: BLE001  # given to the caller below
                    now = _Attempt(None, error, call.outcome_of_error(error))
                if last is not None and refused(call, now.error):
                    self._report(call, attempt, "rejected", 0.0, now)
                    return last.answer(now.error)
                if outer is not None:
                    call.deadline, call.limit = outer
                if not await self._again(call, mark, attempt, now):
                    return now.answer(None)
                last = now
        finally:
            # An error kept in a local of a frame that is in its own traceback would keep every caller's locals alive.
            last = now = None  # type: ignore[assignment]

    def may_follow(self, call: Call) -> bool:
        """Whether another attempt could follow the one that is being made."""
        return call.attempts < self.attempts and not call.once and (call.repeatable or self.on is not None)

    async def _again(self, call: Call, mark: int, attempt: int, made: _Attempt) -> bool:
        """Whether to make another attempt; if so the last one is settled and its delay has passed."""
        error = made.error
        named = error is not None and not isinstance(error, Rejected) and self._names(error)
        if not (named or made.outcome.failed or made.outcome is Outcome.THROTTLED):
            return False
        runtime = call.runtime
        call.attempts = attempt + 1
        decision = self._decide(call, attempt, made, named)
        if decision.result == "retried" and not self.budget.withdraw(runtime.now()):
            decision = Decision("budget", 0.0)
        if decision.result != "retried":
            self._report(call, attempt, decision.result, decision.delay, made)
            return False
        if error is None and not await call.keep(made.result):
            made.lose(call)
        until = call.settle(mark, made.outcome, error)
        delay = decision.delay
        if until is not None and until > runtime.now() + delay:
            if not made.lost:
                self._report(call, attempt, "rejected", 0.0, made)
                return False
            delay = 0.0  # nothing is left to give to the caller but the rejection: let it come at once
        self._report(call, attempt, "retried", delay, made)
        if delay > 0:
            await runtime.sleep(delay)
        return True

    def _decide(self, call: Call, attempt: int, made: _Attempt, named: bool) -> Decision:
        runtime = call.runtime
        retry_after = call.retry_after(made.result, made.error)
        decision = decide(
            attempt=attempt,
            attempts=self.attempts,
            retryable=not call.once,
            repeatable=named or call.retryable(made.outcome, made.error),
            delay=self.backoff.delay(attempt, self._random()),
            retry_after=retry_after,
            remaining=call.deadline - runtime.now(),
            min_useful=call.min_useful,
            max_retry_after=self.max_retry_after,
        )
        if decision.result == "retried" and decision.delay > 0 and not runtime.may_wait():
            return Decision("retried", 0.0) if retry_after is None else Decision("pushback", 0.0)
        return decision

    @staticmethod
    def _report(call: Call, attempt: int, result: str, delay: float, made: _Attempt) -> None:
        owner = call.owner
        cause = call.cause_of(made.result, made.error)
        owner.post(RetryDecided(at=call.runtime.now(), dependency=owner.name, result=result, attempt=attempt, delay=delay, cause=cause))

    def _names(self, error: Exception) -> bool:
        """Whether `on` names the error. A function that fails names nothing: the caller gets the error itself."""
        if self.on is None:
            return False
        try:
            return bool(self.on(error))
        except Exception:
            logger.exception("on, given to a Retry, failed")
            return False

    def reset(self) -> None:
        """A fresh budget."""
        self.budget.reset()


class _Attempt:
    """How one attempt ended."""

    __slots__ = ("error", "lost", "outcome", "result")

    def __init__(self, result: Any, error: Exception | None, outcome: Outcome) -> None:
        self.result = result
        self.error = error
        self.outcome = outcome
        self.lost = False

    def lose(self, call: Call) -> None:
        """The answer was too large to keep; what is left of it is an error that tells of it."""
        self.error = call.failure_of(self.result)
        self.result = None
        self.lost = True

    def answer(self, refusal: Exception | None) -> Any:
        """Give this attempt's answer to the caller, as it was; where it is lost, why there was no other one."""
        error, result, lost = self.error, self.result, self.lost
        # Nothing that an error's traceback leads to may lead back to it.
        self.error = self.result = None
        try:
            if lost and refusal is not None:
                raise refusal from error
            if error is not None:
                raise error
            return result
        finally:
            del error, refusal


def refused(call: Call, error: Exception | None) -> bool:
    """Whether our own policies kept an attempt from being made: they refused it, or no time was left to start it in."""
    if error is None:
        return False
    return call.refused(error) or (isinstance(error, DeadlineExceeded) and call.timed and call.attempt_started == NEVER)


def _matcher(on: Any) -> Callable[[Exception], bool] | None:
    if on is None:
        return None
    if callable(on) and not isinstance(on, type):
        return on  # type: ignore[no-any-return]
    kinds = exception_classes("on", on)
    return lambda error: isinstance(error, kinds)
