from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .records import RECORDS, RUN, SKIPS, named, of_word

TESTS = Path(__file__).parents[1]


def run_by(source: str) -> set[str]:
    """The records that tests of a module have as parameters: named there one by one, or taken by the first word of their ids."""
    module = ast.parse(source)
    lists = {
        target.id: statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_"):
            for decorator in function.decorator_list:
                for node in parameters(decorator, lists):
                    found |= told(node)
    return found


def parameters(decorator: ast.expr, lists: dict[str, ast.expr]) -> Iterator[ast.AST]:
    """What stands in a decorator, and in the lists that it takes its parameters from."""
    for node in ast.walk(decorator):
        yield node
        if isinstance(node, ast.Name) and node.id in lists:
            yield from ast.walk(lists[node.id])


def told(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return named(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "records":
        return {name for word in node.args if isinstance(word, ast.Constant) for name in of_word(str(word.value))}
    return set()


@pytest.mark.slow
def test_every_record_is_a_parameter_of_a_test_or_skipped_with_a_reason() -> None:
    run = set().union(*(run_by(path.read_text()) for path in TESTS.glob("*/test_*.py") if path != Path(__file__)))
    assert [name for name in RECORDS if name not in SKIPS and name not in run] == []


def test_a_word_without_a_test_is_none() -> None:
    here = Path(__file__)
    run = set().union(*(run_by(path.read_text()) for path in here.parent.glob("test_*.py") if path != here))
    assert {name.split("-")[0] for name in run} == set(RUN)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("@parametrize('x', [param(1, id='rate-01 at once')])\ndef test_it(x): ...", {"rate-01"}),
        ("@parametrize('x', ['rate-01', 'rate-03'])\nasync def test_it(x): ...", {"rate-01", "rate-03"}),
        ("CASES = [param(1, id='rate-05')]\n@parametrize('x', CASES)\ndef test_it(x): ...", {"rate-05"}),
        ("@parametrize('record', records('config'))\ndef test_it(record): ...", {"config-validate-01"}),
        ("# rate-01\nOTHER = 'rate-03'\ndef test_it(): 'rate-05'", set()),
        ("@parametrize('x', ['rate-01'])\ndef it(x): ...", set()),
        ("@parametrize('x', ['rate'])\ndef test_it(x): ...", set()),
        ("records('config')\ndef test_it(): ...", set()),
    ],
    # Without those of the records: the ids of tests are what is counted.
    ids=["named", "two", "a list", "by its word", "in words", "no test", "a word alone", "taken by no test"],
)
def test_what_counts_as_a_test_of_a_record(source: str, found: set[str]) -> None:
    assert run_by(source) == found


def test_a_reason_belongs_to_a_record_and_is_one_line() -> None:
    assert set(SKIPS) <= set(RECORDS)
    for reason in SKIPS.values():
        assert reason.strip() and "\n" not in reason
