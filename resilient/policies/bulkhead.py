"""Bulkhead: how many calls to one dependency may be under way at the same time."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import flag, not_negative, whole
from ..core.bulkhead import Slots
from ..core.outcome import Outcome
from ..errors import BulkheadFull
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Runtime, Waiter

__all__ = ["DEFAULT_LIMIT", "Bulkhead", "SlotQueue"]

DEFAULT_LIMIT = 100


class SlotQueue:
    """Slots shared by threads and event loops: a count, and a first-in-first-out queue in front of it.

    The lock is held for a handful of assignments; a waiter is granted its slot under it and woken outside it, through
    its own event loop or thread.
    """

    __slots__ = ("_acquire", "_release", "lock", "slots")

    def __init__(self, slots: Slots, lock: Any = None) -> None:
        self.slots = slots
        self.lock: threading.Lock = threading.Lock() if lock is None else lock
        self._acquire, self._release = self.lock.acquire, self.lock.release

    def try_acquire(self) -> bool:
        with self.lock:
            return self.slots.try_acquire()

    def release(self, now: float) -> None:
        """Give a slot back: to the waiter who has waited longest, if any."""
        slots = self.slots
        self._acquire()
        try:
            alone = not slots.queued and slots.in_use > 0
            if alone:
                slots.in_use -= 1
        finally:
            self._release()
        if alone:
            return
        while True:
            with self.lock:
                waiter: Any = self.slots.release(now)
            # A waiter whose event loop is gone cannot take it; the slot that it was granted is given back again.
            if waiter is None or waiter.wake() or not self.give_back(waiter):
                return

    def give_back(self, turn: Turn) -> bool:
        """Whether whoever asks is the one to release the slot that a waiter was granted, of all who may: exactly one."""
        with self.lock:
            mine, turn.given_back = not turn.given_back, True
        return mine

    def wake(self, granted: list[Any], now: float) -> None:
        """Wake waiters that were granted a slot each; called outside the lock."""
        for waiter in granted:
            if not waiter.wake() and self.give_back(waiter):
                self.release(now)

    async def acquire(self, runtime: Runtime, max_wait: float, deadline: float) -> str | None:
        """Wait for a slot. Returns None with one, or the reason why there is none: full, waited, standing, deadline."""
        joined = runtime.now()
        turn = Turn(runtime.waiter()) if max_wait > 0 else None
        with self.lock:
            if self.slots.try_acquire():
                return None
            limit = self.slots.wait_limit(joined, max_wait)
            if turn is None or not self.slots.enqueue(turn, joined):
                return "full"
        until = min(joined + limit, deadline)
        try:
            if await runtime.wait(turn.waiter, until):
                return None
        except BaseException:
            if not self.leave(turn) and self.give_back(turn):
                self.release(runtime.now())  # the grant came together with the cancellation: pass it on
            raise
        if not self.leave(turn):
            return None  # granted in the same moment: the slot is ours
        if until == deadline:
            return "deadline"
        return "standing" if limit < max_wait else "waited"

    def leave(self, waiter: Turn | Watched) -> bool:
        """Leave the queue. False if the waiter was granted a slot, which it must give back."""
        with self.lock:
            return self.slots.leave(waiter)

    def watch(self, call: Call, max_wait: float) -> Watched | None:
        """Take a place in the queue for a call that does not wait, or a slot that has become free; None if it is full."""
        now = call.runtime.now()
        with self.lock:
            limit = self.slots.wait_limit(now, max_wait)
            watched = Watched(call, now + limit, "standing" if limit < max_wait else "waited")
            if self.slots.try_acquire():
                watched.wake()
            elif not self.slots.enqueue(watched, now):
                return None
        return watched


class Turn:
    """A waiter's place in the line."""

    __slots__ = ("given_back", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.given_back = False

    def wake(self) -> bool:
        return self.waiter.wake()


class Watched:
    """A call that runs although it should be waiting."""

    __slots__ = ("_granted", "_reason", "_until", "call")

    def __init__(self, call: Call, until: float, reason: str) -> None:
        self.call = call
        self._until = until
        self._reason = reason
        self._granted: float | None = None

    def wake(self) -> bool:
        self._granted = self.call.runtime.now()
        return True

    def report(self, now: float, policy: str) -> None:
        """Tell of the rejection that there would have been, had the call not got its slot in time."""
        if (now if self._granted is None else self._granted) > self._until:
            self.call.report_rejection(policy, self._reason, enforced=False)


class Bulkhead:
    """Limit the calls that are under way at the same time, and queue a burst.

    A burst may queue; a standing queue may not: once the queue has not been empty for `standing_after`, a waiter leaves
    after `standing_wait` (the controlled-delay queue of "Fail at Scale", ACM Queue 2015, with wider constants), for a
    queue that never empties only delays the collapse. A slot follows a streamed body to its end.

    Args:
        max_concurrent: slots.
        queue: how many may wait.
        max_wait: seconds that one may wait; by default the request's own pool timeout, else 5. Never past the deadline.
        standing_after: seconds without an empty queue that make it a standing one.
        standing_wait: seconds that one may wait in a standing queue.
        enforce: False lets every call through. Those beyond the limit stand in the queue while they run, and the ones
            that would have been rejected are reported: at once where the queue is full, else at their end.

    Raises:
        BulkheadFull: from the call. The reason is full, waited or standing.
        DeadlineExceeded: the call's deadline came while it waited.
    """

    __slots__ = ("_lock", "_queue", "_slots", "enforce", "max_wait")

    policy = "bulkhead"
    """What errors, events and metrics call it."""
    needed: float = 0.0
    """Seconds that must be left before the deadline for a wait to be of use."""

    def __init__(
        self,
        *,
        max_concurrent: int = DEFAULT_LIMIT,
        queue: int = 1000,
        max_wait: float | None = None,
        standing_after: float = 1.0,
        standing_wait: float = 0.05,
        enforce: bool = True,
    ) -> None:
        whole("max_concurrent", max_concurrent)
        flag("enforce", enforce)
        if max_wait is not None:
            not_negative("max_wait", max_wait)
        self._slots = Slots(max_concurrent, queue, standing_after, standing_wait)
        self._queue = SlotQueue(self._slots)
        self._lock = self._queue.lock
        self.max_wait: float | None = max_wait
        self.enforce: bool = enforce

    def __repr__(self) -> str:
        return shown(self, max_concurrent=self.limit, **self._queueing())

    def _queueing(self) -> dict[str, Any]:
        slots = self._slots
        standing = {"standing_after": slots.standing_after, "standing_wait": slots.standing_wait}
        return {"queue": slots.queue, "max_wait": self.max_wait, **standing, "enforce": self.enforce}

    changeable: ClassVar[frozenset[str]] = frozenset({"max_concurrent", "queue", "max_wait", "standing_after", "standing_wait", "enforce"})
    """Settings that `taking` can change at work."""

    def taking(self, other: Bulkhead, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; slots in use and places in the line stay with those who have them."""

        def take() -> None:
            slots = self._slots
            for name in names:
                if name in ("max_wait", "enforce"):
                    setattr(self, name, getattr(other, name))
            with self._lock:
                for name in names:
                    if name in ("queue", "standing_after", "standing_wait"):
                        setattr(slots, name, getattr(other._slots, name))
                granted = self._resized(other, names)
            # A slot that a waiter cannot take (its event loop is gone) goes to the next one, whose wait is not judged by now.
            self._queue.wake(granted, 0.0)

        return take

    def _resized(self, other: Bulkhead, names: Collection[str]) -> list[Any]:
        """Those who are granted a slot by another limit. The lock is held."""
        return self._slots.resize(other._slots.limit) if "max_concurrent" in names else []

    @property
    def in_use(self) -> int:
        """Slots taken now."""
        return self._slots.in_use

    @property
    def queued(self) -> int:
        """Calls waiting now."""
        return self._slots.queued

    @property
    def limit(self) -> int:
        return self._slots.limit

    @property
    def largest(self) -> int:
        """The limit that it never goes beyond."""
        return self._slots.limit

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.link(inner)(call)

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline, with `Slots.try_acquire` written out."""
        slots, acquire, release = self._slots, self._lock.acquire, self._lock.release
        holding = (self, None)

        def step(call: Call) -> Awaitable[Any]:
            # `with` looks a lock's methods up on its type each time, and takes more than twice as long.
            acquire()
            try:
                free = slots.in_use < slots.limit and not slots.queued
                if free:
                    slots.in_use += 1
            finally:
                release()
            if free:
                call.held.append(holding)
                return inner(call)
            return self._run_queued(call, inner)

        return step

    async def _run_queued(self, call: Call, inner: Inner) -> Any:
        call.owner.look(call)
        if not self.enforce:
            return await self._run_watched(call, inner)
        runtime = call.runtime
        max_wait = self._max_wait(call) if runtime.may_wait() else 0.0
        refusal = await self._queue.acquire(runtime, max_wait, call.deadline - self.needed)
        if refusal is None:
            call.held.append((self, self._token(call)))
            return await inner(call)
        if refusal == "deadline":
            raise call.cut("the deadline came while waiting for a slot", policy=self.policy, reason=call.limit, outcome=Outcome.IGNORED)
        raise call.reject(BulkheadFull, f"all {self.limit} slots are taken ({refusal})", policy=self.policy, reason=refusal)

    def _token(self, call: Call) -> Any:
        """What a call is settled with that has a slot."""
        return None

    def _run_watched(self, call: Call, inner: Inner) -> Awaitable[Any]:
        """Shadow mode: the call runs while it stands in the queue for its slot."""
        watched = self._queue.watch(call, self._max_wait(call))
        if watched is None:
            call.report_rejection(self.policy, "full", enforced=False)
        else:
            call.held.append((self, watched))
        return inner(call)

    def _max_wait(self, call: Call) -> float:
        if self.max_wait is not None:
            return self.max_wait
        return 5.0 if call.queue_timeout is None else call.queue_timeout

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> None:
        if token is None:
            self._queue.release(now)
            return
        # Shadow mode: the call may have got the slot meanwhile that it stood in the queue for.
        if not self._queue.leave(token):
            self._queue.release(now)
        token.report(now, self.policy)

    def reset(self) -> None:
        """Nothing to forget: slots in use belong to calls that are under way and give them back themselves."""
