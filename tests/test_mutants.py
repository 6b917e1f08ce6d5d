"""The list of the mutants that no test kills: each names a line that is still there, and has a reason."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from .mutants import LISTED, ROOT, listed

SURVIVORS = tomllib.loads(LISTED.read_text())["survivor"]


def lines_of(function: str) -> set[str]:
    """The lines of a function of the decide layer, without their indentation."""
    module, *names = function.split(".")
    source = Path(ROOT, "resilient", "core", f"{module}.py").read_text()
    node: ast.AST = ast.parse(source)
    for name in names:
        node = next(part for part in ast.iter_child_nodes(node) if isinstance(part, ast.ClassDef | ast.FunctionDef) and part.name == name)
    assert isinstance(node, ast.FunctionDef)
    return {line.strip() for line in source.splitlines()[node.lineno - 1 : node.end_lineno]}


@pytest.mark.parametrize("entry", SURVIVORS, ids=lambda entry: entry["function"])
def test_a_survivor_is_of_a_function_that_there_is(entry: dict[str, str]) -> None:
    assert entry.keys() == {"function", "was", "now", "reason"}
    assert set(entry["was"].splitlines()) <= lines_of(entry["function"])
    assert entry["was"] != entry["now"]
    assert len(entry["reason"]) > 10


def test_no_survivor_is_listed_twice() -> None:
    assert len(listed()) == len(SURVIVORS)
