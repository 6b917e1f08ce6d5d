"""The HTML page about a run: one file without scripts or outside references, to be opened from disk or sent on."""

from __future__ import annotations

import itertools
import os
import platform
from html import escape
from importlib import metadata, resources
from string import Template
from typing import TYPE_CHECKING

from . import plots, series
from .recording import APPS, PING, PRODUCT, good_share, percentile
from .verdict import SLACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from .recording import Recording, Sample
    from .verdict import Row, Verdict

_MARKS = {True: ("pass", "✓ holds"), False: ("fail", "✗ fails"), None: ("unknown", "not measured")}


def page(recording: Recording, verdict: Verdict) -> str:
    """The whole page."""
    template = Template(resources.files("resilient.demo").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        verdict=escape(verdict.text),
        tone="passed" if verdict.passed else "failed",
        note=f"<p class='note'>{escape(verdict.note)}</p>" if verdict.note else "",
        rate=f"{recording.rate:g}",
        patience=f"{recording.client_timeout:g}",
        timeout=f"{recording.feature_timeout:g}",
        phases=_phases(recording),
        tiles=_tiles(recording),
        rows=_rows(verdict),
        made=_made(recording),
        **_plots(recording),
    )


def _phases(recording: Recording) -> str:
    failing = [span for span in recording.spans if span.failing]
    return "".join(
        f"<li><b>{number}</b>{escape(span.title)} <span class='soft'>{span.start:.0f}–{span.end:.0f} s</span></li>"
        for number, span in enumerate(failing, 1)
    )


def _tiles(recording: Recording) -> str:
    """Three figures about the time in which something failed."""
    tiles: list[tuple[str, Callable[[list[Sample]], str], str, bool]] = [
        ("/product answered while a service failed", lambda samples: _share(good_share(samples)), PRODUCT, True),
        ("/product p99 while an optional service failed", lambda samples: _seconds(percentile(samples, 0.99)), PRODUCT, False),
        ("/ping p99 while a service failed", lambda samples: _seconds(percentile(samples, 0.99)), PING, True),
    ]
    cards = []
    for title, measure, path, required in tiles:
        spans = [span for span in recording.spans if span.failing and (required or "catalog" not in span.failing)]
        numbers = "".join(
            f"<div><dt>{app}</dt><dd class='{app}'>"
            f"{measure([sample for span in spans for sample in recording.select(app, path, span.start, span.end)])}</dd></div>"
            for app in APPS
        )
        cards.append(f"<div class='card tile'><h3>{title}</h3><dl>{numbers}</dl></div>")
    return "".join(cards)


def _share(number: float | None) -> str:
    return "–" if number is None else f"{int(number * 1000) / 10:g} %"


def _seconds(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f} s" if number >= 1 else f"{number * 1000:.0f} ms"


def _rows(verdict: Verdict) -> str:
    lines = []
    for phase, rows in itertools.groupby(verdict.rows, key=lambda row: row.phase):
        lines.append(f"<tr class='phase'><th colspan='5'>{escape(phase)}</th></tr>")
        lines += [_row(row) for row in rows]
    return "".join(lines)


def _row(row: Row) -> str:
    kind, mark = _MARKS[row.passed]
    cells = (("target", row.target), *((app, row.show(row.numbers[app])) for app in APPS))
    numbers = "".join(f"<td class='number' data-label='{label}'>{escape(text)}</td>" for label, text in cells)
    return f"<tr><td>{escape(row.claim)}</td>{numbers}<td class='mark {kind}'>{mark}</td></tr>"


def _plots(recording: Recording) -> dict[str, str]:
    frame = plots.Frame(recording.seconds, recording.spans)
    products = {app: series.by_second(recording, app, PRODUCT) for app in APPS}
    calls = {app: series.call_rates(recording, app) for app in APPS}
    busiest = max((len(second.samples) for app in APPS for second in products[app]), default=0)
    most = max((rate for app in APPS for line in calls[app].values() for _, rate in line), default=0)
    bounds = {"bare": None, "protected": recording.feature_timeout + SLACK}
    seen = [sighting for sighting in recording.sightings if sighting.at < recording.seconds]
    breakers = series.stretches([(one.at, one.breakers) for one in seen], recording.seconds)
    features = series.stretches([(one.at, one.features) for one in seen], recording.seconds)
    return {
        "answers": _pair(lambda app: plots.answers(frame, products[app], max(busiest, 1) * 1.05)),
        "products": _pair(lambda app: plots.latencies(frame, products[app], bounds[app])),
        "pings": _pair(lambda app: plots.latencies(frame, series.by_second(recording, app, PING))),
        "calls": _pair(lambda app: plots.rates(frame, calls[app], max(most, 1) * 1.05)),
        "states": _card("breakers", plots.ribbons(frame, breakers, "breaker states"))
        + _card("features", plots.ribbons(frame, features, "feature levels")),
    }


def _pair(plot: Callable[[str], str]) -> str:
    return "".join(_card(app, plot(app)) for app in APPS)


def _card(title: str, svg: str) -> str:
    return f"<figure class='card' style='margin:0'><h3>{escape(title)}</h3>{svg}</figure>"


def _made(recording: Recording) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("httpx", "fastapi", "uvicorn"))
    return escape(
        f"{len(recording.samples)} requests in {recording.seconds:g} s, seed {recording.seed}; "
        f"Python {platform.python_version()}, {versions}; "
        f"{platform.system()} on {os.cpu_count()} cores, which the load, both shops and the three services share."
    )
