"""Failover: the same call to the next of several targets, once one does not answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import flag
from ..core.deadline import useful
from ..core.failover import share_of, worst
from ..core.outcome import Outcome
from ..errors import AllTargetsFailed, Rejected
from ..events import FailedOver
from .breaker import CircuitBreaker
from .composing import compose
from .mistakes import warn
from .shown import shown
from .target import Target, TargetPipeline

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["Failover"]


class Failover:
    """Ask the targets in order, and take the answer of the first one that gives one.

    A target is left when its own policies refuse the call (its circuit is open: it is skipped) or when it fails, and
    the call may be made again elsewhere: by the rules of Retry for HTTP (any method if nothing was sent or processed, or
    after 429; otherwise idempotent methods and requests with an `Idempotency-Key`), and always for functions, which are
    given targets for that very purpose. While another target could follow, one has no more than its share of the time
    that is left. Where the call may not be made again the failure is the caller's, as it was.

    The answer says who gave it: `response.extensions["target"]`.

    Args:
        targets: in order of preference: `Target`s, URLs, or functions.
        repeat: also make requests again that may have been acted upon, whatever their method. That is right for most
            LLM APIs, where a second completion costs money and changes nothing, and wrong for orders.

    Raises:
        AllTargetsFailed: from the call: none was left. `causes` says of each of them why.
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    __slots__ = ("_pipelines", "repeat", "targets")

    def __init__(self, *targets: Any, repeat: bool = False) -> None:
        flag("repeat", repeat)
        if not targets:
            raise ValueError("targets: expected at least one")
        self.targets: tuple[Target, ...] = tuple(Target.of(target) for target in targets)
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError(f"targets: each needs a name of its own, as by Target(name, ...), got {', '.join(names)}")
        self.repeat: bool = repeat
        self._pipelines: tuple[TargetPipeline, ...] = ()

    def __repr__(self) -> str:
        names = [target.name for target in self.targets]
        told = shown(self, targets=names, repeat=self.repeat)
        told.settings["targets"] = self.targets  # a name alone makes no target
        return told

    changeable: ClassVar[frozenset[str]] = frozenset({"repeat"})
    """Settings that `taking` can change at work; what is known of a target goes with it."""

    def taking(self, other: Failover, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; the targets stay."""

        def take() -> None:
            for name in names:
                setattr(self, name, getattr(other, name))

        return take

    def join(self, owner: Pipeline) -> None:
        """Name what is known of the targets after `owner`, and tell its listeners. The first owner is the one."""
        self._of(owner)
        if any(isinstance(policy, CircuitBreaker) for policy in owner.policies[owner.policies.index(self) :]):
            warn(owner.name, "the CircuitBreaker inside the Failover takes all targets for one: what one of them does opens it for all")

    @property
    def pipelines(self) -> tuple[TargetPipeline, ...]:
        """What is known of each target, in order; empty until this stands in a pipeline."""
        return self._pipelines

    def _of(self, owner: Pipeline) -> tuple[TargetPipeline, ...]:
        if not self._pipelines:
            self._pipelines = tuple(
                TargetPipeline(*target.policies, name=f"{owner.name or 'pipeline'}/{target.name}"[:100], within=owner)
                for target in self.targets
            )
        return self._pipelines

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.link(inner)(call)

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline, with each target's policies around the rest of it."""
        entries: list[Inner] = []

        async def step(call: Call) -> Any:
            pipelines = self._of(call.owner)
            if not entries:
                entries[:] = [compose(pipeline.policies, inner) for pipeline in pipelines]
            return await self._run(call, pipelines, entries)

        return step

    async def _run(self, call: Call, pipelines: tuple[TargetPipeline, ...], entries: list[Inner]) -> Any:
        left = None
        causes: list[Exception] = []
        outcomes: list[Outcome] = []
        try:
            for position, (target, pipeline) in enumerate(zip(self.targets, pipelines, strict=True)):
                branch = self._branch(call, target, pipeline, [other for other in pipelines[position + 1 :] if other.state != "open"])
                if left is not None:
                    self._report(call, *left, to=target.name)
                call.branches = (branch,)
                ended = await _attempt(branch, entries[position])
                if not self._moves_on(branch, *ended):
                    return self._answer(call, branch, target, *ended)
                result, error, outcome = ended
                if error is None:
                    await branch.keep(result)
                    error = branch.failure_of(result)
                left = target.name, branch.cause_of(result, error)
                branch.settle(0, outcome, error)
                await branch.abandon(None)
                causes.append(error)
                outcomes.append(outcome)
            if left is not None:
                self._report(call, *left, to="")
            raise self._none_left(call, causes, outcomes) from causes[-1]
        finally:
            call.branches = ()
            # Nothing that an error's traceback leads to may lead back to it.
            causes, ended, error, result = [], None, None, None  # type: ignore[assignment]

    def _branch(self, call: Call, target: Target, pipeline: TargetPipeline, others: list[TargetPipeline]) -> Call:
        """The call as this target gets it, with its share of the time."""
        branch = call.branch()
        now = branch.started = call.runtime.now()
        branch.owner = pipeline
        if call.owner.substitutes:
            branch.substituted = True
        branch.held.append((pipeline, branch))
        try:
            branch.aim(target, call.owner)
        except Exception as error:
            call.ignore(error)  # the target does not fit the call: the program's mistake
            raise
        if others and self._may_repeat(branch):
            limit = min(call.attempt_limit, call.attempt_timeout, share_of(call.deadline - now, len(others)))
            if limit != math.inf:
                branch.attempt_limit, branch.timed = limit, True
        return branch

    def _may_repeat(self, branch: Call) -> bool:
        """Whether the call may be made elsewhere after this target may have acted upon it."""
        return branch.movable(repeat=self.repeat)

    def _moves_on(self, branch: Call, result: Any, error: Exception | None, outcome: Outcome) -> bool:
        """Whether an end is reason enough for another target, and another may safely be asked."""
        if error is not None and branch.refused(error):
            return isinstance(error, Rejected)  # nothing was sent; but one's own full pool is full for every target
        if branch.late or not (outcome.failed or outcome is Outcome.THROTTLED):
            return False
        if not useful(0.0, branch.deadline - branch.runtime.now(), branch.min_useful):
            return False
        return self._may_repeat(branch) or branch.retryable(outcome, error)

    def _answer(self, call: Call, branch: Call, target: Target, result: Any, error: Exception | None, outcome: Outcome) -> Any:
        call.adopt(branch)
        if error is not None:
            try:
                raise error
            finally:
                del error
        return call.served_by(target, result)

    def _none_left(self, call: Call, causes: list[Exception], outcomes: list[Outcome]) -> AllTargetsFailed:
        waits = [wait for cause in causes if (wait := getattr(cause, "retry_after", None)) is not None]
        error = call.error(
            AllTargetsFailed,
            "no target answered: " + ", ".join(target.name for target in self.targets[: len(causes)]),
            policy="failover",
            reason="exhausted",
            retry_after=min(waits, default=None),
        )
        error.causes = tuple(causes)
        call.judge_error(error, worst(outcomes))
        return error

    @staticmethod
    def _report(call: Call, target: str, cause: str, *, to: str) -> None:
        owner = call.owner
        owner.post(FailedOver(at=call.runtime.now(), dependency=owner.name, target=target, to=to, cause=cause))

    def reset(self) -> None:
        """Forget what was learnt of the targets."""
        for pipeline in self._pipelines:
            pipeline.reset()


async def _attempt(branch: Call, entry: Callable[[Call], Awaitable[Any]]) -> tuple[Any, Exception | None, Outcome]:
    try:
        result = await entry(branch)
    except Exception as error:  # noqa: BLE001  # given to the caller, or told among the causes
        return None, error, branch.outcome_of_error(error)
    except BaseException as error:
        branch.settle(0, Outcome.IGNORED, error)
        await branch.abandon(None)
        raise
    return result, None, Outcome.SUCCESS if branch.plain else branch.outcome_of(result)
