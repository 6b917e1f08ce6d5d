"""Who is let into the app: one lock, the slots behind it, and what a request holds of them.

Whoever is granted a slot is granted it under the lock and woken outside it, through his own event loop.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..context import Criticality
from ..core.admission import Admission as Slots
from ..core.codel import Lateness
from ..events import RequestShed
from ..runtime import AsyncRuntime
from .permit import INSIDE, OUTSIDE, REFUSED, STREAMING, WAITING, WORDS, Permit
from .pulse import Pulse

if TYPE_CHECKING:
    from .protocols import Latencies, Measured

__all__ = ["Door"]

MOST_LOAD = 4.0  # four times what is served: beyond it the brownout would learn nothing more


class Door:
    """The run of an `Admission` in one service.

    Args:
        slots: decides.
        lateness: of the event loop.
        resilience: whose clock, metrics and outbox.
        enforce: False lets everybody in, and tells who would have been turned away.

    Attributes:
        abandoned: what finalizers of requests left to be done by whoever comes next: a garbage collection may run while this
            very thread has one of our locks.
    """

    __slots__ = (
        "__weakref__", "_brownout", "_lateness", "_lock", "_pulse", "_pulses", "_runtime", "_served", "_shed", "_slots", "_tell_at",
        "abandoned", "enforce", "now", "resilience",
    )  # fmt: skip

    def __init__(self, slots: Slots, lateness: Lateness, resilience: Measured, *, enforce: bool) -> None:
        self._slots = slots
        self._lateness = lateness
        self.resilience = resilience
        self._lock = threading.Lock()
        self._pulse: Pulse | None = None  # of the loop that was here last, among those of all
        self._pulses: list[Pulse] = []
        self.abandoned: deque[Callable[[], None]] = deque()
        runtime = AsyncRuntime(resilience.clock)
        self._runtime = runtime
        self.now = runtime.now
        self.enforce = enforce
        self._brownout: Latencies | None = getattr(resilience, "brownout", None)
        self._shed = self._served = 0  # since the brownout was told, and up to then
        self._tell_at = -math.inf

    # -- what is shown --------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests inside."""
        self.reclaim()
        return self._slots.in_flight

    @property
    def limit(self) -> int:
        """How many there may be."""
        return self._slots.limit

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._slots.queued

    @property
    def streams(self) -> int:
        """Streams and websockets that are open."""
        self.reclaim()
        return self._slots.open_streams

    @property
    def lag(self) -> float:
        """Seconds that the event loop was late, when last looked at; 0 while nobody comes."""
        return self._lateness.latest

    # -- who comes ------------------------------------------------------------------------------------------------

    def come(self, criticality: Criticality, now: float, loop: Any, task: object, *, stream: bool) -> Permit:
        """Somebody comes, in a task of a loop. He is inside, waits, or is refused: the permit says."""
        pulse = self._pulse
        if pulse is None or pulse.loop() is not loop:
            pulse = self._pulse_of(loop)
        permit = Permit(self, pulse, criticality, now)
        if stream:
            return self._come_to_stay(permit)
        takes_on, slots, lock = pulse.open(now, task), self._slots, self._lock
        lock.acquire()  # `with` costs three times that, which every request would pay
        try:
            if takes_on and slots.enter(criticality):
                pulse.held += 1
                permit.state = INSIDE
                return permit
            overdue = slots.sweep(now) if slots.queued else ()
            turned_away = slots.join(permit, criticality, now)
            if turned_away is None or turned_away[1] is not permit:
                permit.state = WAITING
                permit.context = copy_context() if self.resilience.outbox.in_context else None
                permit.until = now + slots.patience(criticality, now)
            for one in overdue:
                one.state = REFUSED
            if turned_away is not None:
                turned_away[1].state = REFUSED
        finally:
            lock.release()
        if overdue:
            self._turn_away(overdue, "waited")
        if turned_away is not None:
            self._turn_away((turned_away[1],), turned_away[0])
        if permit.state is WAITING:
            pulse.kick()
        return permit

    def _come_to_stay(self, permit: Permit) -> Permit:
        with self._lock:
            if self._slots.open_stream():
                permit.state = STREAMING
                permit.pulse.streams += 1
            else:
                permit.state = REFUSED
        if permit.state is REFUSED:
            self._refused(permit, "streams")
        return permit

    def _pulse_of(self, loop: Any) -> Pulse:
        """That of another loop than the last one. A loop that was closed has taken its requests with it, and their slots are free."""
        with self._lock:
            for gone in [pulse for pulse in self._pulses if pulse.gone]:
                self._pulses.remove(gone)
                self._slots.forget(gone.held, gone.streams)
                gone.held = gone.streams = 0  # what is finalized later has nothing to give back
            pulse = next((pulse for pulse in self._pulses if pulse.loop() is loop), None)
            if pulse is None:
                pulse = Pulse(self, loop, self._lateness.target)
                self._pulses.append(pulse)
            self._pulse = pulse
        return pulse

    def reclaim(self) -> None:
        """Take back what abandoned requests held."""
        while self.abandoned:
            self.abandoned.popleft()()

    def _turn_away(self, permits: Sequence[Permit], reason: str) -> None:
        for permit in permits:
            self._refused(permit, reason)
            permit.wake()

    def _refused(self, permit: Permit, reason: str) -> None:
        resilience = self.resilience
        permit.reason = reason
        if self.enforce and self._brownout is not None and reason != "streams":
            with self._lock:
                self._shed += 1
        word = WORDS[permit.criticality]
        resilience.metrics.count_shed(word, reason if self.enforce else f"shadow_{reason}")
        if resilience.outbox.heard:
            event = RequestShed(at=self.now(), criticality=word, reason=reason, enforced=self.enforce)
            resilience.outbox.emit(event, permit.context)

    async def waited(self, permit: Permit) -> bool:
        """Wait for a slot. False if there was none in time."""
        with self._lock:
            if permit.state is WAITING:
                permit.waiter = self._runtime.waiter()
        if permit.waiter is not None:
            await self._runtime.wait(permit.waiter, permit.until)
        with self._lock:
            late = permit.state is WAITING
            if late:
                self._slots.leave(permit, permit.criticality)
                permit.state = REFUSED
        if late:
            self._refused(permit, "waited")
        return permit.state is INSIDE

    # -- what a pulse does ----------------------------------------------------------------------------------------

    def grant(self, most: int) -> list[Permit]:
        """Give slots to those who wait; they are to be woken."""
        now = self.now()
        with self._lock:
            overdue = self._slots.sweep(now)
            granted: list[Permit] = self._slots.grant(most)
            for one in overdue:
                one.state = REFUSED
            for one in granted:
                one.pulse.held += 1
                one.state, one.began = INSIDE, now if self.enforce else one.began
        self._turn_away(overdue, "waited")
        return granted

    def looked(self, lag: float, now: float) -> None:
        """The event loop was late by so much."""
        self.reclaim()
        with self._lock:
            self._lateness.add(lag, now)
            overdue = self._slots.sweep(now)
            for one in overdue:
                one.state = REFUSED
        self._turn_away(overdue, "waited")
        if self._brownout is not None and now >= self._tell_at:
            self._tell(self._brownout, now)

    def _tell(self, brownout: Latencies, now: float) -> None:
        """Those who came lately, over those who were served: who is turned away makes nobody slow, and is load all the same."""
        with self._lock:
            self._tell_at = now + brownout.period
            served, self._served = self._slots.served - self._served, self._slots.served
            shed, self._shed = self._shed, 0
        if shed:
            brownout.load(min(1.0 + shed / max(served, 1), MOST_LOAD))

    def rested(self) -> None:
        """Nobody comes any more."""
        with self._lock:
            self._lateness.clear()

    # -- what a permit does ---------------------------------------------------------------------------------------

    def sample(self, duration: float) -> None:
        """A request was answered after so many seconds, `FAILED`, or `DROPPED`."""
        slots = self._slots
        with self._lock:
            if slots.samples.wanted:
                slots.samples.add(duration, slots.in_flight if self.enforce else slots.in_flight + slots.queued)

    def to_stream(self, permit: Permit) -> None:
        """What was let in as a request is one of the long-lived; where there are enough of those, it stays what it is."""
        with self._lock:
            if permit.state is INSIDE and self._slots.open_stream():
                self._slots.release()
                permit.pulse.held -= 1
                permit.pulse.streams += 1
                permit.state = STREAMING
            queued = self._slots.queued
        if queued:
            permit.pulse.kick()

    def leave(self, permit: Permit, now: float, *, alive: bool = True) -> None:
        """Give back whatever is held; `alive` unless the permit's event loop is gone."""
        if permit.state is REFUSED:
            return  # for good: nothing is held
        slots, pulse, lock = self._slots, permit.pulse, self._lock
        lock.acquire()
        try:
            state, permit.state = permit.state, OUTSIDE
            if state is INSIDE:
                if pulse.held:  # or the loop was closed, and all that its requests had was taken back
                    pulse.held -= 1
                    slots.release()
                if now >= slots.samples.due:
                    slots.steer(now, self._lateness.late)
            elif state is WAITING:
                slots.leave(permit, permit.criticality)
            elif state is STREAMING and pulse.streams:
                pulse.streams -= 1
                slots.close_stream()
            queued = slots.queued
        finally:
            lock.release()
        if queued and alive:
            pulse.kick()

    def reset(self) -> None:
        """Begin anew with the limit."""
        with self._lock:
            self._slots.clear()
            self._lateness.clear()
