"""AdaptiveConcurrency: a bulkhead that finds out by itself how many calls its dependency bears."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import one_of, whole
from ..core.limiter import AIMD, DROPPED, FAILED, Samples, seen
from ..core.outcome import Outcome
from ..core.steering import SteadyGradient
from .bulkhead import Bulkhead, Watched
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["MOST", "AdaptiveConcurrency"]

OUTAGE = Outcome.OUTAGE
INITIAL = 20
MOST = 1000
SLACK = 1.5  # times the latency of now, which most calls take no longer than
LAWS = ("gradient2", "aimd")


class AdaptiveConcurrency(Bulkhead):
    """Limit the calls that are under way at the same time to what the dependency bears, as its latency shows.

    The limit grows while calls take no longer than usual and shrinks when they do, or when they are not answered at all
    (Netflix's concurrency-limits: Gradient2, or AIMD). It stays as it is while fewer than a half of it are under way.
    What counts is the time to a response's head, or to a generator's first item: how fast a body is read is the
    reader's affair. Waits for a slot or for a connection of our own pool do not count, nor do calls that say nothing of
    the dependency, nor how quick a failure was. Otherwise it is a `Bulkhead`, with its queue.

    Args:
        initial: the limit to begin with; by default 20, or what is nearest to it of the limits allowed.
        min_concurrent, max_concurrent: the limits never to leave.
        law: "gradient2" compares latencies; "aimd" takes one more after each good window and a tenth less after a bad
            one, for dependencies whose latency says nothing.
        tolerance: gradient2: how many times as long as usual is no sign of load.
        timeout: aimd: seconds; a window that takes longer is a bad one.
        queue: how many may wait.
        max_wait: seconds that one may wait; by default the request's own pool timeout, else 5. Never past the deadline.
        standing_after: seconds without an empty queue that make it a standing one.
        standing_wait: seconds that one may wait in a standing queue.
        enforce: False lets every call through, and reports those that would have been rejected. The limit moves all
            the same.

    Raises:
        BulkheadFull: from the call; its policy is "adaptive". The reason is full, waited or standing.
        DeadlineExceeded: the call's deadline came while it waited.
    """

    __slots__ = ("_acquire", "_given", "_law", "_release", "_samples", "needed")

    policy = "adaptive"

    def __init__(
        self,
        *,
        initial: int | None = None,
        min_concurrent: int = 1,
        max_concurrent: int = MOST,
        law: str = "gradient2",
        tolerance: float = 1.5,
        timeout: float = 5.0,
        queue: int = 1000,
        max_wait: float | None = None,
        standing_after: float = 1.0,
        standing_wait: float = 0.05,
        enforce: bool = True,
    ) -> None:
        whole("min_concurrent", min_concurrent)
        whole("max_concurrent", max_concurrent, least=min_concurrent)
        asked = initial
        if initial is None:
            initial = min(max(INITIAL, min_concurrent), max_concurrent)
        whole("initial", initial, least=min_concurrent)
        if initial > max_concurrent:
            raise ValueError(f"initial must be at most max_concurrent, {max_concurrent}, not {initial}")
        one_of("law", law, LAWS)
        super().__init__(
            max_concurrent=initial,
            queue=queue,
            max_wait=max_wait,
            standing_after=standing_after,
            standing_wait=standing_wait,
            enforce=enforce,
        )
        given = {"min_concurrent": min_concurrent, "max_concurrent": max_concurrent, "law": law, "tolerance": tolerance}
        self._given: dict[str, Any] = {"initial": asked, **given, "timeout": timeout}
        # Both are made, so that a setting is checked whichever law it is for.
        gradient2 = SteadyGradient(initial=initial, least=min_concurrent, most=max_concurrent, tolerance=tolerance)
        aimd = AIMD(initial=initial, least=min_concurrent, most=max_concurrent, timeout=timeout)
        self._law: SteadyGradient | AIMD = gradient2 if law == "gradient2" else aimd
        self._samples = Samples()
        self.needed: float = 0.0
        self._acquire, self._release = self._lock.acquire, self._lock.release

    def __repr__(self) -> str:
        return shown(self, **self._given, **self._queueing())

    changeable: ClassVar[frozenset[str]] = Bulkhead.changeable | {"min_concurrent", "tolerance", "timeout"}
    """Settings that `taking` can change at work."""

    def _resized(self, other: Bulkhead, names: Collection[str]) -> list[Any]:
        assert isinstance(other, AdaptiveConcurrency)
        for name in names:
            if name in self._given:
                self._given[name] = other._given[name]
        law = self._law
        law.bound(self._given["min_concurrent"], self._given["max_concurrent"])
        if isinstance(law, AIMD):
            law.timeout = self._given["timeout"]
        else:
            law.tolerance = self._given["tolerance"]
        return [] if law.limit == self._slots.limit else self._slots.resize(law.limit)

    @property
    def largest(self) -> int:
        """The limit that it never goes beyond."""
        return self._law.most

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline, with `Slots.try_acquire` written out."""
        slots, samples, acquire, release = self._slots, self._samples, self._acquire, self._release
        unmeasured = (self, None)

        def step(call: Call) -> Awaitable[Any]:
            acquire()
            try:
                free = slots.in_use < slots.limit and not slots.queued
                if free:
                    slots.in_use += 1
            finally:
                release()
            if free:
                call.held.append((self, (call, call.runtime.now())) if samples.wanted else unmeasured)
                return inner(call)
            return self._run_queued(call, inner)

        return step

    def _token(self, call: Call) -> Any:
        return call, call.runtime.now()

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> None:
        slots, samples = self._slots, self._samples
        if token is None:
            # Where calls are many, nearly all end here: one round of the lock and the slot is given back.
            self._acquire()
            try:
                alone = now < samples.due and not slots.queued and slots.in_use > 0
                if alone:
                    slots.in_use -= 1
            finally:
                self._release()
            if alone:
                return
        elif outcome.counted and self._measured(token, outcome, now):
            return
        self._steer(now)
        super().settle(token if type(token) is Watched else None, outcome, now, error)

    def _measured(self, token: Any, outcome: Outcome, now: float) -> bool:
        """Take a sample. True if the slot could be given back at the same time."""
        slots, samples = self._slots, self._samples
        watched = type(token) is Watched
        call, began = (token.call, token.call.started) if watched else token
        duration = FAILED
        if outcome is OUTAGE:
            duration = DROPPED
        elif not outcome.failed:
            # An attempt with a deadline knows itself when it began, be it after a wait for a connection.
            duration = (call.answered or now) - (call.attempt_started or began)
        with self._lock:
            samples.add(duration, slots.in_use if self.enforce else slots.in_use + slots.queued)
            alone = now < samples.due and not slots.queued and slots.in_use > 0 and not watched
            if alone:
                slots.in_use -= 1
        return alone

    def _steer(self, now: float) -> None:
        """Move the limit, if a window is over."""
        samples, law, slots = self._samples, self._law, self._slots
        with self._lock:
            if not samples.over(now):
                return
            over = samples.turn(now)
        window = seen(*over)
        with self._lock:
            if window.rtt is not None:
                samples.lengthen(window.mean)
                self.needed = SLACK * window.rtt
            limit = law.decide(window)
            granted = [] if limit == slots.limit else slots.resize(limit)
        self._queue.wake(granted, now)

    def reset(self) -> None:
        """Begin anew with the limit. Slots in use belong to calls that are under way and give them back themselves."""
        with self._lock:
            self._law.clear()
            self._samples.clear()
            self.needed = 0.0
            granted = self._slots.resize(self._law.limit)
        self._queue.wake(granted, 0.0)
