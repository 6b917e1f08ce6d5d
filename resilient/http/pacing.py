"""The time that a request has: it stands still while a long body is being sent, and goes on when the server is waited for."""

from __future__ import annotations

import math
from typing import Any

import anyio

from ..call import Call
from ..context import Deadline
from ..core.bounds import positive
from ..core.outcome import Outcome
from ..errors import DeadlineExceeded
from ..runtime import cut_off
from .gate import WAITED

__all__ = ["PacedCall"]


class PacedCall(Call):
    """A call whose total does not count the time that its request takes to be sent."""

    probe: Any = None
    """The request's stream of the attempt being made, where it has to be watched."""
    read_limit: float | None = None
    """Seconds that one read may take, once it is no longer the attempt's deadline that says so."""
    inherited_limit: str = "caller"
    moved: float | None = None
    """When the body last moved, while it is being sent."""
    _due: tuple[float, str] = (math.inf, "total")
    _heir: PacedCall | None = None

    def _ask(self, limit: Any) -> None:
        """Keep to the limit that the request itself asks for: seconds in all, or a moment."""
        if isinstance(limit, Deadline):
            self.inherit(limit)
        elif limit is not None:
            positive("extensions['deadline']", limit)
            self.lower(self.runtime.now() + limit, "total")

    def inherit(self, deadline: Deadline) -> None:
        earlier = self.inherited
        super().inherit(deadline)
        if earlier <= self.inherited:
            self.inherited = earlier
        else:
            self.inherited_limit = "inbound" if deadline.inbound else "caller"

    def sending(self) -> None:
        """A piece of a long body is about to be sent: the total stands still, and the piece may take `idle` seconds.

        A deadline from outside does not stand still.
        """
        now = self.runtime.now()
        if self.moved is None:
            self._due = self.attempt_deadline, self.attempt_reason
        elif now >= self.attempt_deadline:
            raise cut_off(self, now)  # nothing interrupts a synchronous call
        else:
            self._stand_still(now - self.moved)
        self.moved = self.attempt_started = now
        self._end_at(*min((now + self._idle, "idle"), (self.inherited, self.inherited_limit)), now)

    def sent(self) -> None:
        """The body is out: the total goes on from where it stood."""
        now = self.runtime.now()
        if self.moved is not None:
            self._stand_still(now - self.moved)
            self.moved = None
            self._end_at(*self._due, now)

    def _stand_still(self, seconds: float) -> None:
        self.deadline, self.limit = self._later(self.deadline, self.limit, seconds)
        self._due = self._later(*self._due, seconds)

    def _later(self, deadline: float, limit: str, seconds: float) -> tuple[float, str]:
        if deadline + seconds <= self.inherited:
            return deadline + seconds, limit
        return self.inherited, self.inherited_limit

    def _end_at(self, deadline: float, reason: str, now: float) -> None:
        self.attempt_deadline, self.attempt_reason = deadline, reason
        if self.scope is not None:
            self.scope.deadline = anyio.current_time() + deadline - now

    @property
    def _idle(self) -> float:
        return math.inf if self.timeout is None else self.timeout.chunk_limit(first=False, silent=False)

    def time_for(self, operation: str) -> float:
        """Seconds that an operation on the connection which begins now may take."""
        if self._heir is not None:
            return self._heir.time_for(operation)
        if self.lost:
            return 0.0
        now = self.runtime.now()
        if operation == "pool" or self.queues:
            self.queueing(now, begins=operation == "pool")
        if operation == "write" and self.paced:
            return min(self._idle, self.inherited - now)
        return self.attempt_deadline - now if self.read_limit is None else self.read_limit

    def queueing(self, now: float, *, begins: bool) -> None:
        """The wait for a connection of our own pool begins or is over."""
        self.queues = begins
        self.attempt_started = now

    def cut(self, message: str, *, policy: str, reason: str, outcome: Outcome) -> DeadlineExceeded:
        if self.queues:
            message, policy, outcome = WAITED, "pool", Outcome.IGNORED
        elif self.probe is not None and self.probe.starved:
            outcome = Outcome.IGNORED  # the caller's own generator was making the next piece of the body
        return super().cut(message, policy=policy, reason=reason, outcome=outcome)
