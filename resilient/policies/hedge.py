"""Hedge: a second attempt beside one that is slow; the first good answer wins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import flag, not_negative, whole
from ..core.hedge import Heat, delay_of, is_good
from ..core.outcome import Outcome
from ..errors import Rejected
from ..events import HedgeDecided
from ..runtime import cut_off, expendable
from .retry import Retry, RetryBudget
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..core.budget import Grant
    from ..protocols import Inner
    from ..race import Entrant, Race
    from .pipeline import Pipeline

__all__ = ["Hedge"]

TICK = 0.001  # seconds; less than a timer can tell apart


class Hedge:
    """Send a second attempt when the first one is slower than most, and take whichever good answer comes first.

    Of HTTP only GET, HEAD, OPTIONS and QUERY are hedged, with a body that is in memory. A function is hedged because a
    Hedge was put around it: it then runs in a task of its own (a plain one in a thread) and perhaps twice at a time.

    An error or a failed answer never wins while another attempt is out; if all fail, the first attempt's end is the
    call's. The others are cancelled and their answers closed, their outcomes are ignored, and nobody waits for them.

    Args:
        delay: seconds until the second attempt. By default what 95 % of the dependency's calls of late were answered in
            (rounded up by at most an eighth; at least 1 ms), and none before 20 of them are known.
        max_hedges: how many attempts beside the first one, `delay` apart.
        budget: limit on hedges. By default that of the pipeline's Retry, whose retries it limits too, else a new one.
        after_failure: start the next attempt as soon as one fails (gRPC's proposal A6), rather than leave failures to
            a Retry around it and its pauses.
        enforce: False reports the hedges that would have been sent, and sends none.

    Raises:
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    __slots__ = ("_deposits", "_given", "_own", "after_failure", "budget", "delay", "enforce", "max_hedges")

    def __init__(
        self,
        *,
        delay: float | None = None,
        max_hedges: int = 1,
        budget: RetryBudget | None = None,
        after_failure: bool = False,
        enforce: bool = True,
    ) -> None:
        if delay is not None:
            not_negative("delay", delay)
        whole("max_hedges", max_hedges)
        if budget is not None and not isinstance(budget, RetryBudget):
            raise TypeError(f"budget: expected a RetryBudget, got {budget!r}")
        flag("after_failure", after_failure)
        flag("enforce", enforce)
        self.delay: float | None = delay
        self.max_hedges: int = max_hedges
        self.budget: RetryBudget = RetryBudget() if budget is None else budget
        self.after_failure: bool = after_failure
        self.enforce: bool = enforce
        self._given = budget
        self._own = budget is None
        self._deposits = True

    def __repr__(self) -> str:
        rest = {"after_failure": self.after_failure, "enforce": self.enforce}
        return shown(self, delay=self.delay, max_hedges=self.max_hedges, budget=self._given, **rest)

    changeable: ClassVar[frozenset[str]] = frozenset({"delay", "max_hedges", "after_failure", "enforce"})
    """Settings that `taking` can change at work."""

    def taking(self, other: Hedge, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; the budget stays."""

        def take() -> None:
            for name in names:
                setattr(self, name, getattr(other, name))

        return take

    def join(self, owner: Pipeline) -> None:
        """Share the budget of the pipeline's Retry, and tell the time by its clock."""
        retry = next((policy for policy in owner.policies if isinstance(policy, Retry)), None)
        if retry is not None and self._own:
            self.budget, self._own = retry.budget, False
        if retry is not None and retry.budget is self.budget:
            self._deposits = False  # the Retry counts the calls
        self.budget.clock = owner.clock

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        if self._deposits and call.attempts == 1:
            self.budget.of(call).deposit()
        if call.once or not call.hedgeable():
            return inner(call)
        delay = delay_of(call.owner.stats.lately_p95(call.runtime.now())) if self.delay is None else self.delay
        if delay is None:
            return inner(call)
        return self._hedged(call, inner, delay) if self.enforce else self._watched(call, inner, delay)

    async def _watched(self, call: Call, inner: Inner, delay: float) -> Any:
        """Shadow mode: look at the time afterwards."""
        began = call.runtime.now()
        try:
            return await inner(call)
        finally:
            if call.runtime.now() - began >= delay:
                _report(call, "shadow", delay)

    async def _hedged(self, call: Call, inner: Inner, delay: float) -> Any:
        race = call.runtime.race()
        branch = call.branch()
        first = None if race is None else race.enter(branch, inner)
        if race is None or first is None:
            return await inner(call)
        call.branches = (branch,)
        if expendable(call):
            call.scope, call.home, call.attempt_started = race, race.home, call.runtime.now()
        heat = Heat(call.runtime.now(), delay, self.max_hedges, latest=call.deadline - call.min_useful, after_failure=self.after_failure)
        run = _Run(self, call, inner, race, heat, delay, first)
        try:
            winner = await run.winner()
        except BaseException:
            run.report(None)
            await race.abandon()
            raise
        finally:
            call.scope, call.branches = None, ()
        race.close(winner)
        run.report(winner)
        if winner is None:
            raise cut_off(call, call.runtime.now())
        call.adopt(winner.call)
        if winner is first and run.until is not None:
            call.held.append((self, run.until))
        error, winner.error = winner.error, None
        try:
            if error is None:
                return winner.value
            raise error
        finally:
            # Nothing that an error's traceback leads to may lead back to it.
            del error

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> float | None:
        """The moment before which another try is useless, as was said when the attempts that failed were settled."""
        until: float = token
        return until

    def reset(self) -> None:
        """A fresh budget."""
        self.budget.reset()


class _Run:
    """One hedged call: its race, and the hedges that were sent."""

    __slots__ = ("call", "delay", "first", "heat", "hedges", "inner", "paid", "policy", "race", "until")

    def __init__(self, policy: Hedge, call: Call, inner: Inner, race: Race, heat: Heat, delay: float, first: Entrant) -> None:
        self.policy = policy
        self.call = call
        self.inner = inner
        self.race = race
        self.heat = heat
        self.delay = delay
        self.first = first
        self.hedges: list[tuple[Entrant, str]] = []
        self.paid: dict[Entrant, tuple[RetryBudget, Grant]] = {}
        self.until: float | None = None

    async def winner(self) -> Entrant | None:
        """Whose end is the call's; None where it was ended itself, for its circuit has opened."""
        call, heat, runtime = self.call, self.heat, self.call.runtime
        while heat.due <= (now := runtime.now()):
            self._send(now)  # with no delay nobody waits for the first one even to begin
        while True:
            entrant = await self.race.next(min(heat.due, call.cut_at))
            if entrant is None:
                now = runtime.now()
                if call.cut_at <= now + TICK:
                    return None
                if heat.due <= now + TICK:
                    self._send(now)
            elif self._wins(entrant):
                return entrant
            if heat.over:
                return self.first

    def _send(self, now: float) -> None:
        call, policy = self.call, self.policy
        if call.owner.closing.is_set():
            refusal = "draining"
        elif any(getattr(one, "queued", 0) for one in call.owner.policies):
            refusal = "queue"  # it would stand in line behind those who wait already, and make the line longer
        elif (grant := (budget := policy.budget.of(call)).withdraw(now)) is None:
            refusal = "budget"
        else:
            branch = call.branch()
            hedge = self.race.enter(branch, self.inner)
            if hedge is not None:
                call.branches = (*call.branches, branch)
                self.hedges.append((hedge, ""))
                self.paid[hedge] = budget, grant
                self.heat.started(now)
                return
            budget.refund(grant, now)
            refusal = "threads"
        self.heat.stop()
        _report(call, refusal, self.delay)

    def _wins(self, entrant: Entrant) -> bool:
        """Whether an end is the call's. One that is not is settled, so far as it is no answer that may yet be wanted."""
        branch, error, now = entrant.call, entrant.error, self.call.runtime.now()
        result = "failed"
        if error is None:
            outcome = Outcome.SUCCESS if branch.plain else branch.outcome_of(entrant.value)
            if is_good(outcome, late=branch.late, degraded=branch.degraded is not None):
                return True
            entrant.outcome = outcome
        elif not isinstance(error, Exception):
            return True  # a cancellation of its own making, or the end of the program
        else:
            outcome = branch.outcome_of_error(error)
            result = "rejected" if isinstance(error, Rejected) else result
            if entrant in self.paid and branch.turned_away(error):
                budget, grant = self.paid[entrant]
                budget.refund(grant, now)
            until = branch.settle(0, outcome, error)
            if until is not None:
                self.until = until if self.until is None else max(self.until, until)
        self.call.branches = tuple(other for other in self.call.branches if other is not branch)
        self.hedges = [(hedge, result if hedge is entrant else known) for hedge, known in self.hedges]
        self._note_failure(branch, entrant, outcome, now)
        return False

    def _note_failure(self, branch: Call, entrant: Entrant, outcome: Outcome, now: float) -> None:
        heat = self.heat
        retry_after = branch.retry_after(entrant.value, entrant.error)
        awaited = heat.left and (heat.out > 1 or heat.due < float("inf"))
        heat.failed(now, retry_after=retry_after, mendable=outcome.failed or outcome is Outcome.THROTTLED)
        if awaited and retry_after is not None and heat.due == float("inf"):
            _report(self.call, "pushback", self.delay)

    def report(self, winner: Entrant | None) -> None:
        """Tell how each hedge has ended; without a winner, with its caller."""
        unended = "cancelled" if winner is None else "lost"
        for hedge, failure in self.hedges:
            _report(self.call, "won" if hedge is winner else failure or unended, self.delay)


def _report(call: Call, result: str, delay: float) -> None:
    owner = call.owner
    owner.post(HedgeDecided(at=call.runtime.now(), dependency=owner.name, result=result, delay=delay))
