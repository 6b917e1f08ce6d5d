"""What an import brings along. Which way imports run inside the package is import-linter's to check (pyproject.toml)."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # each of them starts a process

OPTIONAL = {"click", "fastapi", "h11", "h2", "http_sf", "httpx", "httpx2", "opentelemetry", "redis", "rich", "trio", "uvicorn"}


def loaded_by(module: str) -> set[str]:
    """The top-level modules that a fresh process has after importing `module`."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["resilient", "resilient.asgi", "resilient.testing"])
def test_neither_client_library_nor_an_extra_is_loaded(module: str) -> None:
    # pybreaker itself loads redis, and that OpenTelemetry, where they are installed.
    assert not (loaded_by(module) - loaded_by("pybreaker")) & OPTIONAL


@pytest.mark.parametrize(("module", "own", "other"), [("resilient.httpx", "httpx", "httpx2"), ("resilient.httpx2", "httpx2", "httpx")])
def test_each_door_loads_its_own_library_alone(module: str, own: str, other: str) -> None:
    loaded = loaded_by(module)
    assert own in loaded
    assert other not in loaded
