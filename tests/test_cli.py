from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules[{missing!r}] = None; from resilient.cli import main; main()"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["click", "fastapi", "rich", "uvicorn"])
def test_without_the_extra_it_says_how_to_get_it(missing: str) -> None:
    done = run("-c", WITHOUT.format(missing=missing), "demo")
    assert done.returncode == 2
    assert "pip install 'resilient-asgi[demo]'" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_another_missing_module_is_not_blamed_on_the_extra() -> None:
    done = run("-c", WITHOUT.format(missing="anyio"), "demo")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "pip install" not in done.stderr


def test_help_names_the_demo() -> None:
    done = run("-m", "resilient.cli", "--help")
    assert done.returncode == 0
    assert "demo" in done.stdout
