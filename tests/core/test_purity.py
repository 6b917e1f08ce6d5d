"""The decide layer has no clock, no chance, no I/O and no await of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resilient.core.breaker

CORE = Path(resilient.core.breaker.__file__).parent
MODULES = sorted(CORE.glob("*.py"))
# socket is there for the name of one exception class.
FORBIDDEN = {"anyio", "asyncio", "concurrent", "httpx", "httpx2", "os", "random", "secrets", "time", "trio"}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_that_waits_or_reads_a_clock_is_imported(path: Path) -> None:
    assert not imported(ast.parse(path.read_text())) & FORBIDDEN


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_awaits(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)]


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__init__"], ids=lambda path: path.stem)
def test_every_file_states_its_rules(path: Path) -> None:
    assert "Rules of this file" in (ast.get_docstring(ast.parse(path.read_text())) or "")


def test_the_modules_were_found() -> None:
    assert {"breaker", "budget", "bulkhead", "deadline", "outcome", "retry", "window"} <= {path.stem for path in MODULES}
