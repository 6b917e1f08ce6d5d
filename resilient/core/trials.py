"""One round of trials: how many calls a half-open circuit lets through, and what they say together.

Rules of this file: decisions only, under the lock of the breaker that owns the round; a round decides nothing but itself.
"""

from __future__ import annotations

from .permit import Trial

__all__ = ["Round"]


class Round:
    """The sample of a half-open circuit: never more than `size` trials, those that have ended included.

    Args:
        size: how many trials decide.

    Attributes:
        successes, failures: how the trials that have ended went.
        out: the trials that have not, oldest first.
    """

    __slots__ = ("failures", "out", "size", "successes")

    def __init__(self, size: int) -> None:
        self.size = size
        self.successes = self.failures = 0
        self.out: list[Trial] = []

    @property
    def complete(self) -> bool:
        """Whether so many have ended that the sample says all it will."""
        return self.successes + self.failures >= self.size

    @property
    def full(self) -> bool:
        """Whether each place is taken, by a trial that is out or by one that has ended."""
        return self.successes + self.failures + len(self.out) >= self.size

    def make_place(self, now: float) -> bool:
        """Look for a place, and for lost trials where there is none. Returns whether there is one now.

        A trial whose lease is over has succeeded if its answer had begun; one such trial is enough to make a place if
        not, the others keep theirs, for their verdict may still come.
        """
        if not self.full:
            return True
        free = False
        for trial in [trial for trial in self.out if now >= trial.expires]:
            if trial.answered:
                self.out.remove(trial)
                self.successes += 1
            elif not free:
                self.out.remove(trial)
                free = True
        return free

    def end(self, trial: Trial) -> bool:
        """Take back the place of a trial that has ended. False if it has none: another round's, or lost."""
        if trial not in self.out:
            return False
        self.out.remove(trial)
        return True

    def wait(self, now: float) -> float:
        """Seconds until a place is free for certain: none, or until the first lease ends."""
        if not self.full or not self.out:
            return 0.0
        return max(0.0, min(trial.expires for trial in self.out) - now)
