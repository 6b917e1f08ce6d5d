"""`resilient check`, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from resilient.check.command import check as command

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


class Done(NamedTuple):
    """What came of the command."""

    returncode: int
    stdout: str
    stderr: str


Check = Callable[..., Done]


def write(folder: Path, settings: str, app: str) -> None:
    (folder / "shop.py").write_text(app)
    (folder / "resilient.toml").write_text(settings)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs the command in this process, as the first one there that imports the shop."""

    def check(*arguments: str, settings: str = "", app: str = APP) -> Done:
        write(tmp_path, settings, app)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "path", [*sys.path])
            patch.setitem(sys.modules, "shop", None)  # put back afterwards
            del sys.modules["shop"]
            done = CliRunner().invoke(command, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return check


@pytest.mark.slow
def test_it_is_a_command_of_its_own(tmp_path: Path, check: Check) -> None:
    def run(*arguments: str) -> Done:
        told = [sys.executable, "-m", "resilient.cli", "check", *arguments]
        done = subprocess.run(told, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
        return Done(done.returncode, done.stdout, done.stderr)

    settings = "[dependencies.catalogue]\ntimeout = 1"
    write(tmp_path, settings, APP)
    explained, strict, wrong = run("shop:app"), run("shop:app", "--strict", "--json"), run("nowhere:app")
    assert (explained.returncode, strict.returncode, wrong.returncode) == (0, 1, 2)
    assert explained == check("shop:app", settings=settings)
    assert strict == check("shop:app", "--strict", "--json", settings=settings)
    assert wrong == check("nowhere:app", settings=settings)


@pytest.mark.parametrize("target", ["shop:app", "shop:resilience", "shop"])
def test_it_explains_the_composition(check: Check, target: str) -> None:
    done = check(target, "--json", "--strict", settings="[dependencies.catalog.retry]\nattempts = 2")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    catalog, recs = told["dependencies"]
    assert [one.partition("(")[0] for one in catalog["policies"]] == ["Timeout", "Retry", "AdaptiveConcurrency", "CircuitBreaker"]
    assert catalog["policies"][1] == "Retry(attempts=2)" and catalog["required"] and catalog["usual_order"]
    assert "2 attempts" in catalog["failures"]["5xx"] and "raises CircuitOpen (feature advice" in catalog["failures"]["open circuit"]
    assert recs["failures"]["open circuit"].endswith("the fallback") and "after 0.3 s" in recs["failures"]["timeout"]
    assert told["features"][0]["needs"] == ["catalog"] and told["warnings"] == []
    assert told["middleware"] == ([] if "resilience" in target else ["ResilienceMiddleware"])


def test_checks_and_the_drain_are_told_with_the_settings_over_them(check: Check) -> None:
    app = APP + (
        'resilience.check("disk", lambda: True, required=True)\n'
        'resilience.check("recs", lambda: True, dependency=recs)\n'
        'resilience.check("note", lambda: True)\n'
    )
    settings = "[drain]\ndelay = 7\nenforce = false\n[checks.disk]\ninterval = 3.5"
    told = json.loads(check("shop:app", "--json", "--strict", app=app, settings=settings).stdout)
    assert told["drain"] == {"signals": [], "delay": 7, "budget": 20.0, "close_websockets": False, "enforce": False}
    assert told["checks"] == [
        {"name": "disk", "interval": 3.5, "timeout": 2.0, "required": True, "ill": "takes the service out, holds the start-up up"},
        {"name": "recs", "interval": 10.0, "timeout": 2.0, "required": False, "ill": "of recommendations"},
        {"name": "note", "interval": 10.0, "timeout": 2.0, "required": False, "ill": "only told"},
    ]
    done = check("shop:app", app=app, settings=settings)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "drain begun by no signal: 7 s until" in done.stdout and "every 3.5 s, for 2 s" in done.stdout


def test_it_is_readable_in_eighty_columns(check: Check) -> None:
    done = check("shop:app")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    assert "open circuit" in done.stdout and "advice" in done.stdout


def test_warnings_count_when_strict(check: Check) -> None:
    settings = "[dependencies.catalogue]\ntimeout = 1\n[dependencies.catalog.circuit_breaker]\ncount_window = 3"
    assert check("shop:app", settings=settings).returncode == 0
    done = check("shop:app", "--strict", "--json", settings=settings)
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
def test_errors_exit_with_two(check: Check, target: str, settings: str, app: str, words: str) -> None:
    done = check(target, settings=settings, app=app)
    assert done.returncode == 2 and words in done.stderr
    assert "Traceback" not in done.stderr and "hunter2" not in done.stderr
