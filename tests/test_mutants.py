"""The list of the mutants that no test kills: each names a line that is still there, and has a reason."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from . import mutants
from .mutants import LISTED, ROOT, Change, listed

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


DIFF = """# resilient.core.window.xǁTimeWindowǁturn__mutmut_2: survived
--- resilient/core/window.py
+++ resilient/core/window.py
@@ -1,3 +1,3 @@
 def turn(self, now: float) -> None:
-    number = int(now // self._width)
+    number = int(now / self._width)
"""
SURVIVOR = Change("window.TimeWindow.turn", "number = int(now // self._width)", "number = int(now / self._width)")


@pytest.mark.parametrize(
    ("killed", "known", "modules", "code"),
    [
        (99, {SURVIVOR: "a reason"}, [], 0),
        (99, {SURVIVOR: "a reason"}, ["window"], 0),
        (99, {}, ["window"], 1),
        (30, {SURVIVOR: "a reason"}, [], 1),
        (30, {SURVIVOR: "a reason"}, ["window"], 0),
        (0, {}, ["window"], 1),
        (99, {}, ["nothing"], 2),
    ],
)
def test_what_fails(
    killed: int,
    known: dict[Change, str],
    modules: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fared = [f"resilient.core.window.x_a__mutmut_{number}: {'timeout' if number % 9 else 'killed'}" for number in range(killed)]
    fared += ["resilient.core.window.xǁTimeWindowǁturn__mutmut_2: survived"]
    output = {"run": "", "results": "\n".join(fared), "show": DIFF}
    monkeypatch.setattr(mutants, "mutmut", lambda verb, *_, **__: output[verb])
    monkeypatch.setattr(mutants, "listed", lambda: known)
    assert mutants.main(modules) == code
    told = capsys.readouterr().out
    assert code == 2 or f"{killed} of {killed + 1} mutants killed" in told
    assert (str(SURVIVOR) in told) is (code == 1 and not known)
