"""What a circuit hands out to a call, and what it reports of itself.

Rules of this file: data alone; `core/breaker.py` decides what becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Permit", "Transition", "Trial"]


@dataclass(frozen=True, slots=True)
class Transition:
    """The circuit went from one state to another.

    Attributes:
        retry_after: the length of the break that began.
        number: which break in a row it is that began, from 1; 0 if none did.
        generation: what the transition began.
    """

    old: str
    new: str
    reason: str
    retry_after: float | None = None
    number: int = field(default=0, compare=False)
    generation: int = field(default=0, compare=False)


class Trial:
    """The permit of a call admitted by a half-open circuit.

    Attributes:
        generation: the half-open generation it belongs to.
        expires: when its place may be given to another call. Whoever knows that this call may take longer, or less
            long, than the lease of the rules sets it when the permit is handed out.
        transition: the transition to half-open that admitting it was, for the first trial after a break; else None.
        answered: its answer has begun, and was none of a failure; what is still to come is a body. Such a trial is no
            lost one when its lease ends: it counts as a success then.
    """

    __slots__ = ("answered", "expires", "generation", "transition")

    def __init__(self, generation: int, expires: float, transition: Transition | None) -> None:
        self.generation = generation
        self.expires = expires
        self.transition = transition
        self.answered = False


Permit = int | Trial
