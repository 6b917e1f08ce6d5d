"""One logical call on its way through a pipeline, and what it holds."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .context import Criticality, current_criticality
from .core.outcome import Outcome, outcome_of_cut, outcome_of_error
from .core.pushback import Told, parse_told
from .errors import DeadlineExceeded, Rejected, ResilienceError, cause_of
from .events import CallRejected, DeadlinePassed

if TYPE_CHECKING:
    from .context import Deadline
    from .core.breaker import Trial
    from .policies.pipeline import Pipeline
    from .policies.timeout import Timeout
    from .protocols import Runtime

__all__ = ["HANDLES", "Call"]

logger = logging.getLogger("resilient")
E = TypeVar("E", bound=ResilienceError)
Classifier = Callable[[Any, BaseException | None], "Outcome | None"]

INFINITY = math.inf
INBOUND_RESERVE = 0.005  # seconds kept back so that a degraded answer still reaches the client in time
SUCCESS = Outcome.SUCCESS
IGNORED = Outcome.IGNORED
HANDLES = "resilient.handles"  # the extension of a response that keeps the handles which policies have for it, by policy
OWN_LIMITS = ("attempt", "total")


class Call:
    """What is asked of a dependency, by when, and what the policies on its way hold for it.

    A subclass teaches the policies another kind of call: how to read its results and errors, whether it may be
    repeated, and how its answer is kept while a retry is considered.
    """

    # What every call has, or every runner reads, lives in slots; the rest are defaults on the class, so that a call
    # that needs none of them pays for none of them.
    __slots__ = ("__dict__", "args", "fn", "held", "kwargs", "owner", "plain", "repeatable", "runtime", "started", "timed")

    plain: bool
    """Whether a returned value is a success without looking at it."""
    repeatable: bool
    """Whether it is safe to make the call again after it may have been acted upon."""
    timed: bool
    """Whether the call, or an attempt of it, has a deadline."""
    headed: bool = False
    """Whether its answers have a status and header fields."""
    streamed: bool = False
    """Whether its answer is a generator and the first item, for those inside alone."""

    deadline: float = INFINITY
    """Absolute time by which the caller wants an answer; policies only ever lower it."""
    limit: str = "total"
    """Whose time limit `deadline` is: total, inbound or caller."""
    total: float | None = None
    """A shorter total than the policy's, asked for by this one call."""
    timeout: Timeout | None = None
    """The `Timeout` that applies; it says how long a chunk of the body may take."""
    attempt_timeout: float = INFINITY
    """Seconds for one attempt, as set by `Timeout`; in force only while another attempt may follow."""
    attempt_limit: float = INFINITY
    """Seconds for the attempt being made now."""
    attempt_started: float = 0.0
    attempt_deadline: float = INFINITY
    attempt_reason: str = "total"
    """Of the attempt being made now: when it began, when it must end, and whose limit that is."""
    inherited: float = INFINITY
    """The deadline from outside; unlike a total of our own it never waits for an upload."""
    paced: bool = False
    """Whether a long request body is being sent, for which the total stands still while bytes flow."""
    scope: Any = None
    home: Any = None
    """The cancel scope around the attempt, where somebody may want to move its end, and the event loop it belongs to."""
    cut_at: float = INFINITY
    """When the attempt ends because its circuit has opened."""
    answered: float = 0.0
    """When its answer began, so that what it still waits for is a body: a response's head, a generator's first item."""
    origin: str = ""
    """The origin that it goes to; empty for a plain function."""
    queues: bool = False
    """Whether it waits for a connection of our own pool, which says nothing of the dependency."""
    min_useful: float = 0.0
    attempts: int = 1
    queue_timeout: float | None = None
    """Seconds that the caller is ready to queue for a slot, where it said so."""
    classify: Classifier | None = None
    degraded: str | None = None
    """Why the answer is not the dependency's own, once a fallback was served."""
    error_types: Mapping[type[ResilienceError], type[ResilienceError]] = MappingProxyType({})
    request: Any = None
    """The HTTP request, where the call sends one."""
    once: bool = False
    """Whether the caller asked that it be made once at most: neither repeated nor hedged."""
    partition: str | None = None
    """Whose call it is (a tenant, a region), for policies that keep several states apart."""
    harms: Any = None
    """How a `Chaos` harms this kind of call."""
    _route: str | None = None
    _criticality: Criticality | None = None
    trial: Trial | None = None
    """The permit of a half-open circuit that the call was let through with, where it was."""
    _cut: BaseException | None = None
    _cut_outcome: Outcome = IGNORED
    _late: Outcome | None = None

    def __init__(self, owner: Pipeline, runtime: Runtime, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.owner = owner
        self.runtime = runtime
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.held: list[tuple[Any, Any]] = []
        self.started = 0.0
        self.plain = True
        self.repeatable = False
        self.timed = False

    # -- time -----------------------------------------------------------------------------------------------------

    def lower(self, deadline: float, limit: str) -> None:
        """Make the call end by `deadline`, unless it has to end earlier anyway. Infinity is no deadline."""
        if deadline == INFINITY:
            return
        self.timed = True
        if deadline < self.deadline:
            self.deadline = deadline
            self.limit = limit

    @property
    def waiting_since(self) -> float:
        """When the attempt that is being made began, as far as is known; infinite if it has not."""
        started = self.attempt_started or self.started
        return INFINITY if started == -INFINITY else started

    def inherit(self, deadline: Deadline) -> None:
        """Keep to a deadline from outside: of the inbound request (less a reserve for the reply) or of an outer call."""
        at = deadline.at
        runtime = self.runtime
        if deadline.clock is not runtime.clock and at != INFINITY:
            at = runtime.now() + deadline.remaining  # only differences between readings of one clock mean anything
        self.inherited = at - INBOUND_RESERVE if deadline.inbound else at
        self.lower(self.inherited, "inbound" if deadline.inbound else "caller")

    def judge(self, classify: Classifier) -> None:
        """Let `classify` look at every result and error."""
        self.classify = classify
        self.plain = False

    # -- what the caller says of it --------------------------------------------------------------------------------

    @property
    def route(self) -> str | None:
        """The template of the path that it goes to: as the caller said, else that of the dependency's route, else None."""
        return self.owner.template if self._route is None else self._route

    @property
    def criticality(self) -> Criticality:
        """How much it matters: as the caller said, else as the work it is part of."""
        return current_criticality() if self._criticality is None else self._criticality

    def mark(self, *, key: Literal["auto", "bare"] | None, number: bool) -> None:
        """Make attempts known to the dependency for what they are: by a key that they share, by their number."""

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
        if self._late is not None:
            return self._late
        if self.degraded is not None:
            return IGNORED
        return self.verdict(result, None) or SUCCESS

    def outcome_of_error(self, error: BaseException) -> Outcome:
        """What a raised error says of the dependency."""
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

    def retryable(self, outcome: Outcome, error: BaseException | None) -> bool:
        """Whether another attempt is safe and may help. A plain function's effects are unknown, so: no."""
        return False

    def busy(self, result: Any) -> bool:
        """Whether the answer says that an earlier attempt, which was given up, is still being worked on."""
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

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a function that stands in for the dependency is called with."""
        return self.args, self.kwargs

    def replacement(self, value: Any) -> Any:
        """Make a fallback's value into what this kind of call returns."""
        return value

    # -- holdings -------------------------------------------------------------------------------------------------

    def settle(self, mark: int, outcome: Outcome, error: BaseException | None) -> float | None:
        """Settle what is held above `mark`, newest first; each holder exactly once.

        Returns:
            The latest moment before which some holder says that another try is useless, or None.
        """
        held = self.held
        now = self.runtime.now()
        until = None
        while len(held) > mark:
            policy, token = held.pop()
            try:
                moment = policy.settle(token, outcome, now, error)
            except Exception as broken:  # noqa: BLE001 - counted and logged; the next holder must still be told
                self.owner.settle_failed(policy, broken)
            else:
                if moment is not None and (until is None or moment > until):
                    until = moment
        return until
