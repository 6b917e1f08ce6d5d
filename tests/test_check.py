"""`resilient check`, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow(measured=True)

APP = """
from fastapi import FastAPI
from resilient import Resilience, CircuitBreaker, Timeout, standard
resilience = Resilience(settings="resilient.toml")
catalog = resilience.dependency("catalog", origin="http://127.0.0.1:9001", required=True)
recs = resilience.dependency("recommendations", origin="http://127.0.0.1:9002", timeout=0.3, fallback=[])
advice = resilience.feature("advice", needs=[catalog], fallback=[])
app = FastAPI()
resilience.install(app)
"""


def check(folder: Path, *arguments: str, settings: str = "", app: str = APP) -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(app)
    (folder / "resilient.toml").write_text(settings)
    command = [sys.executable, "-m", "resilient.cli", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)


@pytest.mark.parametrize("target", ["shop:app", "shop:resilience", "shop"])
def test_it_explains_the_composition(tmp_path: Path, target: str) -> None:
    done = check(tmp_path, target, "--json", "--strict", settings="[dependencies.catalog.retry]\nattempts = 2")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    catalog, recs = told["dependencies"]
    assert [one.partition("(")[0] for one in catalog["policies"]] == ["Timeout", "Retry", "AdaptiveConcurrency", "CircuitBreaker"]
    assert catalog["policies"][1] == "Retry(attempts=2)" and catalog["required"] and catalog["usual_order"]
    assert "2 attempts" in catalog["failures"]["5xx"] and "raises CircuitOpen (feature advice" in catalog["failures"]["open circuit"]
    assert recs["failures"]["open circuit"].endswith("the fallback") and "after 0.3 s" in recs["failures"]["timeout"]
    assert told["features"][0]["needs"] == ["catalog"] and told["warnings"] == []
    assert told["middleware"] == ([] if "resilience" in target else ["ResilienceMiddleware"])


def test_checks_and_the_drain_are_told_with_the_settings_over_them(tmp_path: Path) -> None:
    app = APP + (
        'resilience.check("disk", lambda: True, required=True)\n'
        'resilience.check("recs", lambda: True, dependency=recs)\n'
        'resilience.check("note", lambda: True)\n'
    )
    settings = "[drain]\ndelay = 7\nenforce = false\n[checks.disk]\ninterval = 3.5"
    told = json.loads(check(tmp_path, "shop:app", "--json", "--strict", app=app, settings=settings).stdout)
    assert told["drain"] == {"signals": [], "delay": 7, "budget": 20.0, "close_websockets": False, "enforce": False}
    assert told["checks"] == [
        {"name": "disk", "interval": 3.5, "timeout": 2.0, "required": True, "ill": "takes the service out, holds the start-up up"},
        {"name": "recs", "interval": 10.0, "timeout": 2.0, "required": False, "ill": "of recommendations"},
        {"name": "note", "interval": 10.0, "timeout": 2.0, "required": False, "ill": "only told"},
    ]
    done = check(tmp_path, "shop:app", app=app, settings=settings)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "drain begun by no signal: 7 s until" in done.stdout and "every 3.5 s, for 2 s" in done.stdout


def test_it_is_readable_in_eighty_columns(tmp_path: Path) -> None:
    done = check(tmp_path, "shop:app")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    assert "open circuit" in done.stdout and "advice" in done.stdout


def test_warnings_count_when_strict(tmp_path: Path) -> None:
    settings = "[dependencies.catalogue]\ntimeout = 1\n[dependencies.catalog.circuit_breaker]\ncount_window = 3"
    assert check(tmp_path, "shop:app", settings=settings).returncode == 0
    done = check(tmp_path, "shop:app", "--strict", "--json", settings=settings)
    first, second = json.loads(done.stdout)["warnings"]
    assert done.returncode == 1 and "count_window=3" in first and "did you mean catalog?" in second


@pytest.mark.parametrize(
    ("target", "settings", "app", "words"),
    [
        ("nowhere:app", "", APP, "No module named 'nowhere'"),
        ("shop:other", "", APP, "other"),
        ("shop:app", "", "app = 3", "has no Resilience"),
        ("shop:app", "[dependencies.catalog.retry]\nattemps = 1", APP, "did you mean attempts?"),
        ("shop:app", "", "raise RuntimeError('http://user:hunter2@host')", "***@host"),
    ],
)
def test_errors_exit_with_two(tmp_path: Path, target: str, settings: str, app: str, words: str) -> None:
    done = check(tmp_path, target, settings=settings, app=app)
    assert done.returncode == 2 and words in done.stderr
    assert "Traceback" not in done.stderr and "hunter2" not in done.stderr
