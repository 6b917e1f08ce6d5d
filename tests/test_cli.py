from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules[{missing!r}] = None; from resilient.cli import main; main()"


@pytest.mark.parametrize("missing", ["click", "rich", "uvicorn", "fastapi"])
def test_without_the_extra_it_says_how_to_get_it(missing: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(missing=missing), "demo"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "pip install 'resilient-asgi[demo]'" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


def test_another_missing_module_is_not_blamed_on_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(missing="anyio"), "demo"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "pip install" not in done.stderr


def test_help_names_the_demo() -> None:
    done = subprocess.run([sys.executable, "-m", "resilient.cli", "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "demo" in done.stdout
