"""Several calls for one answer: each runs in a task or a thread of its own, so that nobody waits for one that has lost.

Not a task group, whose end waits for the clean-up of everybody in it and packs errors into groups. A task here runs in a
copy of its caller's context and inside a cancel scope that the race holds: it is cancelled through that, never natively,
which connection pools survive. One that has lost lets go of its answer and of what it holds by itself, when its end has
come. A thread cannot be interrupted: it comes to its end in its own time, and its late answer is closed.

A caller who is cancelled himself waits for his tasks to end, as he would have waited for the call in their place; a
second native cancellation lets him go at once.
"""

from .entrant import Entrant as Entrant
from .race import Race as Race
from .tasks import AsyncioRace as AsyncioRace
from .tasks import TrioRace as TrioRace
from .threads import ThreadRace as ThreadRace

__all__ = ["AsyncioRace", "Entrant", "Race", "ThreadRace", "TrioRace"]
