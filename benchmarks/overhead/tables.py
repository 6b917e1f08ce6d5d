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
    yield f"  {'':<44}{'added us':>9}{'p10':>9}{'p90':>9}{'net us':>9}{'ours/it':>9}{'net/it':>9}  lacks"
    for row in result.rows:
        yield _line(row)
    for verdict in result.verdicts:
        yield f"  => {verdict}"


def _line(row: Row) -> str:
    name = f"{row.library}, {row.variant}" if row.variant else row.library
    added = row.added
    cells = (added.median, added.p10, added.p90, row.net.median if row.net else None, row.ratio, row.net_ratio)
    return f"  {name[:43]:<44}{''.join(f'{_number(cell):>9}' for cell in cells)}  {row.lacks}".rstrip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def of_ratios(results: Sequence[Result]) -> Iterator[str]:
    """Our median over each rival's, all cases at a glance; the best entry of a rival, `*` where it does less work."""
    libraries = list(dict.fromkeys(row.library for result in results for row in result.rows if row.ratio is not None))
    if not libraries:
        return
    yield ""
    yield "ours / rival (below 1: ours adds less; *: the rival does less work; net: ours minus the empty pipeline)"
    yield f"  {'':<19}" + "".join(f"{library:>13}" for library in libraries)
    for result in results:
        yield _ratio_line(result, libraries, net=False)
        if result.case.single:
            yield _ratio_line(result, libraries, net=True)


def _ratio_line(result: Result, libraries: Sequence[str], *, net: bool) -> str:
    cells = []
    for library in libraries:
        ratios = [(row.net_ratio if net else row.ratio, row.lacks) for row in result.rows if row.library == library]
        ratio, lacks = max(((ratio, lacks) for ratio, lacks in ratios if ratio is not None), default=(None, ""))
        cells.append(f"{_number(ratio) or '-'}{'*' if lacks else ' '}")
    return f"  {result.case.name + (' (net)' if net else ''):<19}" + "".join(f"{cell:>13}" for cell in cells)


def of_memory(memory: dict[str, dict[str, float]]) -> Iterator[str]:
    """Bytes of an idle breaker for each library."""
    yield ""
    yield f"memory: one idle breaker, bytes   (goal {GOAL})"
    yield f"  {'':<44}{'fresh':>9}{'after 1':>9}"
    for library, bytes_each in memory.items():
        yield f"  {library:<44}{bytes_each['fresh']:>9.0f}{bytes_each['touched']:>9.0f}"
