"""Who is let into the app: one lock, the slots behind it, and what a request holds of them.

Whoever is granted a slot is granted it under the lock and woken outside it, through his own event loop.
"""

from __future__ import annotations

import math
import threading
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from ..context import Criticality
from ..core.admission import Admission as Slots
from ..core.codel import Lateness
from ..core.limiter import DROPPED, FAILED
from ..events import RequestShed
from ..runtime import AsyncRuntime
from .pulse import Pulse, running_loop

if TYPE_CHECKING:
    from ..protocols import Waiter
    from .protocols import Latencies, Measured

__all__ = ["INSIDE", "Door", "Permit"]

MOST_LOAD = 4.0  # four times what is served: beyond it the brownout would learn nothing more

OUTSIDE, WAITING, INSIDE, STREAMING, REFUSED = range(5)


class Door:
    """The run of an `Admission` in one service.

    Args:
        slots: decides.
        lateness: of the event loop.
        resilience: whose clock, metrics and outbox.
        enforce: False lets everybody in, and tells who would have been turned away.
    """

    __slots__ = (
        "__weakref__", "_brownout", "_lateness", "_lock", "_pulse", "_runtime", "_served", "_shed", "_slots", "_tell_at",
        "enforce", "now", "resilience",
    )  # fmt: skip

    def __init__(self, slots: Slots, lateness: Lateness, resilience: Measured, *, enforce: bool) -> None:
        self._slots = slots
        self._lateness = lateness
        self.resilience = resilience
        self._lock = threading.Lock()
        self._pulse: Pulse | None = None
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
        return self._slots.open_streams

    @property
    def lag(self) -> float:
        """Seconds that the event loop was late, when last looked at; 0 while nobody comes."""
        return self._lateness.latest

    # -- who comes ------------------------------------------------------------------------------------------------

    def come(self, criticality: Criticality, *, stream: bool) -> Permit:
        """Somebody comes. He is inside, waits, or is refused: the permit says."""
        now = self.now()
        pulse = self._pulse
        loop = running_loop()
        if pulse is None or pulse.loop() is not loop:
            pulse = self._pulse = Pulse(self, loop, self._lateness.target)
        permit = Permit(self, pulse, criticality, now)
        if stream:
            with self._lock:
                permit.state = STREAMING if self._slots.open_stream() else REFUSED
            if permit.state is REFUSED:
                self._refused(permit, "streams")
            return permit
        takes_on, slots = pulse.open(now), self._slots
        with self._lock:
            if takes_on and slots.enter(criticality):
                permit.state = INSIDE
                return permit
            overdue = slots.sweep(now)
            turned_away = slots.join(permit, criticality, now)
            if turned_away is None or turned_away[1] is not permit:
                permit.state = WAITING
                permit.context = copy_context() if self.resilience.outbox.in_context else None
                permit.until = now + slots.patience(criticality, now)
            for one in overdue:
                one.state = REFUSED
            if turned_away is not None:
                turned_away[1].state = REFUSED
        if overdue:
            self._turn_away(overdue, "waited")
        if turned_away is not None:
            self._turn_away([turned_away[1]], turned_away[0])
        if permit.state is WAITING:
            pulse.kick()
        return permit

    def _turn_away(self, permits: list[Permit], reason: str) -> None:
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
                one.state, one.began = INSIDE, now if self.enforce else one.began
        self._turn_away(overdue, "waited")
        return granted

    def looked(self, lag: float, now: float) -> None:
        """The event loop was late by so much."""
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
                permit.state = STREAMING
            queued = self._slots.queued
        if queued:
            permit.pulse.kick()

    def leave(self, permit: Permit, *, alive: bool = True) -> None:
        """Give back whatever is held; `alive` unless the permit's event loop is gone."""
        if permit.state is REFUSED:
            return  # for good: nothing is held
        now, slots = self.now(), self._slots
        with self._lock:
            state, permit.state = permit.state, OUTSIDE
            if state is INSIDE:
                slots.release()
                if now >= slots.samples.due:
                    slots.steer(now, self._lateness.late)
            elif state is WAITING:
                slots.leave(permit, permit.criticality)
            elif state is STREAMING:
                slots.close_stream()
            queued = slots.queued
        if queued and alive:
            permit.pulse.kick()

    def reset(self) -> None:
        """Begin anew with the limit."""
        with self._lock:
            self._slots.clear()
            self._lateness.clear()


class Permit:
    """What one request has of a `Door`.

    Attributes:
        state: outside, waiting, inside, streaming or refused; changed under the door's lock.
        reason: why it was refused.
        began: when it was let in.
        until: when it has waited for too long.
        context: of the request, for one that waits and that another one may turn away, where listeners want it.
    """

    __slots__ = ("_door", "_sampled", "began", "context", "criticality", "pulse", "reason", "state", "until", "waiter")

    waiter: Waiter | None

    def __init__(self, door: Door, pulse: Pulse, criticality: Criticality, now: float) -> None:
        self._door = door
        self.pulse = pulse
        self.criticality = criticality
        self.state = OUTSIDE
        self.reason = ""
        self.began = self.until = now
        self._sampled = False
        self.context: Context | None = None
        self.waiter = None

    @property
    def refused(self) -> bool:
        """Whether it is turned away."""
        return self.state is REFUSED and self._door.enforce

    @property
    def waits(self) -> bool:
        """Whether it has to wait."""
        return self.state is WAITING and self._door.enforce

    async def waited(self) -> bool:
        """Wait. False if it is turned away."""
        return await self._door.waited(self)

    def wake(self) -> None:
        """Go on: something was decided. Of a closed event loop nobody does: its tasks are gone, and the slot is given back."""
        waiter = self.waiter
        if waiter is not None and not waiter.wake() and self.state is INSIDE:
            self._door.leave(self, alive=False)

    def answered(self, status: int, *, silent: bool) -> None:
        """The app's answer begins; `silent` if it may last for ever by design."""
        if self._sampled:
            return
        self._sampled = True
        if silent:
            self._door.to_stream(self)
        elif self.state is not STREAMING and self._door._slots.samples.wanted:
            self._door.sample(self._door.now() - self.began if status < 500 else FAILED)

    def end(self, status: int) -> None:
        """The app has returned, or there was nothing for it to do; `status` is what the client was answered, or 0."""
        if not self._sampled and status == 504 and self.state is INSIDE:
            self._door.sample(DROPPED)
        self._door.leave(self)


WORDS = {member: member.name.lower() for member in Criticality}
