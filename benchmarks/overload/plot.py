"""The picture: goodput and the slowest answers over the load, as SVG, without a library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

COLOURS = {"ours": "#0a7", "bare": "#c33"}
NAMES = {"ours": "with admission", "bare": "bare"}
WIDTH, HEIGHT, LEFT, TOP = 360, 240, 60, 50


def plot(apps: dict[str, list[dict[str, Any]]], capacity: float, burn: float) -> str:
    """Two panels: what is served, in terms of what can be, and the 99th percentile of its time, which is logarithmic."""
    rows = [row for app in apps.values() for row in app]
    most = max([1.0, *(row["of_capacity"] for row in rows)]) * 1.15
    slowest = max([10.0, *(row["p99_ms"] for row in rows if row["p99_ms"])]) * 1.5

    def goodput(row: dict[str, Any]) -> float:
        return float(row["of_capacity"] / most)

    def p99(row: dict[str, Any]) -> float | None:
        return None if row["p99_ms"] is None else max(math.log10(row["p99_ms"] / 5) / math.log10(slowest / 5), 0.0)

    ticks = [0.25, 0.5, 0.75, 1.0]
    times = [ms for ms in (10, 30, 100, 300, 1000, 3000) if ms <= slowest]
    panels = [
        _panel(apps, 0, "served in time, of the capacity", goodput, [(f"{tick:g}", tick / most) for tick in ticks]),
        _panel(apps, 1, "p99 of what is served, ms", p99, [(str(ms), math.log10(ms / 5) / math.log10(slowest / 5)) for ms in times]),
    ]
    head = f"{burn * 1000:g} ms of CPU a request, capacity {capacity:.0f} a second"
    width, height = 2 * (WIDTH + LEFT) + 40, HEIGHT + TOP + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/><text x="{LEFT}" y="18" font-size="14">{head}</text>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(
    apps: dict[str, list[dict[str, Any]]],
    number: int,
    title: str,
    share: Callable[[dict[str, Any]], float | None],
    ticks: list[tuple[str, float]],
) -> str:
    left = LEFT + number * (WIDTH + LEFT + 10)
    bottom = TOP + HEIGHT

    def x(factor: float) -> float:
        return left + factor / 5.2 * WIDTH

    def y(value: float) -> float:
        return bottom - value * HEIGHT

    parts = [f'<text x="{left}" y="{TOP - 8}">{title}</text>']
    for label, at in ticks:
        parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{label}</text>')
    parts += [f'<text x="{x(factor):.1f}" y="{bottom + 16}" text-anchor="middle">{factor:g}x</text>' for factor in (0.5, 1, 1.5, 3, 5)]
    parts.append(f'<path d="M{left} {TOP}V{bottom}H{left + WIDTH}" fill="none" stroke="#333"/>')
    for order, (app, rows) in enumerate(apps.items()):
        points = [(x(row["factor"]), y(value)) for row in rows if (value := share(row)) is not None]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[app]}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{COLOURS[app]}"/>' for px, py in points]
        parts.append(f'<text x="{left + 8 + order * 130}" y="{bottom + 36}" fill="{COLOURS[app]}">{NAMES[app]}</text>')
    return "".join(parts)
