"""The figures as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overhead.figures import Result, Row
from overhead.memory import GOAL


def of_result(result: Result) -> Iterator[str]:
    """A case's table and verdicts."""
    case = result.case
    yield ""
    yield f"{case.name}: {case.title}   (bare call {result.bare.median:.3g} us)"
    yield f"  {'':<44}{'added us':>9}{'p10':>9}{'p90':>9}{'net us':>9}{'ours/it':>9}  lacks"
    for row in result.rows:
        yield _line(row)
    for verdict in result.verdicts:
        yield f"  => {verdict}"


def _line(row: Row) -> str:
    name = f"{row.library}, {row.variant}" if row.variant else row.library
    net = f"{row.net.median:.2f}" if row.net else ""
    ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
    added = row.added
    return f"  {name[:43]:<44}{added.median:>9.2f}{added.p10:>9.2f}{added.p90:>9.2f}{net:>9}{ratio:>9}  {row.lacks}".rstrip()


def of_ratios(results: Sequence[Result]) -> Iterator[str]:
    """Our median over each rival's, all cases at a glance; the best entry of a rival, `*` where it does less work."""
    libraries = list(dict.fromkeys(row.library for result in results for row in result.rows if row.ratio is not None))
    if not libraries:
        return
    yield ""
    yield "ours / rival (below 1: ours adds less; *: the rival does less work)"
    yield f"  {'':<17}" + "".join(f"{library:>14}" for library in libraries)
    for result in results:
        cells = []
        for library in libraries:
            rows = [row for row in result.rows if row.library == library and row.ratio is not None]
            best = max(rows, key=lambda row: row.ratio or 0.0, default=None)
            cells.append(f"{best.ratio:.2f}{'*' if best.lacks else ' '}" if best else "- ")
        yield f"  {result.case.name:<17}" + "".join(f"{cell:>14}" for cell in cells)


def of_memory(memory: dict[str, dict[str, float]]) -> Iterator[str]:
    """Bytes of an idle breaker for each library."""
    yield ""
    yield f"memory: one idle breaker, bytes   (goal {GOAL})"
    yield f"  {'':<44}{'fresh':>9}{'after 1':>9}"
    for library, bytes_each in memory.items():
        yield f"  {library:<44}{bytes_each['fresh']:>9.0f}{bytes_each['touched']:>9.0f}"
