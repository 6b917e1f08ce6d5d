"""Plots as inline SVG: plain strings, coloured by the page's CSS, so that one file reads well in light and dark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .recording import Span
    from .series import Second

WIDTH, HEIGHT = 440, 168
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 18, 20
_LATENCY_TICKS = {0.001: "1 ms", 0.01: "10 ms", 0.1: "100 ms", 1.0: "1 s", 10.0: "10 s"}


@dataclass(frozen=True)
class Frame:
    """The time axis that all plots of a page share.

    Args:
        seconds: where it ends.
        spans: the phases; failing ones are shaded and numbered.
    """

    seconds: float
    spans: Sequence[Span]

    def x(self, at: float) -> float:
        """Pixels from the left for a time."""
        return LEFT + at / self.seconds * (WIDTH - LEFT - RIGHT)

    def svg(self, label: str, content: str, height: int = HEIGHT) -> str:
        """A whole plot: bands, time axis and `content`."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
            f"{self._bands(height)}{self._time_axis(height)}{content}</svg>"
        )

    def _bands(self, height: int) -> str:
        return "".join(
            _rect("band", self.x(span.start), TOP, self.x(span.end) - self.x(span.start), height - TOP - BOTTOM)
            + f'<text class="number" x="{(self.x(span.start) + self.x(span.end)) / 2:.1f}" y="{TOP - 6}">{number}</text>'
            for number, span in enumerate((span for span in self.spans if span.failing), 1)
        )

    def _time_axis(self, height: int) -> str:
        step = _step(self.seconds, 9)
        ticks = [at * step for at in range(int(self.seconds / step) + 1)]
        return "".join(f'<text class="tick time" x="{self.x(at):.1f}" y="{height - 5}">{at:g}{"" if at else " s"}</text>' for at in ticks)


def answers(frame: Frame, seconds: Sequence[Second], top: float) -> str:
    """A column a second: full, degraded and failed answers on top of each other; `top` requests fill the height."""
    parts = [_grid(_linear_ticks(top), top)]
    for second in seconds:
        left, width, base = frame.x(second.at), frame.x(second.at + 1) - frame.x(second.at), 0.0
        for kind, count in (("full", second.full), ("degraded", second.degraded), ("failed", second.failed)):
            bottom, base = _y(base, top), base + count
            if count:
                parts.append(_rect(kind, left + 0.5, _y(base, top), width - 1, bottom - _y(base, top)))
        said = f"second {second.at}: {second.full} full, {second.degraded} degraded, {second.failed} failed"
        parts.append(_tip(left, width, said))
    return frame.svg("answers per second: full, degraded, failed", "".join(parts))


def latencies(frame: Frame, seconds: Sequence[Second], limit: float | None = None) -> str:
    """The median and the slowest request of each second, on a logarithmic scale; `limit` is drawn as a dashed line."""
    parts = [_grid({_log(tick): text for tick, text in _LATENCY_TICKS.items()}, 1.0)]
    if limit is not None:
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(_log(limit), 1):.1f}" y2="{_y(_log(limit), 1):.1f}"/>')
    parts += [
        _line(kind, ((frame.x(second.at + 0.5), getattr(second, kind)) for second in seconds), log=True) for kind in ("slowest", "median")
    ]
    for second in seconds:
        if second.median is not None and second.slowest is not None:
            said = f"second {second.at}: median {second.median * 1000:.0f} ms, slowest {second.slowest * 1000:.0f} ms"
            parts.append(_tip(frame.x(second.at), frame.x(second.at + 1) - frame.x(second.at), said))
    return frame.svg("latency of each second: median and slowest", "".join(parts))


def rates(frame: Frame, lines: Mapping[str, Sequence[tuple[float, float]]], top: float) -> str:
    """One line for each name; the class of a line is its name."""
    parts = [_grid(_linear_ticks(top), top)]
    parts += [_line(name, ((frame.x(at), value / top) for at, value in points)) for name, points in lines.items()]
    return frame.svg("requests per second to each upstream", "".join(parts))


def ribbons(frame: Frame, rows: Mapping[str, Sequence[tuple[float, float, str]]], label: str) -> str:
    """A ribbon for each name: which value it had when."""
    row = 34
    parts = []
    for number, (name, stretches) in enumerate(rows.items()):
        top = TOP + 4 + number * row
        parts.append(f'<text class="name" x="{LEFT}" y="{top + 9}">{escape(name)}</text>')
        for start, end, value in stretches:
            said = f"{name}: {value.replace('_', '-')} from {start:.1f} to {end:.1f} s"
            parts.append(_rect(value.replace("-", "_"), frame.x(start), top + 14, frame.x(end) - frame.x(start) + 0.3, 11, said))
    return frame.svg(label, "".join(parts), TOP + BOTTOM + row * len(rows) + 4)


def _step(length: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that divides a length into at most so many parts."""
    return next(step * 10.0**power for power in range(12) for step in (1, 2, 5) if length / (step * 10**power) <= most)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)


def _log(seconds: float) -> float:
    """0 for a millisecond, 1 for ten seconds."""
    return min(max((math.log10(seconds) + 3) / 4, 0.0), 1.0)


def _linear_ticks(top: float) -> dict[float, str]:
    step = _step(top, 5)
    return {tick * step: f"{tick * step:g}" for tick in range(int(top / step) + 1)}


def _grid(ticks: Mapping[float, str], top: float) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(tick, top):.1f}" y2="{_y(tick, top):.1f}"/>'
        f'<text class="tick" x="{LEFT - 5}" y="{_y(tick, top) + 3.5:.1f}">{text}</text>'
        for tick, text in ticks.items()
    )


def _line(kind: str, points: Iterable[tuple[float, float | None]], *, log: bool = False) -> str:
    path, pen = "", "M"
    for x, value in points:
        if value is None:
            pen = "M"  # a hole stays a hole
            continue
        path += f"{pen}{x:.1f} {_y(_log(value) if log else value, 1):.1f}"
        pen = "L"
    return f'<path class="line {escape(kind)}" d="{path}"/>'


def _tip(left: float, width: float, text: str) -> str:
    return _rect("tip", left, TOP, width, HEIGHT - TOP - BOTTOM, text)


def _rect(kind: str, x: float, y: float, width: float, height: float, tip: str = "") -> str:
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<rect class="{escape(kind)}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">{title}</rect>'
