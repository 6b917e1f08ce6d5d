"""Mutation tests of the decide layer: `python -m tests mutants`, or of some of its modules: `python -m tests mutants breaker window`.

mutmut (its settings are in pyproject.toml) changes one thing at a time in one function of `resilient/core` and runs the
tests in `tests/core` that reach this function; a test has to fail, or to hang. It leaves out what stands outside of
functions, and functions with a decorator, properties above all.

The mutants that no test kills are listed in `tests/core/survivors.toml`, each with a reason. Exits with 1 when one
survives that is not listed, or when fewer are killed of the whole layer than `LEAST`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests" / "core" / "survivors.toml"
# Where mutmut puts the copy that it changes.
COPY = ROOT / "mutants"
LEAST = 0.97
KILLED = {"killed", "timeout", "segfault"}


@dataclass(frozen=True)
class Change:
    """What a mutant does, said so that it stays true when something else in the function changes.

    Attributes:
        function: module and qualified name, below `resilient.core`.
        was: the lines that it changes, without their indentation.
        now: what it makes of them.
    """

    function: str
    was: str
    now: str

    def __str__(self) -> str:
        return f'[[survivor]]\nfunction = "{self.function}"\nwas = {self.was!r}\nnow = {self.now!r}\nreason = ""\n'


def listed() -> dict[Change, str]:
    """The survivors that are known, with the reason for each."""
    entries = tomllib.loads(LISTED.read_text())["survivor"]
    return {Change(entry["function"], entry["was"], entry["now"]): entry["reason"] for entry in entries}


def run(modules: list[str]) -> dict[str, str]:
    """Make the mutants, test them; returns how each fared, by mutmut's name for it."""
    # What mutmut remembers from another time it would not try again.
    shutil.rmtree(COPY, ignore_errors=True)
    mutmut("run", *[f"resilient.core.{module}.*" for module in modules or layer()])
    lines = mutmut("results", "--all", "true", capture=True).splitlines()
    fared = dict(line.strip().rsplit(": ", 1) for line in lines)
    return {name: status for name, status in fared.items() if module_of(name) in (modules or layer())}


def layer() -> list[str]:
    """The modules of resilient/core."""
    return sorted({path.stem for path in (ROOT / "resilient" / "core").glob("*.py")} - {"__init__"})


def module_of(name: str) -> str:
    """The module of resilient/core that a mutant is of."""
    return name.split(".")[2]


def mutmut(*arguments: str, capture: bool = False) -> str:
    """Run mutmut; returns what it printed, if that is captured."""
    output = subprocess.PIPE if capture else None
    code = "from mutmut.__main__ import cli; cli()"
    thorough = {**os.environ, "THOROUGH": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=thorough, check=False, stdout=output, text=True)
    if done.returncode != 0:
        sys.exit(f"mutmut {arguments[0]} failed")
    return done.stdout or ""


def change(name: str) -> Change:
    """What the mutant of that name does."""
    module, mangled = name.split(".")[2:]
    # x_function, or xǁClassǁmethod
    function = mangled.partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    lines = [line for line in mutmut("show", name, capture=True).splitlines() if not line.startswith(("---", "+++"))]
    was, now = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Change(f"{module}.{function}", was, now)


def main(modules: list[str]) -> int:
    """Returns the exit code."""
    if unknown := [module for module in modules if not (ROOT / "resilient" / "core" / f"{module}.py").exists()]:
        print(f"no such module in resilient/core: {', '.join(unknown)}")
        return 2
    fared = run(modules)
    if not fared:
        print("no mutants were made")
        return 1
    totals = Counter(map(module_of, fared))
    killed = Counter(module_of(name) for name, status in fared.items() if status in KILLED)
    for module in sorted(totals):
        print(f"{module:12} {killed[module]:4} of {totals[module]:4} killed")
    share = killed.total() / totals.total()
    print(f"{killed.total()} of {totals.total()} mutants killed: {share:.1%}, of the whole layer at least {LEAST:.0%} are to be")
    known = listed()
    survivors = {name: change(name) for name, status in fared.items() if status not in KILLED}
    news = {name: survivor for name, survivor in survivors.items() if survivor not in known}
    for name, survivor in news.items():
        print(f"\n# {name} {fared[name]}, and is not in {LISTED.relative_to(ROOT)}:\n{survivor}")
    for survivor in known.keys() - survivors.values():
        if survivor.function.partition(".")[0] in totals:
            print(f"\n# killed, although listed:\n{survivor}")
    return int(bool(news) or (share < LEAST and not modules))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
