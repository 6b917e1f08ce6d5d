"""What a call's end says: errors of our own making, and what results and errors tell of the dependency."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from .core.outcome import Outcome, outcome_of_cut, outcome_of_error
from .core.pushback import Told, parse_told
from .errors import DeadlineExceeded, Rejected, ResilienceError, cause_of
from .events import CallRejected, DeadlinePassed

if TYPE_CHECKING:
    from .policies.pipeline import Pipeline
    from .protocols import Runtime

__all__ = ["Classifier", "Judged"]

E = TypeVar("E", bound=ResilienceError)
Classifier = Callable[[Any, BaseException | None], "Outcome | None"]

SUCCESS = Outcome.SUCCESS
IGNORED = Outcome.IGNORED
OWN_LIMITS = ("attempt", "total")


class Judged:
    """The side of a call that is asked what its end means; a kind of call overrides what it knows better."""

    __slots__ = ("__dict__", "owner", "plain", "runtime")

    owner: Pipeline
    runtime: Runtime
    plain: bool
    """Whether a returned value is a success without looking at it."""
    headed: bool = False
    """Whether its answers have a status and header fields."""
    attempt_started: float
    attempt_timeout: float
    attempt_reason: str
    classify: Classifier | None = None
    degraded: str | None = None
    """Why the answer is not the dependency's own, once a fallback was served."""
    elsewhere: str | None = None
    """Where the answer is from, if it is not the dependency's to this very call: "cached"."""
    counted: bool = True
    """Whether it is counted; one whose answer another call has fetched, and was counted for, is not."""
    error_types: Mapping[type[ResilienceError], type[ResilienceError]] = MappingProxyType({})
    lost: bool = False
    """Whether it was a branch that another one has beaten, so that its end says nothing of the dependency."""
    _cut: BaseException | None = None
    _cut_outcome: Outcome = IGNORED
    _late: Outcome | None = None

    # -- errors ---------------------------------------------------------------------------------------------------

    def error(self, kind: type[E], message: str, *, policy: str, reason: str, retry_after: float | None = None) -> E:
        """A new error for this call: of the class that is also the client library's own, where there is one."""
        bound = self.error_types.get(kind, kind)
        # A rejection has to cost little just when everything is rejected: filled in without a call of __init__.
        error: Any = bound.__new__(bound)
        name = self.owner.name
        if name:
            error.dependency = name
            message = name + ": " + message
        error.args = (message,)
        error.policy = policy
        error.reason = reason
        error.retry_after = retry_after
        return error  # type: ignore[no-any-return]

    def cut(self, message: str, *, policy: str, reason: str, outcome: Outcome) -> DeadlineExceeded:
        """A new DeadlineExceeded that this call's own machinery raises, together with what it says of the dependency."""
        error = self.error(DeadlineExceeded, message, policy=policy, reason=reason)
        self._cut, self._cut_outcome = error, outcome
        self.owner.post(DeadlinePassed(at=self.runtime.now(), dependency=self.owner.name, side="outbound", limit=reason))
        return error

    def reject(self, kind: type[E], message: str, *, policy: str, reason: str, retry_after: float | None = None) -> E:
        """A new error of a policy that refuses this call; the refusal is reported."""
        if self.owner.outbox.listeners:
            self.report_rejection(policy, reason)
        error = self.error(kind, message, policy=policy, reason=reason, retry_after=retry_after)
        self._cut, self._cut_outcome = error, IGNORED
        return error

    def report_rejection(self, policy: str, reason: str, *, enforced: bool = True) -> None:
        """Tell listeners that a policy refused this call, or, in shadow mode, that it would have."""
        owner = self.owner
        owner.post(CallRejected(at=self.runtime.now(), dependency=owner.name, policy=policy, reason=reason, enforced=enforced))

    def ignore(self, error: BaseException) -> None:
        """Say that `error` is the caller's mistake and tells nothing of the dependency."""
        self._cut, self._cut_outcome = error, IGNORED

    def judge_error(self, error: BaseException, outcome: Outcome) -> None:
        """Say what an error that a policy has made says of the dependency."""
        self._cut, self._cut_outcome = error, outcome

    def forget(self) -> None:
        """Let go of the error: it holds the frames that hold this call, and would keep them all until a collection."""
        self._cut = None

    def came_late(self) -> None:
        """Say that the value came after the deadline: it is given to the caller, but it is no success."""
        now = self.runtime.now()
        self.plain = False
        self._late = Outcome.OUTAGE
        if self.attempt_reason not in OWN_LIMITS:
            # Late for whoever set the deadline: that need not be the dependency's fault.
            self._late = outcome_of_cut(now - self.attempt_started, self.attempt_timeout, self.owner.stats.p95())
        self.owner.post(DeadlinePassed(at=now, dependency=self.owner.name, side="outbound", limit="late"))

    # -- outcomes -------------------------------------------------------------------------------------------------

    def outcome_of(self, result: Any) -> Outcome:
        """What a returned value says of the dependency."""
        if self.lost:
            return IGNORED
        if self._late is not None:
            return self._late
        if self.degraded is not None or self.elsewhere is not None:
            return IGNORED
        return self.verdict(result, None) or SUCCESS

    def outcome_of_error(self, error: BaseException) -> Outcome:
        """What a raised error says of the dependency."""
        if self.lost:
            return IGNORED
        if error is self._cut:
            return self._cut_outcome
        return (self.verdict(None, error) if isinstance(error, Exception) else None) or outcome_of_error(error)

    def verdict(self, result: Any, error: Exception | None) -> Outcome | None:
        """What the program's own `classify` says; where that fails, nothing: permits have to be settled all the same."""
        if self.classify is None:
            return None
        try:
            verdict = self.classify(result, error)
            if verdict is not None and not isinstance(verdict, Outcome):
                raise TypeError(f"classify: expected an Outcome or None, got {verdict!r}")
        except Exception as broken:  # noqa: BLE001 - counted and logged; the default outcome holds
            self.owner.classify_failed(broken)
            return None
        return verdict

    def is_timeout(self, error: BaseException) -> bool:
        """Whether `error` is a timer of the client library, which was told not to run longer than ours."""
        return False

    def refused(self, error: Exception) -> bool:
        """Whether `error` says that the attempt was not made, because something of our own did not let it."""
        return isinstance(error, Rejected)

    def unsent(self, error: Exception) -> bool:
        """Whether `error` says that an attempt cannot have had any effect."""
        return self.refused(error)

    def retryable(self, outcome: Outcome, error: BaseException | None) -> bool:
        """Whether another attempt is safe and may help. A plain function's effects are unknown, so: no."""
        return False

    def busy(self, result: Any) -> bool:
        """Whether the answer says that an earlier attempt, which was given up, is still being worked on."""
        return False

    def unwelcome(self, result: Any) -> bool:
        """Whether the answer says that another attempt at the same place is of no use."""
        return False

    def retry_after(self, result: Any, error: BaseException | None) -> float | None:
        """Seconds that the dependency asked to be left alone, or None."""
        return None

    def told(self, result: Any, error: BaseException | None, *, fields: bool) -> Told | None:
        """What an answer says about the dependency's own limits: a result with header fields, or an error's response."""
        answer = getattr(error, "response", None) if error is not None else result if self.headed else None
        status, field = getattr(answer, "status_code", None), getattr(getattr(answer, "headers", None), "get", None)
        if not isinstance(status, int) or field is None:
            return None
        return parse_told(status, field, time.time(), fields=fields)

    def turned_away(self, error: BaseException | None) -> bool:
        """Whether `error` is the refusal that this call itself met."""
        return error is not None and error is self._cut and isinstance(error, Rejected)

    def attach(self, result: Any, policy: Any, handle: Any) -> None:
        """Let whoever reads the answer find the handle that a policy has for it, where the answer can carry one."""

    def cause_of(self, result: Any, error: BaseException | None) -> str:
        """A word for logs, metrics and degradation records."""
        return cause_of(error) if error is not None else "result"

    async def keep(self, result: Any) -> bool:
        """Keep a failed answer for the case that no better one comes. False if it had to be thrown away."""
        return True

    def failure_of(self, result: Any) -> Exception:
        """An error that tells of a failed answer which could not be kept."""
        return ResilienceError("the answer could not be kept", dependency=self.owner.name or None)

    async def discard(self, result: Any) -> None:
        """Let go of a failed answer that nobody will read."""

    def degradable(self, error: Exception) -> bool:
        """Whether a fallback may stand in for an error that says nothing of the dependency."""
        return False

    @property
    def late(self) -> bool:
        return self._late is not None
