"""One logical call on its way through a pipeline, and what it holds."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

from .context import PARTITION, Criticality, current_criticality
from .core.outcome import Outcome
from .judged import Classifier, Judged

if TYPE_CHECKING:
    from .context import Deadline
    from .core.breaker import Trial
    from .policies.pipeline import Pipeline
    from .policies.target import Target
    from .policies.timeout import Timeout
    from .protocols import Runtime

__all__ = ["HANDLES", "Call", "Classifier"]

logger = logging.getLogger("resilient")

INFINITY = math.inf
INBOUND_RESERVE = 0.005  # seconds kept back so that a degraded answer still reaches the client in time
HANDLES = "resilient.handles"  # the extension of a response that keeps the handles which policies have for it, by policy
# What a branch may have of its own, and its call does not take over from it.
BRANCH_ONLY = frozenset(
    {"__dict__", "args", "branches", "fn", "held", "kwargs", "owner", "repeatable", "request", "runtime", "scope", "started"}
)


@functools.cache
def _slots(kind: Any) -> tuple[str, ...]:
    return tuple(name for base in kind.__mro__ for name in vars(base).get("__slots__", ()) if name != "__dict__")


class Call(Judged):
    """What is asked of a dependency, by when, and what the policies on its way hold for it.

    A subclass teaches the policies another kind of call: how to read its results and errors, whether it may be
    repeated, and how its answer is kept while a retry is considered.
    """

    # What every call has, or every runner reads, lives in slots; the rest are defaults on the class, so that a call
    # that needs none of them pays for none of them.
    __slots__ = ("args", "fn", "held", "kwargs", "repeatable", "started", "timed")

    repeatable: bool
    """Whether it is safe to make the call again after it may have been acted upon."""
    timed: bool
    """Whether the call, or an attempt of it, has a deadline."""
    streamed: bool = False
    """Whether its answer is a generator and the first item, for those inside alone."""

    deadline: float = INFINITY
    """Absolute time by which the caller wants an answer; policies only ever lower it."""
    limit: str = "total"
    """Whose time limit `deadline` is: total, inbound or caller."""
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
    response: Any = None
    """Of HTTP: the answer that is open now; whoever leaves it without handing it on has to close it."""
    request: Any = None
    """The HTTP request, where the call sends one."""
    once: bool = False
    """Whether the caller asked that it be made once at most: neither repeated nor hedged."""
    uncached: bool = False
    """Whether the caller asked that no cache take part."""
    caching: Any = None
    """How a `Cache` deals with this kind of call; None for one that it has nothing to do with."""
    _partition: str | None = None
    harms: Any = None
    """How a `Chaos` harms this kind of call."""
    _route: str | None = None
    _criticality: Criticality | None = None
    substituted: bool = False
    """Whether a pipeline further out serves something in its place, should it fail: its target's own knows of none."""
    branches: tuple[Call, ...] = ()
    """The calls that are out in its place now: of a race, of a target."""
    trial: Trial | None = None
    """The permit of a half-open circuit that the call was let through with, where it was."""

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
    def waiting_since(self) -> float | None:
        """When the attempt that is being made began, as far as is known; infinite if it has not, None if it does not wait for
        the dependency: its answer has begun, or it queues for a connection of ours. Of several attempts the oldest.
        """
        branches = self.branches
        if branches:
            return min((since for branch in branches if (since := branch.waiting_since) is not None), default=None)
        if self.answered or self.queues:
            return None
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

    @property
    def partition(self) -> str | None:
        """Whose call it is (a tenant, a region): as the caller said, else as the work it is part of."""
        return PARTITION.get() if self._partition is None else self._partition

    def mark(self, *, key: Literal["auto", "bare"] | None, number: bool) -> None:
        """Make attempts known to the dependency for what they are: by a key that they share, by their number."""

    def detach(self) -> None:
        """Make this branch go on without its caller: his limits are not its own."""
        self.deadline = self.inherited = INFINITY
        self.limit = "total"
        self.timed = False

    # -- branches -------------------------------------------------------------------------------------------------

    def branch(self) -> Self:
        """A call for the same thing that holds nothing yet: of several at a time, or of several targets."""
        twin: Self = object.__new__(type(self))
        # Each slot by its name: to look them up takes longer than all the rest.
        twin.owner, twin.runtime, twin.fn, twin.args, twin.kwargs = self.owner, self.runtime, self.fn, self.args, self.kwargs
        twin.started, twin.plain, twin.repeatable, twin.timed = self.started, self.plain, self.repeatable, self.timed
        twin.__dict__ = self.__dict__.copy()
        twin.held = []
        twin.scope = twin.trial = twin._cut = None
        twin.branches = ()
        return twin

    def adopt(self, branch: Call) -> None:
        """Go on as a branch whose end is this call's: what it holds, and what it knows of its answer."""
        kind: Any = type(branch)
        for name in _slots(kind):
            if name not in BRANCH_ONLY:
                setattr(self, name, getattr(branch, name))
        self.__dict__.update({name: value for name, value in branch.__dict__.items() if name not in BRANCH_ONLY})
        self.held += branch.held
        branch.held = []
        if not branch.answered:
            branch.answered = self.runtime.now()  # for those who know the branch: what may still come is a body

    def aim(self, target: Target, owner: Pipeline) -> None:
        """Make this branch a call of one of the targets of `owner`.

        Raises:
            TypeError: it is another kind of call than the target is for.
        """
        if target.rewrites_requests:
            raise TypeError(f"target {target.name!r} rewrites HTTP requests, and this is a call of {self.fn!r}")
        if target.function is not None:
            self._call_instead(target.function)
        if target.arguments:
            self.kwargs = {**self.kwargs, **target.arguments}

    def _call_instead(self, function: Callable[..., Any]) -> None:
        self.fn = function

    def movable(self, *, repeat: bool) -> bool:
        """Whether the call may be made again elsewhere after it may have been acted upon; `repeat` for "yes, if at all"."""
        return True

    def served_by(self, target: Target, result: Any) -> Any:
        """The answer of `target`, which says so if it can."""
        return result

    def hedgeable(self) -> bool:
        """Whether the call may be made twice at a time. Of a function it is known: somebody put a Hedge around it."""
        return True

    async def abandon(self, result: Any) -> None:
        """Let go of an answer, if there is one, that nobody will read because another one was quicker."""
        if result is not None:
            await self.discard(result)

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
