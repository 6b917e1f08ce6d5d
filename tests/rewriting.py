"""Who rewrites the assertions of which file, where several workers are about to import all of them.

pytest does so when a file is imported, and keeps the result beside it for the next run. In a checkout that has none yet this is
most of what a collection takes; and workers that begin together, at the same file, would all do all of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

import pytest


def rewrite_share(config: pytest.Config, files: list[Path]) -> None:
    """Rewrite every n-th file as one of n workers; the others' are there when it comes by, or it does that itself."""
    worker: dict[str, object] = getattr(config, "workerinput", {})
    loader = next((finder for finder in sys.meta_path if type(finder).__name__ == "AssertionRewritingHook"), None)
    if not worker or loader is None or sys.dont_write_bytecode:
        return
    first, step = int(str(worker["workerid"]).removeprefix("gw")), int(str(worker["workercount"]))
    for file in files[first::step]:
        spec = importlib.util.spec_from_file_location(f"rewritten.{file.stem}", file, loader=loader)  # type: ignore[arg-type]
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # It is rewritten and kept, and then ends at its first import: nothing of it is to run here.
        module.__dict__["__builtins__"] = {}
        with contextlib.suppress(ImportError):
            spec.loader.exec_module(module)
