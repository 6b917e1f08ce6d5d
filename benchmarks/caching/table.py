"""What a run of the suite is told as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

Groups = list[dict[str, Any]]

JUDGED = ("pass", "fail", "not optimal", "yes", "no")
"""The results that say something of the cache; the others say that it could not be asked."""
WIDTH = 58


def lines(groups: Groups, peers: list[dict[str, Any]], subject: str) -> Iterator[str]:
    """The table by group, that of the published results, and every test that went wrong."""
    yield f"{'':{WIDTH}}{'required':>14}{'optimal':>14}{'checks':>12}   not judged"
    yield f"{'':{WIDTH}}{'pass/fail':>14}{'pass/not':>14}{'yes/no':>12}"
    for group in groups:
        yield _row(f"{group['id']:15} {group['name']}", group["tests"])
    yield ""
    yield _row(subject, _tests(groups))
    for peer in peers:
        yield _row(f"{peer['name']} {peer['version']} (published with the suite)", _tests(peer["groups"]))
    yield from _told("required, failed", groups, "required", {"fail", "harness"})
    yield from _told("required, not judged", groups, "required", {"setup", "dependency", "retry", "untested"})
    yield from _told("optimal, not reached", groups, "optimal", {"not optimal", "harness", "setup", "dependency", "retry", "untested"})


def failed(groups: Groups) -> bool:
    """Whether a required test failed."""
    return any(test["kind"] == "required" and test["result"] in {"fail", "harness"} for test in _tests(groups))


def totals(groups: Groups) -> dict[str, dict[str, int]]:
    """How many tests of each kind had each result."""
    kinds: dict[str, Counter[str]] = {}
    for test in _tests(groups):
        kinds.setdefault(test["kind"], Counter())[test["result"]] += 1
    return {kind: dict(counts) for kind, counts in kinds.items()}


def _tests(groups: Groups) -> list[dict[str, Any]]:
    return [test for group in groups for test in group["tests"]]


def _row(name: str, tests: list[dict[str, Any]]) -> str:
    count = Counter((test["kind"], test["result"]) for test in tests)
    other = Counter(test["result"] for test in tests if test["result"] not in JUDGED)

    def pair(kind: str, good: str, bad: str) -> str:
        return f"{count[kind, good]}/{count[kind, bad]}" if any(test["kind"] == kind for test in tests) else "-"

    cells = f"{pair('required', 'pass', 'fail'):>14}{pair('optimal', 'pass', 'not optimal'):>14}{pair('check', 'yes', 'no'):>12}"
    return f"{name[: WIDTH - 1]:{WIDTH}}{cells}   {' '.join(f'{number} {result}' for result, number in sorted(other.items()))}".rstrip()


def _told(title: str, groups: Groups, kind: str, results: Iterable[str]) -> Iterator[str]:
    told = [(group, test) for group in groups for test in group["tests"] if test["kind"] == kind and test["result"] in results]
    if told:
        yield ""
        yield f"{title}: {len(told)}"
        for group, test in told:
            yield f"  {group['id']:15} {test['id']:55} {test['result']:12} {test['detail']}".rstrip()
