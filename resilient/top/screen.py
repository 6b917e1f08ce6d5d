"""One frame: how the service is, its dependencies, its features, what happened last."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .condition import IN_TROUBLE, of_dependency, of_feature, of_service
from .view import View
from .words import UNKNOWN, clean, clock, latency, members, number, rate, share, span, whole

__all__ = ["Screen", "event_line"]

SEVERITY = {"bad": "red", "warning": "yellow"}
MARKS = {"bad": "■", "warning": "▲"}
EVENTS = 8  # that are shown where there is room
MOST = 4  # checks that are ill, and things that are waited for, that are named
WITH_WHY = 116  # columns from which there is room for reasons


class Column(NamedTuple):
    """A number of a dependency, shown where the terminal has so many columns."""

    title: str
    least: int
    of: Any


def _flight(one: dict[str, Any]) -> str:
    limit = number(one.get("limit"))
    return whole(one.get("in_flight")) + ("" if limit is None else f"/{whole(limit)}")


COLUMNS = (
    Column("calls/s", 0, lambda one: rate(one.get("calls"))),
    Column("failing", 0, lambda one: share(one.get("failure_ratio"))),
    Column("p50", 140, lambda one: latency(one.get("p50"))),
    Column("p95", 130, lambda one: latency(one.get("p95"))),
    Column("p99", 0, lambda one: latency(one.get("p99"))),
    Column("in flight", 72, _flight),
    Column("budget", 150, lambda one: share(one.get("budget"))),
    Column("rejected/s", 84, lambda one: rate(one.get("rejections"))),
)


class Screen:
    """Draws a view.

    Attributes:
        order: of the dependencies, a name of `ORDERS`.
        offset: how many of them are left out at the top.
    """

    def __init__(self, view: View, url: str) -> None:
        self._view = view
        self._url = url
        self.order = "trouble"
        self.offset = 0

    def draw(self, now: float, width: int, height: int | None = None, hint: str = "") -> RenderableType:
        """A frame of so many columns; without a height everything is shown."""
        view = self._view
        document = view.document
        if document is None:
            return Group(Text(f"{self._url}: {view.phase}"), Text(clean(view.why), "yellow"), Text(hint, "dim"))
        stale = view.stale(now)
        head = self._head(document, now, stale)
        dependencies, features, events = view.dependencies(self.order), view.features(), list(view.events)
        others = _others(document.get("others"))
        rows, lines, last = _room(height, len(head) + len(others), len(dependencies), len(features), len(events))
        self.offset = max(0, min(self.offset, len(dependencies) - rows))
        parts: list[RenderableType] = [*head, Text()]
        parts.append(self._dependencies(dependencies[self.offset : self.offset + rows], document, width))
        parts += _rest(len(dependencies) - rows, "dependencies") + others
        if lines:
            parts += [Text(), _features(features[:lines], document), *_rest(len(features) - lines, "features")]
        if last:
            parts += [Text(), Text("events", "bold"), *(event_line(event) for event in events[-last:])]
        if hint:
            parts.append(Text(hint, "dim"))
        for part in parts:
            if isinstance(part, Text):
                part.no_wrap, part.overflow = height is not None, "ellipsis"
        return Group(*parts) if not stale else _Dimmed(parts)

    def _head(self, document: dict[str, Any], now: float, stale: bool) -> list[Text]:
        service, worker = document["service"], document["worker"]
        level = of_service(service)
        age = now - self._view.received
        first = Text.assemble(
            (f"{level.mark} {level.word.upper()}", level.style), "  ", f"worker {clean(worker.get('id'))}, up {self._up(document)}"
        )
        if stale:
            first.append(f"  STALE for {span(age)}", "bold red")
        else:
            first.append(f"  {self._view.phase}", "green" if self._view.phase == "live" else "yellow")
        lines = [first]
        if self._view.why:
            lines.append(Text(clean(self._view.why), "yellow"))
        lines += [Text(line, "yellow") for line in _remarks(document)]
        load = document.get("load")
        if isinstance(load, dict):
            lines.append(_load(load))
        return lines

    def _up(self, document: dict[str, Any]) -> str:
        at, started = number(document.get("at")), number(document["worker"].get("started"))
        return UNKNOWN if at is None or started is None else span(at - started)

    def _dependencies(self, dependencies: list[dict[str, Any]], document: dict[str, Any], width: int) -> Table:
        columns = [column for column in COLUMNS if width >= column.least]
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("dependency", no_wrap=True, ratio=3, min_width=14)
        table.add_column("state", no_wrap=True)
        for column in columns:
            table.add_column(column.title, justify="right", no_wrap=True)
        if width >= WITH_WHY:
            table.add_column("why", no_wrap=True, ratio=4)
        for one in dependencies:
            condition = of_dependency(one)
            cells: list[RenderableType] = [Text(clean(one.get("name"), 100)), Text(f"{condition.mark} {condition.word}", condition.style)]
            cells += [Text(column.of(one), _grave(column, one)) for column in columns]
            if width >= WITH_WHY:
                cells.append(Text(_why(one, document)))
            table.add_row(*cells)
        return table


class _Dimmed:
    """Numbers that are no news any more, and look it."""

    def __init__(self, parts: list[RenderableType]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Any, options: Any) -> Any:
        yield self._parts[0]
        for part in self._parts[1:]:
            for line in console.render_lines(part, options, pad=False):
                yield Text("".join(segment.text for segment in line), "dim", no_wrap=True, overflow="crop")


def _room(height: int | None, head: int, dependencies: int, features: int, events: int) -> tuple[int, int, int]:
    """How many dependencies, features and events there is room for; where there is little, dependencies come first."""
    if height is None:
        return dependencies, features, min(events, EVENTS)
    left = height - head - 3  # an empty line, the table's own head, the hint
    last = max(0, min(events, EVENTS, (left - 8) // 3))
    left -= last + 2 if last else 0
    lines = max(0, min(features, (left - 4) // 2))
    left -= lines + 2 + (lines < features) if lines else 0
    return max(1, min(dependencies, left - (left < dependencies))), lines, last


def _rest(number: int, what: str) -> list[RenderableType]:
    return [Text(f"and {number} {what} more", "dim")] if number > 0 else []


def _others(others: Any) -> list[RenderableType]:
    if not isinstance(others, dict):
        return []
    return [
        Text(
            f"and {whole(others.get('count'))} that the state has no room for, {whole(others.get('not_closed'))} of them not closed", "dim"
        )
    ]


def _features(features: list[dict[str, Any]], document: dict[str, Any]) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("feature", no_wrap=True, ratio=3, min_width=14)
    table.add_column("level", no_wrap=True)
    table.add_column("why", no_wrap=True, ratio=7)
    for one in features:
        level = of_feature(one)
        name = Text(clean(one.get("name"), 100))
        if one.get("critical"):
            name.append(" (critical)", "dim")
        table.add_row(name, Text(f"{level.mark} {level.word}", level.style), Text(_cause(one, document)))
    return table


def event_line(event: dict[str, Any]) -> Text:
    """An event as one line."""
    severity = event.get("severity")
    style = SEVERITY.get(severity, "") if isinstance(severity, str) else ""
    about = re.sub("^(dependency|feature):", "", clean(event.get("about")))
    mark = MARKS.get(severity, "·") if isinstance(severity, str) else "·"
    return Text.assemble(
        (clock(event.get("at")), "dim"), (f" {mark} ", style), (about, "bold"), " " if about else "", clean(event.get("text"))
    )


def _remarks(document: dict[str, Any]) -> list[str]:
    service, lines = document["service"], []
    waiting = service.get("waiting")
    if isinstance(waiting, list) and waiting:
        lines.append(clean("waits for " + ", ".join(map(str, waiting[:MOST]))))
    ill = sorted((one for one in members(document.get("checks")) if one.get("state") == "ill"), key=lambda one: not one.get("required"))
    lines += [_check(one) for one in ill[:MOST]]
    if service.get("enabled") is False:
        lines.append("the policies are switched off: every call passes untouched")
    stop = service.get("read_only")
    if isinstance(stop, dict):
        lines.append(" ".join(part for part in ("read-only: writes are refused", _said(stop)) if part))
    return lines


def _check(one: dict[str, Any]) -> str:
    facts = ["required"] if one.get("required") else []
    facts += [clean(one.get("reason"), 100)] if one.get("reason") else []
    return f"check {clean(one.get('name'), 100)} is ill" + (f" ({', '.join(facts)})" if facts else "")


def _load(load: dict[str, Any]) -> Text:
    line = Text.assemble("requests ", (f"{rate(load.get('requests'))}/s", "bold"), "  shed ")
    line.append(f"{rate(load.get('shed'))}/s", "bold red" if (number(load.get("shed")) or 0) > 0 else "bold")
    line.append(f"  in flight {_flight(load)}")
    if number(load.get("queued")):
        line.append(f", {whole(load.get('queued'))} queued", "yellow")
    line.append(f"  p50 {latency(load.get('p50'))}  p99 {latency(load.get('p99'))}  loop lag {latency(load.get('lag'))}")
    brownout = load.get("brownout")
    left = number(brownout.get("share")) if isinstance(brownout, dict) else None
    if left is not None and left < 1:
        line.append(f"  brownout: {share(1 - left)} dimmed", "yellow")
    return line


def _grave(column: Column, one: dict[str, Any]) -> str:
    if column.title == "failing":
        return "red" if (number(one.get("failures")) or 0) > 0 else ""
    return "red" if column.title == "rejected/s" and (number(one.get("rejections")) or 0) > 0 else ""


def _why(one: dict[str, Any], document: dict[str, Any]) -> str:
    parts = ["required"] if one.get("required") else []
    change = one.get("last_change")
    at = number(document.get("at"))
    since = None if at is None or not isinstance(change, dict) else number(change.get("at"))
    if of_dependency(one).rank >= IN_TROUBLE:
        parts += [clean(one.get("reason"), 40)]
        if since is not None and at is not None and one.get("state") != "closed":
            parts.append(f"for {span(at - since)}")
        if number(one.get("retry_after")) is not None and one.get("state") == "open":
            parts.append(f"trial in {whole(one.get('retry_after'))} s")
    elif isinstance(change, dict) and since is not None and at is not None:
        parts.append(f"{clean(change.get('old'), 20)} -> {clean(change.get('new'), 20)} {span(at - since)} ago")
    return ", ".join(part for part in parts if part)


def _cause(one: dict[str, Any], document: dict[str, Any]) -> str:
    if one.get("level") == "full":
        return ""
    at, since = number(document.get("at")), number(one.get("since"))
    parts = [clean(one.get("cause"), 80), _said(one)]
    if at is not None and since is not None:
        parts.append(f"for {span(at - since)}")
    orders = len(members(one.get("orders")))
    if orders:
        parts.append(f"{orders} orders" if orders > 1 else "ordered")
    return ", ".join(part for part in parts if part)


def _said(one: dict[str, Any]) -> str:
    by, why = clean(one.get("by"), 40), clean(one.get("why"))
    return f"{by}: {why}" if by and why else f"by {by}" if by else why
