"""What is known of a service at this moment, and how old that is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .condition import of_dependency
from .feed import FeedError, News
from .words import clean, members, number

__all__ = ["ORDERS", "STALE", "View"]

KEPT = 200  # events
STALE = 5.0
"""Seconds after which numbers are no news any more."""

ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "trouble": lambda one: (-of_dependency(one).rank, not one.get("required"), clean(one.get("name"))),
    "name": lambda one: clean(one.get("name")),
    "calls": lambda one: -(number(one.get("calls")) or 0.0),
    "p99": lambda one: -(number(one.get("p99")) or 0.0),
}


class View:
    """Takes the news in; what is shown is read off it.

    Attributes:
        document: the newest state; None before the first.
        events: the last ones, oldest first.
        phase: connecting, live, polling, reconnecting.
        why: what went wrong last; empty where nothing did.
        received: when the state came, on the reader's clock.
    """

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = None
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.phase = "connecting"
        self.why = ""
        self.received = 0.0
        self._life: tuple[Any, Any] | None = None
        self._seen = -1.0  # number of the newest event of this life

    def take(self, news: News, now: float) -> list[dict[str, Any]]:
        """Take one thing in. Returns the events that are new with it."""
        if news.what == "lost":
            self.phase, self.why = "reconnecting", str(news.value)
            return []
        if news.what == "log":
            return self._log([news.value])
        self.phase, self.why = ("live", "") if news.live else ("polling", self.why)
        self.received = now
        told = self._recognise(news.value)
        self.document = news.value
        return told + self._log(members(news.value.get("events")))

    def stale(self, now: float) -> bool:
        """Whether the numbers are too old to be shown as those of now."""
        return self.document is not None and now - self.received > STALE

    def dependencies(self, order: str) -> list[dict[str, Any]]:
        """Sorted by a name of `ORDERS`."""
        return sorted(members(self.document and self.document.get("dependencies")), key=ORDERS[order])

    def features(self) -> list[dict[str, Any]]:
        """Those that are less than full first, of those the critical ones."""
        features = members(self.document and self.document.get("features"))
        return sorted(features, key=lambda one: (one.get("level") == "full", not one.get("critical"), clean(one.get("name"))))

    def _recognise(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """Another worker, or another life of it, is an event of ours: its numbers begin anew."""
        worker = document["worker"]
        life = worker.get("id"), worker.get("started")
        if life == self._life:
            return []
        first, self._life, self._seen = self._life is None, life, -1.0
        if first:
            return []
        text = f"this shows worker {clean(worker.get('id'))} from here on"
        event = {"at": document.get("at"), "kind": "WorkerShown", "about": "", "text": text, "severity": "warning"}
        self.events.append(event)
        return [event]

    def _log(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        new = []
        for event in events:
            known = number(event.get("id"))
            if known is not None and known > self._seen:
                self._seen = known
                new.append(event)
        self.events.extend(new)
        return new


def unreachable(error: FeedError, view: View) -> bool:
    """Whether to give up: nothing was ever read, and another try would end the same way."""
    return error.lasting and view.document is None
