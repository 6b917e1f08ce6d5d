"""Every check there is, in one command: `python -m tests`, or only some of them: `python -m tests style types`.

Prints each check's name, what it says and how long it took, and exits with 1 if any failed. The later ones run all the
same, so that one run tells everything.

With THOROUGH=1 in the environment, tests that draw their cases at random draw three times as many (see `tests/thorough.py`).

One more takes half an hour, and runs only when it is asked for: `python -m tests mutants` (see `tests/mutants.py`).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import mutants

ROOT = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = CORES + 1
"""Half of the time that tests take they wait: for a socket, a process, a browser. What one more has to import costs seconds."""
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"

CHECKS = {
    "style": [
        ["-m", "ruff", "check"],
        ["-m", "ruff", "format", "--check"],
    ],
    "types": [
        ["-m", "mypy"],
        ["-m", "basedpyright"],
        ["tests/typing/complete.py"],
    ],
    "layers": [["-c", LINT_IMPORTS, "--no-logo"]],
    "tests": [
        ["-m", "coverage", "erase"],
        ["-m", "coverage", "run", "-m", "pytest", "-n", str(WORKERS), "--dist", "worksteal"],
        ["-m", "coverage", "combine", "--quiet"],
        ["-m", "coverage", "report"],
    ],
}


TOGETHER = ("style", "types", "layers")
"""However busy the machine is, these find the same. Tests may look at a clock, and come when these have ended."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    passed: bool
    seconds: float
    said: str = ""


def environment() -> dict[str, str]:
    """What is compiled is kept: else each worker rewrites every assertion, and each program under test compiles the package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(arguments: list[str], *, quiet: bool) -> Ended:
    """Run one command; quiet, what it says is kept for later."""
    started = time.monotonic()
    stdout, stderr = (subprocess.PIPE, subprocess.STDOUT) if quiet else (None, None)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment(), check=False, stdout=stdout, stderr=stderr, text=True)
    return Ended(done.returncode == 0, time.monotonic() - started, done.stdout or "")


def head(name: str, arguments: list[str]) -> None:
    print(f"\n--- {name}: {' '.join(arguments).replace(LINT_IMPORTS, 'lint-imports')}", flush=True)


def check(names: list[str]) -> dict[str, list[Ended]]:
    """Run the checks: those that may be run together on as many cores as there are, and then the others."""
    ended: dict[str, list[Ended]] = {}
    with ThreadPoolExecutor(CORES) as cores:
        running = {name: [cores.submit(run, arguments, quiet=True) for arguments in CHECKS[name]] for name in names if name in TOGETHER}
        for name, commands in running.items():
            ended[name] = []
            for arguments, command in zip(CHECKS[name], commands, strict=True):
                ended[name].append(command.result())
                head(name, arguments)
                print(ended[name][-1].said, end="", flush=True)
    for name in names:
        if name not in TOGETHER:
            ended[name] = []
            for arguments in CHECKS[name]:
                head(name, arguments)
                ended[name].append(run(arguments, quiet=False))
    return ended


def main() -> int:
    """Run the checks that were asked for, or all; returns the exit code."""
    if sys.argv[1:2] == ["mutants"]:
        return mutants.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests", description="Check the style, the types, the layers, and run the tests.")
    parser.add_argument("checks", nargs="*", metavar="check", help=f"one of {', '.join(CHECKS)}; all by default")
    parser.epilog = "For itself: `mutants [module ...]` tests the tests of resilient/core, or of some of its modules."
    names = parser.parse_args().checks or list(CHECKS)
    if unknown := set(names) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    # Who starts this in the background has Ctrl-C ignored, down to the programs under test, some of which it should end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = check(names)
    print()
    for name, commands in ended.items():
        passed = all(command.passed for command in commands)
        print(f"{name:8} {'passed' if passed else 'FAILED'} in {sum(command.seconds for command in commands):.0f} s")
    return int(not all(command.passed for commands in ended.values() for command in commands))


if __name__ == "__main__":
    sys.exit(main())
