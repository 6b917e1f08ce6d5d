"""What a run of the suite is told as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

Groups = list[dict[str, Any]]

JUDGED = ("pass", "fail", "not optimal", "yes", "no")
"""The results that say something of the cache; the others say that it could not be asked."""
FAILED = frozenset({"fail", "harness"})
WIDTH = 58

_AGE = "RFC 9111 section 5.1: the first member counts, an invalid value is ignored"
OVERTAKEN = {
    **dict.fromkeys(
        (
            "age-parse-nonnumeric",
            "age-parse-negative",
            "age-parse-float",
            "age-parse-prefix-twoline",
            "age-parse-dup-0",
            "age-parse-dup-0-twoline",
            "age-parse-dup-old",
            "age-parse-parameter",
            "age-parse-numeric-parameter",
        ),
        _AGE,
    ),
    "304-etag-update-response-Content-MD5": "RFC 9111 section 3.2: it is updated like any other field",
    "304-etag-update-response-ETag": "RFC 9111 section 4.3.4: another strong ETag validates nothing that is stored",
}
"""Required tests of this release, which is older than RFC 9111, that ask for the opposite of it; the suite's source has since
turned them round or made them checks. They are counted as the suite counts them, but fail no run."""


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
    overtaken = sum(test["id"] in OVERTAKEN for test in _failures(groups))
    if overtaken:
        yield ""
        yield f"{overtaken} of the required tests that failed ask for the opposite of RFC 9111, which is younger than they are"
    yield from _told("required, failed", groups, "required", FAILED)
    yield from _told("required, not judged", groups, "required", {"setup", "dependency", "retry", "untested"})
    yield from _told("optimal, not reached", groups, "optimal", {"not optimal", "harness", "setup", "dependency", "retry", "untested"})


def failed(groups: Groups) -> bool:
    """Whether a required test failed that RFC 9111 has not overtaken."""
    return any(test["id"] not in OVERTAKEN for test in _failures(groups))


def totals(groups: Groups) -> dict[str, dict[str, int]]:
    """How many tests of each kind had each result."""
    kinds: dict[str, Counter[str]] = {}
    for test in _tests(groups):
        kinds.setdefault(test["kind"], Counter())[test["result"]] += 1
    return {kind: dict(counts) for kind, counts in kinds.items()}


def _failures(groups: Groups) -> list[dict[str, Any]]:
    return [test for test in _tests(groups) if test["kind"] == "required" and test["result"] in FAILED]


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
            why = OVERTAKEN.get(test["id"], "") if test["result"] in FAILED else ""
            yield f"  {group['id']:15} {test['id']:55} {test['result']:12} {test['detail']}{why and f' ({why})'}".rstrip()
