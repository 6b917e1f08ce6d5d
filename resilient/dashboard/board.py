"""What one process shows: one look at the service is shared by all who look."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .document import Described
from .history import History
from .journal import Journal
from .rates import Looks

__all__ = ["MOST_STREAMS", "VERSION", "Dashboard", "Picture", "dumped"]

VERSION = 1
"""Of the state document. It grows when a member changes its meaning or goes; new members may come without."""

MOST_STREAMS = 16
FRESH = 0.5  # seconds for which a look is good enough for whoever comes next
LEAST = 0.1  # seconds between two looks, whatever happens


def dumped(document: Any) -> str:
    """JSON on one line that is safe inside of HTML too: there is no way out of a string in it, nor of a script element."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(slots=True)
class Picture:
    """The state as of one look, without events, history and controls.

    Attributes:
        at: when, on the clock of the `Resilience`.
        seen: how many events the journal had heard of.
    """

    at: float
    seen: int
    document: dict[str, Any]
    _text: str = field(default="", repr=False)

    def text(self, more: dict[str, Any]) -> str:
        """As JSON, with some members more."""
        if not self._text:
            self._text = dumped(self.document)[:-1]
        return f"{self._text},{dumped(more)[1:]}"


class Dashboard:
    """One for all that a process shows of a `Resilience`. Nothing is measured unless somebody looks.

    Args:
        resilience: what is shown.
        wall: the wall clock, in seconds since 1970.
    """

    def __init__(self, resilience: Any, wall: Callable[[], float] = time.time) -> None:
        self.resilience = resilience
        self.wall = wall
        self.journal = Journal(resilience.clock.now, wall)
        self.history = History()
        self._looks = Looks(resilience)
        self._described = Described(resilience, self.journal, wall)
        self._lock = threading.Lock()
        self._picture: Picture | None = None
        self._streams: set[object] = set()
        self._begin()
        resilience.outbox.add(self.journal, own=True)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._started = self.wall()
        self._host = socket.gethostname()
        self.journal.run = f"{int(self._started * 1000):x}.{self._pid:x}"

    # -- who is shown ---------------------------------------------------------------------------------------------

    @property
    def worker(self) -> dict[str, Any]:
        """The process that answers. The child of a fork is another one."""
        if self._pid != os.getpid():
            self._begin()
        return {"host": self._host, "pid": self._pid, "started": self._started, "id": f"{self._host}:{self._pid}"}

    @property
    def run(self) -> str:
        """A word for this run of this process, which no other one has."""
        if self._pid != os.getpid():
            self._begin()
        return self.journal.run

    # -- a look ---------------------------------------------------------------------------------------------------

    def look(self) -> Picture:
        """The state of now, or of a moment ago."""
        now, seen = self.resilience.clock.now(), self.journal.heard
        with self._lock:
            picture = self._picture
        if picture is not None and now - picture.at < (FRESH if picture.seen == seen else LEAST):
            return picture
        # Outside the lock: features that are looked at may have news for listeners, who are other people's code.
        rates = self._looks.look(now)
        document = {"version": VERSION, "at": self.wall(), "worker": self.worker, **self._described.document(rates, now)}
        picture = Picture(now, seen, document)
        with self._lock:
            self._picture = picture
            self.history.add(document, now)
        return picture

    def look_again(self) -> None:
        """Something was done just now, and whoever looks next is to see it."""
        with self._lock:
            self._picture = None

    def told(self) -> dict[str, Any]:
        """What comes with the whole state: events, and where a stream goes on from them; history."""
        with self._lock:
            history = self.history.document(self.resilience.clock.now(), self.wall())
        entries = self.journal.entries()
        return {"events": [entry.document for entry in entries], "history": history, "cursor": self.journal.cursor(entries)}

    def own_routes(self, paths: Iterable[str]) -> None:
        """Requests to these are no load to look at."""
        self._looks.requests.own.update(paths)

    # -- streams --------------------------------------------------------------------------------------------------

    def enter(self, stream: object) -> bool:
        """Whether there is a place for one stream more; it is to `leave`."""
        with self._lock:
            if len(self._streams) >= MOST_STREAMS:
                return False
            self._streams.add(stream)
            return True

    def leave(self, stream: object) -> None:
        """Give the place back; once is enough, and twice does no harm."""
        with self._lock:
            self._streams.discard(stream)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)
