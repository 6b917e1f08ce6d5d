"""Looks at the package as a type checker of its users does, by basedpyright's `--verifytypes`.

No type of a public name may be unknown, or left for each checker to infer in its own way.

Public is what `tests/test_public_names.py` lists: those functions and classes, and the public members of those classes.
Modules behind them have no underscore, so basedpyright alone would ask the same of every attribute in the package.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

MODULES = (
    "resilient",
    "resilient.asgi",
    "resilient.context",
    "resilient.errors",
    "resilient.events",
    "resilient.httpx",
    "resilient.httpx2",
    "resilient.protocols",
    "resilient.testing",
)
# That a parameter's class has an attribute somewhere that is left to inference says nothing of the parameter.
HARMLESS = ("partially unknown", "No docstring found")


def public_names() -> Iterator[str]:
    """Where the public functions and classes are defined, bases included."""
    for name in MODULES:
        module = importlib.import_module(name)
        for public in module.__all__:
            value = getattr(module, public)
            for definition in value.__mro__ if inspect.isclass(value) else [value]:
                if getattr(definition, "__module__", "").startswith("resilient"):
                    yield f"{definition.__module__}.{getattr(definition, '__qualname__', public)}"


def main() -> int:
    """Print what is wrong; returns the exit code."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--verifytypes", "resilient", "--ignoreexternal"]
    done = subprocess.run([*command, "--outputjson"], capture_output=True, text=True, check=False)
    symbols: list[dict[str, Any]] = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    names = set(public_names())
    public = [symbol for symbol in symbols if symbol["name"] in names or symbol["name"].rpartition(".")[0] in names]
    wrong = 0
    for symbol in public:
        for diagnostic in symbol["diagnostics"]:
            if not any(words in diagnostic["message"] for words in HARMLESS):
                wrong += 1
                line = diagnostic["range"]["start"]["line"] + 1 if "range" in diagnostic else 1
                print(f"{diagnostic['file']}:{line}: {symbol['name']}: {diagnostic['message'].splitlines()[0]}")
    unseen = names - {symbol["name"] for symbol in symbols}
    print(f"{len(public)} public names and members, {wrong} without a known type")
    for name in sorted(unseen):
        print(f"not found: {name}")
    return int(wrong > 0 or bool(unseen))


if __name__ == "__main__":
    sys.exit(main())
