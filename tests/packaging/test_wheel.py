"""The wheel as users get it: built from the source distribution, installed where nothing else is but FastAPI."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST_PROGRAM = ROOT / "docs" / "examples" / "first_program.py"
RUNNER = ROOT / "tests" / "docs" / "run_first_program.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    # Neither the checkout nor the coverage of this run reaches into the clean environment.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE", "COV_"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, ROOT, cwd=target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and FastAPI."""
    target = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", target / "venv", cwd=target)
    python = target / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel, "fastapi", cwd=target)
    return python


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    (metadata,) = tops - {"resilient"}
    assert metadata == f"resilient_asgi-{version('resilient-asgi')}.dist-info"
    assert {"resilient/py.typed", "resilient/demo/report.html", f"{metadata}/licenses/LICENSE"} <= names


def test_it_runs_the_first_program(clean: Path, tmp_path: Path) -> None:
    done = run(clean, "-W", "error", RUNNER, FIRST_PROGRAM, cwd=tmp_path)
    assert "does what the README says" in done.stdout


def test_without_the_extra_the_command_says_how_to_get_it(clean: Path, tmp_path: Path) -> None:
    done = run(clean.parent / "resilient", "demo", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "pip install 'resilient-asgi[demo]'" in done.stderr
