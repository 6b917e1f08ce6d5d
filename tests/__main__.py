"""Every check there is, in one command: `python -m tests`, or only some of them: `python -m tests style types`.

Prints each check's name, what it says and how long it took, and exits with 1 if any failed. The later ones run all the
same, so that one run tells everything.

One more takes half an hour, and runs only when it is asked for: `python -m tests mutants` (see `tests/mutants.py`).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import mutants

ROOT = Path(__file__).parents[1]
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
        ["-m", "coverage", "run", "-m", "pytest", "-n", "auto", "--dist", "worksteal"],
        ["-m", "coverage", "combine", "--quiet"],
        ["-m", "coverage", "report"],
    ],
}


def check(name: str) -> bool:
    """Run one check and print how it went."""
    failed = []
    for arguments in CHECKS[name]:
        print(f"\n--- {name}: {' '.join(arguments).replace(LINT_IMPORTS, 'lint-imports')}", flush=True)
        if subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode != 0:
            failed.append(arguments)
    return not failed


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
    lines = []
    for name in names:
        started = time.monotonic()
        passed = check(name)
        lines.append(f"{name:8} {'passed' if passed else 'FAILED'} in {time.monotonic() - started:.0f} s")
    print("", *lines, sep="\n")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
