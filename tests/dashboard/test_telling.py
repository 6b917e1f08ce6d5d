"""The journal's words for every kind of event there is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import pytest

from resilient import events
from resilient.dashboard.journal import Journal
from resilient.dashboard.telling import QUIET, TEXTS, severity, text
from resilient.events import CheckChanged, ClientGone, DrainChanged, DrainHookFailed, Event, RequestShed, StartupChanged
from resilient.telemetry.families import COUNTED
from resilient.telemetry.logging import TransitionLog


def kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    """All kinds of events of this library, wherever they are defined."""
    for kind in base.__subclasses__():
        # A dataclass with slots is made twice, and the first one may still be there.
        if kind.__module__.startswith("resilient.") and getattr(sys.modules[kind.__module__], kind.__name__, None) is kind:
            yield kind
            yield from kinds(kind)


VALUES: dict[str, Any] = {"str": "word", "float": 1.0, "bool": True, "int": 1, "tuple[str, ...]": ("one",)}


def example(kind: type[Event]) -> Event:
    given = {one.name: VALUES[str(one.type)] for one in fields(kind) if one.default is MISSING}
    return kind(**given)


EVERY = sorted(set(kinds()), key=lambda kind: kind.__name__)


def test_every_kind_is_known_here() -> None:
    assert {kind.__name__ for kind in EVERY} == set(events.__all__) - {"Event", "Listener"}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_an_event_is_told_in_words_of_its_own_or_counted(kind: type[Event], caplog: pytest.LogCaptureFixture) -> None:
    """A transition has words in the journal and a record in the log; what may come with every call has a counter, and is in neither."""
    journal = Journal(lambda: 1.0, lambda: 1.0)
    event = example(kind)
    journal.on_event(event)
    with caplog.at_level("INFO", "resilient"):
        TransitionLog().on_event(event)
    assert (kind in QUIET) != (kind in TEXTS)
    if kind in QUIET:
        assert kind in COUNTED or kind is RequestShed  # counted by who sheds, heard or not
        assert journal.entries() == []
    else:
        assert [entry.document["kind"] for entry in journal.entries()] == [kind.__name__]
        assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("event", "told", "bad"),
    [
        (DrainChanged(at=1.0, what="begun", by="ann", why="new version"), "a drain has begun, 0 under way, by ann: new version", "warning"),
        (DrainChanged(at=1.0, what="closed", in_flight=3), "no new work is taken on, 3 under way", "warning"),
        (DrainChanged(at=1.0, what="overdue", in_flight=2, routes=("/a", "/b")), "not drained in time, 2 under way (/a, /b)", "bad"),
        (DrainChanged(at=1.0, what="drained"), "drained, 0 under way", "info"),
        (DrainChanged(at=1.0, what="resumed"), "serves again, 0 under way", "info"),
        (DrainHookFailed(at=1.0, hook="flush", cause="error"), "drain hook flush failed", "warning"),
        (DrainHookFailed(at=1.0, hook="flush", cause="late"), "drain hook flush was not done in time", "warning"),
        (
            CheckChanged(at=1.0, check="disk", old="well", new="ill", reason="returned False"),
            "check disk: well -> ill (returned False)",
            "bad",
        ),
        (CheckChanged(at=1.0, check="disk", old="ill", new="unknown"), "check disk: ill -> unknown", "warning"),
        (CheckChanged(at=1.0, check="disk", old="ill", new="well"), "check disk: ill -> well", "info"),
        (StartupChanged(at=1.0, complete=True, waiting=(), seconds=1.26), "started after 1.3 s", "info"),
        (StartupChanged(at=1.0, complete=True, waiting=("task warm",), seconds=60.0), "started after 60.0 s, without task warm", "warning"),
        (StartupChanged(at=1.0, complete=False, waiting=("a", "b"), seconds=60.0), "not started after 60.0 s, without a, b", "warning"),
    ],
)
def test_the_words_of_drain_and_health(event: Event, told: str, bad: str) -> None:
    assert text(event) == told
    assert severity(event) == bad


def test_clients_who_go_drive_nothing_out_of_the_journal() -> None:
    journal = Journal(lambda: 1.0, lambda: 1.0)
    journal.on_event(DrainChanged(at=1.0, what="begun"))
    for _ in range(1000):
        journal.on_event(ClientGone(at=1.0))
    assert [entry.document["kind"] for entry in journal.entries()] == ["DrainChanged"]
