"""Pipeline: policies in the order written, outermost first, and the one runner of every call."""

from __future__ import annotations

import functools
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any, TypeVar, cast

import pybreaker

from ..call import Call, Classifier
from ..clock import SYSTEM_CLOCK, Clock
from ..context import DEADLINE
from ..core.outcome import Outcome
from ..core.propagation import Propagation
from ..events import Event
from ..outbox import Outbox
from ..protocols import Inner, Policy
from ..runtime import AsyncRuntime, SyncRuntime, drive
from ..stats import BATCH, CallStats
from ..waiters import Moment
from .collected import may_hold_locks
from .composing import compose
from .decorating import decorated
from .foreign import ForeignBreaker
from .mistakes import warn_of_mistakes
from .switch import chaos_allowed, switched_on

__all__ = ["Pipeline", "compose", "flatten"]

logger = logging.getLogger("resilient")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SUCCESS = Outcome.SUCCESS
# Filling in a bare instance costs half of what a call of its __init__ does.
_new = Call.__new__


class Pipeline:
    """Policies around a call.

    Args:
        policies: outermost first. Anything with `run(call, inner)` is one; a plain `pybreaker.CircuitBreaker` may
            stand where a breaker does; a pipeline stands for its policies.
        name: for errors, events and metrics.
        clock: what time is read from.
        classify: `classify(result, error)` returns an `Outcome`, or None to leave it to the default.
        outbox: where events go.
        chaos: whether a `Chaos` among the policies may act; by default `RESILIENT_CHAOS=1` in the environment says so.

    Raises:
        TypeError: something given is no policy, or a parameter is wrong, which the message names.
    """

    variant_of: Pipeline | None = None
    """The pipeline that it shares policies with."""
    template: str | None = None
    """The template of the paths that its requests go to, where it is the route of a dependency."""
    routes: Sequence[Pipeline] = ()
    """Pipelines of their own for some of its requests."""
    propagation: Propagation | None = None
    """Who is told how long requests have and how much they matter; None for nobody."""
    closing: Moment = Moment()
    """When its service takes on no new work: no attempt follows another one then. Outside a `Resilience` it never comes."""

    def __init__(
        self,
        *policies: Any,
        name: str = "",
        clock: Clock = SYSTEM_CLOCK,
        classify: Classifier | None = None,
        outbox: Outbox | None = None,
        chaos: bool | None = None,
    ) -> None:
        _check(name, clock, classify, outbox)
        self.name = name
        self.clock = clock
        self.classify = classify
        self.outbox: Outbox = Outbox() if outbox is None else outbox
        self.stats: CallStats = CallStats(clock.now)
        self.enabled: bool = switched_on()
        self.chaos: bool = chaos_allowed(chaos)
        self.policies: tuple[Policy, ...] = tuple(flatten(policies))
        self.settle_errors: int = 0
        self.classify_errors: int = 0
        self.abandoned: deque[Callable[[], None]] = deque()
        """What finalizers of dropped responses and calls left to be done by the next call; an entry for each of them."""
        self.runtime: AsyncRuntime = AsyncRuntime(clock)
        self.sync_runtime: SyncRuntime = SyncRuntime(clock)
        self._now = clock.now
        self._events = self.outbox.pending
        self._unusual = classify is not None
        self._around: tuple[Policy, ...] = ()
        self._entry, self._sync_entry = self._entries(self.policies)
        self.substitutes: bool = any(getattr(policy, "substitutes", False) for policy in self.policies)
        for policy in self.policies:
            join = getattr(policy, "join", None)
            if join is not None:
                join(self)
        warn_of_mistakes(self.policies, name)

    # -- calls ----------------------------------------------------------------------------------------------------

    async def call(self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Await `fn(*args, **kwargs)` under the policies.

        Raises:
            ResilienceError: a policy refused or cut the call. Whatever `fn` raises passes unchanged.
        """
        # `begin`, `open` and `close` written out: on the way of a call that succeeds each frame counts.
        if not self.enabled:
            return await fn(*args, **kwargs)
        call = _new(Call)
        call.owner = self
        call.runtime = self.runtime
        call.fn = fn
        call.args = args
        call.kwargs = kwargs
        held: list[tuple[Any, Any]] = []
        call.held = held
        call.plain = True
        call.repeatable = call.timed = False
        now = self._now
        call.started = started = now()
        inherited = DEADLINE.get()
        if inherited is not None or self._unusual or self.abandoned:
            self._start(call)
        try:
            result = await self._entry(call)
            outcome = SUCCESS if call.plain else call.outcome_of(result)
        except BaseException as error:
            self.close(call, call.outcome_of_error(error), error)
            raise
        durations = self.stats.successes
        if durations is None or not call.plain:
            self.close(call, outcome, None)
            return cast("T", result)
        ended = now()
        try:
            while held:
                policy, token = held.pop()
                policy.settle(token, SUCCESS, ended, None)
        except Exception as broken:  # noqa: BLE001 - counted and logged; the others' permits are given back all the same
            self.settle_failed(policy, broken)
            call.settle(0, SUCCESS, None)
        durations.append(ended - started)
        if len(durations) >= BATCH:
            self.stats.fold(ended)
        if self._events:
            self.outbox.flush()
        return cast("T", result)

    def call_sync(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call the plain function `fn` under the policies, on this thread."""
        if not self.enabled:
            return fn(*args, **kwargs)
        call = self.begin(fn, args, kwargs, sync=True)
        result = drive(self.open(call))
        self.close(call, call.outcome_of(result), None)
        return cast("T", result)

    def __call__(self, fn: F) -> F:
        """Decorate a function, plain or async, a generator, plain or async, or a method.

        Raises:
            TypeError: it is a class, or cannot be called.
        """
        return decorated(self, fn)

    def routed(self, method: str, url: Any) -> Pipeline:
        """The pipeline for a request: one of `routes`, or this one."""
        return self

    # -- the runner -----------------------------------------------------------------------------------------------

    def _start(self, call: Call) -> None:
        call.started = self._now()
        inherited = DEADLINE.get()
        if inherited is not None:
            call.inherit(inherited)
        if self.classify is not None:
            call.judge(self.classify)
        if self.abandoned:
            self.reclaim()

    def begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, sync: bool = False) -> Call:
        """A call whose answer will go on after `open` has returned."""
        return Call(self, self.sync_runtime if sync else self.runtime, fn, args, kwargs)

    async def open(self, call: Call) -> Any:
        """Run a call up to its answer. What it holds stays held until somebody calls `close`, exactly once."""
        self._start(call)
        try:
            return await (self._entry if call.runtime is self.runtime else self._sync_entry)(call)
        except BaseException as error:
            self.close(call, call.outcome_of_error(error), error)
            raise

    def close(self, call: Call, outcome: Outcome, error: BaseException | None, *, sampled: bool = True) -> None:
        """Settle all that a call still holds, count it, and tell listeners what happened on its way."""
        if error is not None and type(error) is GeneratorExit and may_hold_locks(sys._getframe(1).f_back):
            self._close_later(call, outcome)
            return
        if call.held:
            call.settle(0, outcome, error)
        if call._cut is not None:
            # Nobody asks any more, and its traceback holds every frame of whoever was on the way.
            call._cut = None
        if not call.counted:
            pass  # the call that fetched its answer was counted
        elif not outcome.counted:
            self.stats.record(call.elsewhere or "ignored" if call.degraded is None else "fallback", None, call.started)
        else:
            now = self._now()
            durations = self.stats.successes
            if sampled and outcome is SUCCESS and durations is not None:
                durations.append(now - call.started)
                if len(durations) >= BATCH:
                    self.stats.fold(now)
            else:
                self.stats.record(outcome.label, now - call.started if sampled else None, now)
        if error is not None:
            call.forget()
        if self._events:
            self.outbox.flush()

    def _close_later(self, call: Call, outcome: Outcome) -> None:
        """Let the next call settle what a coroutine held that is being collected. Takes no lock."""
        held, call.held = call.held, []

        def close() -> None:
            call.held = held
            self.close(call, outcome, None)

        self.abandoned.append(functools.partial(copy_context().run, close) if self.outbox.in_context else close)

    def reclaim(self) -> None:
        """Take back what dropped responses and calls held, as far as no event loop could do it."""
        while self.abandoned:
            try:
                reclaim = self.abandoned.popleft()
            except IndexError:  # another thread was quicker
                return
            reclaim()

    def look(self, call: Call) -> None:
        """Let policies see a call that is about to queue, perhaps behind calls that hang: none comes to them meanwhile."""
        for policy in self.policies:
            look = getattr(policy, "look", None)
            if look is not None:
                look(call)

    def swap(self, old: Policy, new: Policy) -> None:
        """Put `new` where `old` stands, for calls that begin from now on; those under way end as they began.

        The other policies stay the very same objects, with all that they have learnt and all that they hold.
        """
        policies = tuple(new if policy is old else policy for policy in self.policies)
        entry, sync_entry = self._entries(policies)
        join = getattr(new, "join", None)
        self.policies = policies
        if join is not None:
            join(self)
        self._entry, self._sync_entry = entry, sync_entry

    def surround(self, policy: Policy) -> None:
        """Put a policy that only watches around all the others, for calls that begin from now on. It is none of `policies`."""
        self._around = (policy, *self._around)
        self._entry, self._sync_entry = self._entries(self.policies)

    def _entries(self, policies: tuple[Policy, ...]) -> tuple[Inner, Inner]:
        chain = (*self._around, *policies)
        return compose(chain, self.runtime.attempt), compose(chain, self.sync_runtime.attempt)

    # -- events ---------------------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Queue an event for listeners; they are told once nothing is held any more."""
        self.outbox.post(event)

    def settle_failed(self, policy: Any, error: Exception) -> None:
        """A policy's `settle` raised: counted, logged, and kept from the other holders and from the caller."""
        self.settle_errors += 1
        logger.error("settle of %s failed", type(policy).__name__, exc_info=error, extra={"dependency": self.name})

    def classify_failed(self, error: Exception) -> None:
        """The program's `classify` raised: counted, logged once, and the default outcome holds."""
        self.classify_errors += 1
        if self.classify_errors == 1:
            logger.error("classify of %r failed; the default holds, further failures are only counted", self.name, exc_info=error)

    def reset(self) -> None:
        """Forget all that was learnt: windows, budgets, states, statistics. Calls under way are not touched."""
        for policy in self.policies:
            reset = getattr(policy, "reset", None)
            if reset is not None:
                reset()
        self.stats.reset()


def _check(name: Any, clock: Any, classify: Any, outbox: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name: expected a word such as 'catalog', got {name!r}")
    if not isinstance(clock, Clock):
        raise TypeError(f"clock: expected an object with now(), sleep(seconds) and wait(event, seconds), got {clock!r}")
    if classify is not None and not callable(classify):
        raise TypeError(f"classify: expected a function of result and error, got {classify!r}")
    if outbox is not None and not isinstance(outbox, Outbox):
        raise TypeError(f"outbox: expected an Outbox, got {outbox!r}")


def flatten(policies: tuple[Any, ...]) -> Iterator[Policy]:
    """What was given, as single policies."""
    for policy in policies:
        if isinstance(policy, Pipeline):
            yield from policy.policies
        elif isinstance(policy, Policy) and not isinstance(policy, type):
            yield policy
        elif isinstance(policy, pybreaker.CircuitBreaker):
            yield ForeignBreaker.of(policy)
        elif isinstance(policy, tuple | list):
            raise TypeError(f"policies: put a star in front of a {type(policy).__name__} of policies, as in Pipeline(*standard())")
        else:
            raise TypeError(f"policies: expected objects with run(call, inner), got {policy!r}")
