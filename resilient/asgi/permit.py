"""What one request has of a `Door`: a slot, a place in the line, or a refusal."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING

from ..context import Criticality
from ..core.limiter import DROPPED, FAILED

if TYPE_CHECKING:
    from ..protocols import Waiter
    from .door import Door
    from .pulse import Pulse

__all__ = ["INSIDE", "OUTSIDE", "REFUSED", "STREAMING", "WAITING", "WORDS", "Permit"]

OUTSIDE, WAITING, INSIDE, STREAMING, REFUSED = range(5)
WORDS = {member: member.name.lower() for member in Criticality}


class Permit:
    """What one request has of a `Door`.

    Attributes:
        state: outside, waiting, inside, streaming or refused; changed under the door's lock.
        reason: why it was refused.
        began: when it was let in.
        until: when it has waited for too long.
        context: of the request, for one that waits and that another one may turn away, where listeners want it.
    """

    # What few of them need are defaults on the class.
    __slots__ = ("__dict__", "_door", "_sampled", "began", "criticality", "pulse", "state")

    reason: str = ""
    until: float = 0.0
    context: Context | None = None
    waiter: Waiter | None = None

    def __init__(self, door: Door, pulse: Pulse, criticality: Criticality, now: float) -> None:
        self._door = door
        self.pulse = pulse
        self.criticality = criticality
        self.state = OUTSIDE
        self.began = now
        self._sampled = False

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
            self._door.leave(self, self._door.now(), alive=False)

    def answered(self, status: int, *, silent: bool) -> None:
        """The app's answer begins; `silent` if it may last for ever by design."""
        if self._sampled:
            return
        self._sampled = True
        door = self._door
        if silent:
            door.to_stream(self)
        elif door._slots.samples.wanted and self.state is not STREAMING:
            door.sample(door.now() - self.began if status < 500 else FAILED)

    def failed(self, status: int) -> None:
        """What the request came to would be told the client as `status`, without an answer of the app's; 0 for nothing."""
        if status == 504 and not self._sampled and self.state is INSIDE:
            self._sampled = True
            self._door.sample(DROPPED)

    def abandon(self) -> None:
        """Leave later: a finalizer may take no lock."""
        self._door.abandoned.append(lambda: self._door.leave(self, self._door.now()))
