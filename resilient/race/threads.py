"""Races of threads, which nobody can interrupt."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from .entrant import Entrant
from .race import Race

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Runtime
    from ..threads import Threads

__all__ = ["ThreadRace"]


class _Uninterrupted(nullcontext[None]):
    """Where an async entrant has its cancel scope."""

    def cancel(self) -> None:
        """The call knows that it has lost: its next operation on the network is cut short, its end is ignored."""


class ThreadRace(Race):
    """Entrants are threads."""

    def __init__(self, runtime: Runtime, threads: Threads, drive: Callable[[Any], Any]) -> None:
        super().__init__(runtime)
        self._threads = threads
        self._drive = drive

    def _entrant(self, call: Call) -> Entrant:
        return Entrant(self, call, _Uninterrupted())

    def _start(self, entrant: Entrant, job: Callable[[], Any]) -> bool:
        if self._threads.start(partial(contextvars.copy_context().run, self._to_end, job)):
            return True
        if entrant.ended:  # what it holds has to be given back: by the caller, if by nobody else
            self._to_end(job)
        return False

    def _to_end(self, job: Callable[[], Any]) -> None:
        self._drive(job())
