"""The run as it happens, in the terminal: the bare shop and the protected one side by side."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .recording import APPS, PING, PRODUCT, good_share, percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from .load import Load
    from .recording import Sample
    from .run import Run
    from .timeline import Phase
    from .verdict import Verdict

GAP = 0.5  # seconds between two frames: drawing one takes time from the load, which shares the process
WINDOW = 2.0  # seconds that the numbers look back
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {"closed": "green", "half_open": "yellow", "open": "red", "full": "green"}


class Screen:
    """Draws one run; to be asked in the order of time."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self._phases = phases
        self._columns = {app: _Column() for app in APPS}
        self._drawn = 0

    def draw(self, run: Run) -> RenderableType:
        """The screen for this moment."""
        now = run.clock()
        for sample in run.recording.samples[self._drawn :]:
            self._columns[sample.app].add(sample)
        self._drawn = len(run.recording.samples)

        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(style="dim", no_wrap=True)
        for _ in APPS:
            table.add_column(ratio=1)
        table.add_row("", Text("bare", "bold"), Text("protected", "bold"))
        columns = [self._columns[app].measures(run.loads[app], now) for app in APPS]
        for name in columns[0]:
            table.add_row(name, *(column[name] for column in columns))
        seen = run.recording.sightings[-1] if run.recording.sightings else None
        table.add_row("breakers", Text("none", "dim"), _words(seen.breakers if seen else {}))
        table.add_row("features", Text("–", "dim"), _words(seen.features if seen else {}))
        return Panel(Group(self._head(run, now), _Track(self._phases, now), "", table), title="resilient demo", border_style="dim")

    def _head(self, run: Run, now: float) -> RenderableType:
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        failing = run.phase is not None and bool(run.phase.faults)
        title = run.phase.title if run.phase else "warming up"
        seconds = run.recording.seconds
        head.add_row(Text(f"● {title}", "bold red" if failing else "bold green"), f"{min(now, seconds):.0f} of {seconds:.0f} s")
        return head


@dataclass
class _Column:
    """The numbers of one app."""

    ended: deque[Sample] = field(default_factory=deque)  # of the last `WINDOW` seconds
    sent: deque[tuple[float, int]] = field(default_factory=deque)
    seconds: dict[int, list[bool]] = field(default_factory=dict)  # second -> whether each /product that ended in it was good

    def add(self, sample: Sample) -> None:
        self.ended.append(sample)
        if sample.path == PRODUCT:
            self.seconds.setdefault(int(sample.at + sample.latency), []).append(sample.good)

    def measures(self, load: Load, now: float) -> dict[str, RenderableType]:
        while self.ended and self.ended[0].at + self.ended[0].latency < now - WINDOW:
            self.ended.popleft()
        self.sent.append((now, load.sent))
        while self.sent[0][0] < now - WINDOW:
            self.sent.popleft()
        pages = [sample for sample in self.ended if sample.path == PRODUCT]
        pings = [sample for sample in self.ended if sample.path == PING]
        (since, before), span = self.sent[0], min(WINDOW, max(now, GAP))
        share = good_share(pages) or 0.0
        return {
            "requests/s": f"{(load.sent - before) / max(now - since, GAP):.0f}",
            "good answers": Text(f"{sum(page.good for page in pages) / span:.0f}/s, {share:.0%}", _grade(share)),
            "p50, p99": f"{_seconds(percentile(pages, 0.5))}, {_seconds(percentile(pages, 0.99))}",
            "/ping p99": _seconds(percentile(pings, 0.99)),
            "waiting": Text(f"{load.in_flight}, longest {_seconds(load.longest_wait)}", "bold red" if load.longest_wait > 1 else ""),
            "": _History(self.seconds, now),
        }


class _History:
    """A bar a second, the newest that fit: the share of good answers among the /product requests that ended in it."""

    def __init__(self, seconds: Mapping[int, Sequence[bool]], now: float) -> None:
        self._seconds = seconds
        self._now = int(now)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text(no_wrap=True)
        for second in range(max(0, self._now - options.max_width), self._now):
            ended = self._seconds.get(second, [])
            share = sum(ended) / len(ended) if ended else 0.0
            line.append(_BARS[round(share * (len(_BARS) - 1))], _grade(share))
        yield line


class _Track:
    """One line that is the timeline: faults in red, the time that has passed drawn thick."""

    def __init__(self, phases: Sequence[Phase], now: float) -> None:
        self._phases = phases
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ends = list(accumulate(phase.seconds for phase in self._phases))
        line = Text()
        for cell in range(options.max_width):
            at = (cell + 0.5) / options.max_width * ends[-1]
            phase = next(phase for phase, end in zip(self._phases, ends, strict=True) if at < end)
            line.append("━" if at <= self._now else "╌", "red" if phase.faults else "green")
        yield line


def _grade(share: float) -> str:
    return "green" if share >= 0.99 else "yellow" if share >= 0.5 else "red"


def _seconds(number: float | None) -> str:
    return "–" if number is None else f"{number:.1f} s" if number >= 1 else f"{number * 1000:.0f} ms"


def _words(values: Mapping[str, str]) -> Text:
    """A line for each `name value` with the value in its colour; a feature's level other than full is a degradation."""
    lines = [Text.assemble(f"{name} ", (value.replace("_", "-"), _STYLES.get(value, "bold yellow"))) for name, value in values.items()]
    return Text("\n").join(lines)


def verdict_table(verdict: Verdict) -> RenderableType:
    """The verdict's rows under their phases, and its sentence."""
    table = Table(expand=True, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("claim", ratio=1)
    for name in ("target", *APPS, ""):
        table.add_column(name, justify="right", no_wrap=True)
    for phase, rows in groupby(verdict.rows, key=lambda row: row.phase):
        table.add_row(Text(phase, "bold"))
        for row in rows:
            mark = {True: Text("✓", "bold green"), False: Text("✗", "bold red"), None: Text("?", "bold yellow")}[row.passed]
            table.add_row(Padding(row.claim, (0, 0, 0, 2)), row.target, *(row.show(row.numbers[app]) for app in APPS), mark)
    text = Text(verdict.text, "bold green" if verdict.passed else "bold red")
    return Group(table, text, Text(verdict.note, "yellow")) if verdict.note else Group(table, text)
