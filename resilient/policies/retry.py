"""Retry: another attempt, where it is safe, useful and paid for."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..core.backoff import Backoff, Exponential
from ..core.bounds import exception_classes, flag, not_negative, one_of, whole
from ..core.outcome import Outcome
from ..core.retry import Decision, decide
from ..errors import Rejected
from ..events import RetryDecided
from .attempt import NEVER, Attempt, never_made, refused
from .budget import RetryBudget
from .shown import shown
from .timeout import Timeout

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["Retry", "RetryBudget"]

logger = logging.getLogger("resilient")

SUCCESS = Outcome.SUCCESS


class Retry:
    """Repeat a failed attempt.

    HTTP calls are repeated by phase: any method when nothing was sent or processed, otherwise idempotent methods and
    requests with an `Idempotency-Key`, and never one whose body cannot be sent again. The effects of a plain function
    are unknown, so it is repeated only for the errors named in `on`. An answer that says so itself (`X-Envoy-Overloaded`,
    `grpc-retry-pushback-ms: -1`) is not followed by another attempt at the same place; nor is any once the service is drained and
    takes on no new work. On exhaustion the last real answer or error is given to the caller, unwrapped.

    Args:
        attempts: how many in all, the first one included.
        backoff: `Exponential` (full jitter, 0.2 s doubled up to 20 s) by default; `Linear`, `Constant`, or anything with
            `delay(attempt, random)`.
        budget: shared limit on retries; a new `RetryBudget` by default.
        on: for plain functions: exception classes, or a function of the exception, that are safe to retry. A refusal by
            our own policies (`Rejected`) is never repeated.
        on_result: True if a function's results that `classify` calls failures are safe to retry, or a function that says
            of a result whether to try again; of an answer over HTTP, where the request may be repeated at all.
        idempotency: "auto" gives a request that could not be repeated otherwise an `Idempotency-Key` of its own, the same
            for all attempts, for servers that know what to do with it; "bare" writes it without the quotes of the draft
            standard, as some servers want it.
        attempt_header: True tells the server the attempt's number, from 1, in `X-Retry-Attempt`.
        max_retry_after: seconds; a longer `Retry-After` is taken for this.
        random: a source of numbers in [0, 1), for the jitter.

    Raises:
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    __slots__ = (
        *("_marks", "_random", "_timed_each", "attempt_header", "attempts", "backoff", "budget", "idempotency"),
        "_named_on",
        *("max_retry_after", "on", "on_result", "own_budget"),
    )

    def __init__(
        self,
        *,
        attempts: int = 3,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        on: type[Exception] | Iterable[type[Exception]] | Callable[[Exception], bool] | None = None,
        on_result: bool | Callable[[Any], bool] = False,
        idempotency: Literal["auto", "bare"] | None = None,
        attempt_header: bool = False,
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
        self._named_on = on
        if not isinstance(on_result, bool) and not callable(on_result):
            raise TypeError(f"on_result: expected True, False or a function of the result, got {on_result!r}")
        self.on_result: bool | Callable[[Any], bool] = on_result
        if idempotency is not None:
            one_of("idempotency", idempotency, ("auto", "bare"))
        self.idempotency: Literal["auto", "bare"] | None = idempotency
        flag("attempt_header", attempt_header)
        self.attempt_header: bool = attempt_header
        self._marks = attempt_header or idempotency is not None
        self.max_retry_after: float = max_retry_after
        if not callable(random):
            raise TypeError(f"random: expected a function, got {random!r}")
        self._random = random
        # Whether a `Timeout` stands further in, so that each attempt has a total of its own.
        self._timed_each = False

    def __repr__(self) -> str:
        settings: dict[str, Any] = {"attempts": self.attempts}
        if self.backoff != Exponential():
            settings["backoff"] = self.backoff
        if not self.own_budget:
            settings["budget"] = self.budget
        names = ("on_result", "idempotency", "attempt_header", "max_retry_after")
        return shown(self, **settings, on=self._named_on, **{name: getattr(self, name) for name in names}, random=self._random)

    changeable: ClassVar[frozenset[str]] = frozenset({"attempts", "backoff", "idempotency", "attempt_header", "max_retry_after"})
    """Settings that `taking` can change at work."""

    def taking(self, other: Retry, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; the budget and what it has paid stay."""

        def take() -> None:
            for name in names:
                setattr(self, name, getattr(other, name))
            self._marks = self.attempt_header or self.idempotency is not None

        return take

    def join(self, owner: Pipeline) -> None:
        """Tell the time by the clock of `owner`."""
        self.budget.clock = owner.clock
        inside = owner.policies[owner.policies.index(self) :]
        self._timed_each = self._timed_each or any(isinstance(policy, Timeout) for policy in inside)

    async def run(self, call: Call, inner: Inner) -> Any:
        budget = self.budget
        (budget.of(call) if budget.keyed else budget).deposit()
        mark = len(call.held)
        if self._marks:
            call.mark(key=None if call.once else self.idempotency, number=self.attempt_header)
        may_repeat = self._may_repeat(call)
        outer = (call.deadline, call.limit) if self._timed_each else None
        last: Attempt | None = None
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
                    if call.plain and self.on_result is False:
                        return result
                    outcome = call.outcome_of(result)
                    if outcome is SUCCESS and attempt == 1 and outer is None and self.on_result is False:
                        return result
                    now = Attempt(result, None, outcome)
                except Exception as error:  # noqa: BLE001  # given to the caller below
                    now = Attempt(None, error, call.outcome_of_error(error))
                if last is not None and now.error is not None and refused(call, now.error):
                    if never_made(call, now.error):
                        last.unfollowed(call.runtime.now())
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
        return call.attempts < self.attempts and self._may_repeat(call)

    def _may_repeat(self, call: Call) -> bool:
        return not call.once and (call.repeatable or self.on is not None or self.on_result is not False)

    async def _again(self, call: Call, mark: int, attempt: int, made: Attempt) -> bool:
        """Whether to make another attempt; if so the last one is settled and its delay has passed."""
        error = made.error
        named = self._named(call, made)
        if not (named or made.outcome.failed or made.outcome is Outcome.THROTTLED):
            return False
        runtime = call.runtime
        call.attempts = attempt + 1
        decision = self._decide(call, attempt, made, named)
        if decision.result == "retried" and call.owner.closing.is_set():
            decision = Decision("draining", 0.0)
        if decision.result == "retried" and not made.followed(self.budget.of(call), runtime.now()):
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
                made.unfollowed(runtime.now())
                self._report(call, attempt, "rejected", 0.0, made)
                return False
            delay = 0.0  # nothing is left to give to the caller but the rejection: let it come at once
        self._report(call, attempt, "retried", delay, made)
        if delay > 0 and await call.owner.closing.pause(runtime, delay) and not made.lost:
            made.unfollowed(runtime.now())
            self._report(call, attempt, "draining", 0.0, made)
            return False
        return True

    def _decide(self, call: Call, attempt: int, made: Attempt, named: bool) -> Decision:
        if made.error is None and call.unwelcome(made.result):
            return Decision("pushback", 0.0)
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
    def _report(call: Call, attempt: int, result: str, delay: float, made: Attempt) -> None:
        owner = call.owner
        cause = call.cause_of(made.result, made.error)
        owner.post(RetryDecided(at=call.runtime.now(), dependency=owner.name, result=result, attempt=attempt, delay=delay, cause=cause))

    def _named(self, call: Call, made: Attempt) -> bool:
        """Whether the program, or the server, says that the attempt is to be made again."""
        if made.error is not None:
            return not isinstance(made.error, Rejected) and self.on is not None and _says("on", self.on, made.error)
        if call.busy(made.result):
            return True
        if call.request is not None and not call.repeatable:
            return False
        if isinstance(self.on_result, bool):
            return self.on_result and made.outcome.failed and not call.late  # an answer that came late is still one
        return _says("on_result", self.on_result, made.result)

    def reset(self) -> None:
        """A fresh budget."""
        self.budget.reset()


def _says(name: str, function: Callable[[Any], bool], ended: Any) -> bool:
    """What a function of the program's says. One that fails says no: the caller gets what there is."""
    try:
        return bool(function(ended))
    except Exception:
        logger.exception("%s, given to a Retry, failed", name)
        return False


def _matcher(on: Any) -> Callable[[Exception], bool] | None:
    if on is None:
        return None
    if callable(on) and not isinstance(on, type):
        return on  # type: ignore[no-any-return]
    kinds = exception_classes("on", on)
    return lambda error: isinstance(error, kinds)
