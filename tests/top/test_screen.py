from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from resilient.top.feed import FeedError, News
from resilient.top.screen import Screen
from resilient.top.view import View, unreachable

from .documents import dependency, document, event

URL = "http://shop/resilience"


def shown(view: View, *, now: float = 0.0, width: int = 160, height: int | None = None, **settings: Any) -> str:
    screen = Screen(view, URL)
    for name, value in settings.items():
        setattr(screen, name, value)
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(screen.draw(now, width, height, "the hint"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def view_of(**facts: Any) -> View:
    view = View()
    view.take(News("state", document(**facts)), 0.0)
    return view


ILL = {
    "service": {"level": "degraded", "ready": True, "status": "ready", "enabled": False, "read_only": {"by": "ada", "why": "a move"}},
    "load": {"requests": 12.0, "shed": 3.0, "in_flight": 5, "limit": 9, "queued": 4, "brownout": {"share": 0.25}},
    "dependencies": [
        dependency("catalog", required=True, last_change={"at": 4590.0, "old": "half-open", "new": "closed", "reason": ""}),
        dependency("reviews", failures=8.0, failure_ratio=0.2, rejections=2.0),
        dependency("mail", state="open", reason="outage", retry_after=2.4, last_change={"at": 4540.0, "old": "closed", "new": "open"}),
    ],
    "features": [
        {"name": "search", "level": "full", "cause": "long ago"},
        {"name": "post", "level": "static", "cause": "outage", "since": 4500.0},
        {"name": "checkout", "level": "off", "critical": True, "by": "ada", "why": "fraud", "orders": [{}, {}]},
    ],
    "events": [event(1), event(2, "open -> closed", severity="info", about="service")],
}


def test_what_is_ill_of_the_service_itself_and_what_it_waits_for_is_named() -> None:
    service = {"level": "healthy", "ready": False, "status": "starting", "waiting": ["task warm", "check disk"]}
    checks = [
        {"name": "mail", "state": "ill", "reason": "", "required": False},
        {"name": "disk", "state": "ill", "reason": "returned False", "required": True},
        {"name": "cpu", "state": "well", "reason": "", "required": True},
        "nonsense",
    ]
    text = shown(view_of(service=service, checks=checks))
    assert "waits for task warm, check disk" in text
    lines = [line.strip() for line in text.splitlines() if "check " in line and " is ill" in line]
    assert lines == ["check disk is ill (required, returned False)", "check mail is ill"]
    assert "waits" not in shown(view_of(service={**service, "waiting": 3}, checks=None))


def test_what_an_operator_looks_for_is_there_the_worst_first() -> None:
    text = shown(view_of(**ILL))
    assert "▲ DEGRADED  worker shop:17, up 1 h 0 min  live" in text
    assert "read-only: writes are refused ada: a move" in text and "switched off" in text
    assert "requests 12/s  shed 3.0/s  in flight 5/9, 4 queued" in text and "brownout: 75% dimmed" in text
    lines = text.splitlines()
    mail, reviews, catalog = [
        next(number for number, line in enumerate(lines) if line.startswith(name)) for name in ("mail", "reviews", "catalog")
    ]
    assert mail < reviews < catalog
    assert "■ open" in lines[mail] and "outage, for 1 min, trial in 2 s" in lines[mail]
    assert "▲ failing" in lines[reviews] and "20%" in lines[reviews]
    assert "● closed" in lines[catalog] and "required, half-open -> closed 10 s ago" in lines[catalog]
    checkout, post, search = [
        next(number for number, line in enumerate(lines) if line.startswith(name)) for name in ("checkout", "post", "search")
    ]
    assert checkout < post < search
    assert "checkout (critical)" in lines[checkout] and "■ off" in lines[checkout] and "ada: fraud, 2 orders" in lines[checkout]
    assert "outage, for 1 min" in lines[post] and "long ago" not in lines[search]
    assert "■ catalog closed -> open" in text and "· service open -> closed" in text and "the hint" in text


@pytest.mark.parametrize(("order", "first"), [("trouble", "b"), ("name", "a"), ("calls", "c"), ("p99", "d")])
def test_orders(order: str, first: str) -> None:
    rows = [dependency("a"), dependency("b", state="open"), dependency("c", calls=99.0), dependency("d", p99=3.0)]
    lines = shown(view_of(dependencies=rows), order=order).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("dependency"))
    assert lines[head + 1].startswith(first)


@pytest.mark.parametrize(("width", "height"), [(200, 60), (120, 30), (80, 24), (60, 16), (40, 12)])
def test_it_fits_the_terminal(width: int, height: int) -> None:
    many = [dependency(f"dependency-number-{number:03}", state="open", reason="outage") for number in range(300)]
    features = [{"name": f"feature-{number}", "level": "static", "cause": "because " * 20} for number in range(50)]
    text = shown(
        view_of(**{**ILL, "dependencies": many, "features": features, "events": [event(number, "x" * 300) for number in range(100)]}),
        width=width,
        height=height,
    )
    lines = text.splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert "dependencies more" in text


def test_rows_can_be_moved_through() -> None:
    view = view_of(dependencies=[dependency(f"d{number:02}") for number in range(40)])
    text = shown(view, height=20, offset=5)
    assert "d04" not in text and "d05" in text
    assert "d39" in shown(view, height=20, offset=1000)  # and no further than the end
    assert "d00" in shown(view, height=20, offset=-3)


def test_old_numbers_are_said_to_be_old() -> None:
    view = view_of(dependencies=[dependency("catalog")])
    assert "STALE" not in shown(view, now=4.0)
    view.take(News("lost", FeedError("it cannot be reached")), 7.0)
    text = shown(view, now=9.0)
    assert "STALE for 9 s" in text and "it cannot be reached" in text and "live" not in text and "catalog" in text
    view.take(News("state", document()), 10.0)
    assert "STALE" not in shown(view, now=10.0)


def test_before_the_first_state_it_says_what_is_wrong() -> None:
    view = View()
    assert "connecting" in shown(view)
    view.take(News("lost", FeedError("refused")), 0.0)
    assert "reconnecting" in shown(view) and "refused" in shown(view)
    assert unreachable(FeedError("no", lasting=True), view) and not unreachable(FeedError("no"), view)
    assert not unreachable(FeedError("no", lasting=True), view_of())


HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold]\r\n\u202e"


def test_names_from_outside_are_shown_and_not_obeyed() -> None:
    change = {"at": 4590.0, "old": HOSTILE, "new": HOSTILE, "reason": HOSTILE}
    facts = {"dependencies": [dependency(HOSTILE, state=HOSTILE, reason=HOSTILE, last_change=change), dependency("b", last_change=change)]}
    facts["features"] = [{"name": HOSTILE, "level": HOSTILE, "cause": HOSTILE, "by": HOSTILE, "why": HOSTILE}]
    facts["events"] = [event(1, HOSTILE, about=HOSTILE, severity=HOSTILE)]
    worker = {"id": HOSTILE, "started": HOSTILE}
    service = {"level": HOSTILE, "status": HOSTILE, "read_only": {"by": HOSTILE, "why": HOSTILE}}
    view = view_of(**facts, worker=worker, service=service)
    view.why = HOSTILE
    for now in (0.0, 60.0):
        text = shown(view, now=now)
        assert all(letter.isprintable() or letter == "\n" for letter in text) and "[bold]x[/bold]" in text


def test_what_is_not_there_or_of_another_kind_is_a_dash() -> None:
    odd: dict[str, Any] = {
        "load": "x",
        "dependencies": [{}, 3, {"name": 7, "retry_after": "x", "last_change": "x"}],
        "features": [{}, None],
        "events": 3,
    }
    text = shown(view_of(**odd, at=None, others={"count": 7, "not_closed": 2}))
    assert "–" in text and "and 7 that the state has no room for, 2 of them not closed" in text


def test_events_are_taken_once_and_those_of_another_worker_begin_anew() -> None:
    view = view_of(events=[event(1), event(2)])
    assert view.take(News("log", event(2)), 1.0) == []
    assert view.take(News("log", event(3)), 1.0) == [event(3)]
    assert view.take(News("log", event("x")), 1.0) == []  # type: ignore[arg-type]
    worker = {"id": "shop:18", "started": 4500.0}
    told, again = view.take(News("state", document(worker=worker, events=[event(1)])), 2.0)
    assert told["text"] == "this shows worker shop:18 from here on" and again == event(1)
    assert [one["kind"] for one in view.events] == ["X", "X", "X", "WorkerShown", "X"]
    assert view.phase == "live"
    view.take(News("state", document(worker=worker), live=False), 3.0)
    assert view.phase == "polling"
