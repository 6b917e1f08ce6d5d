"""What is said of checks and of the start-up from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resilient import Resilience, Settings, SettingsError

FILE = """
readiness = "required"
startup_timeout = 90
start_anyway = false

[checks.disk]
interval = 5
required = true

[checks."big-disk"]
timeout = 1.5
"""


async def ok() -> None: ...


def service(text: str = FILE, **environ: str) -> Resilience:
    import tomllib

    return Resilience(settings=Settings(tomllib.loads(text), environ=environ))


def test_the_file_stands_over_the_program_and_the_environment_over_both() -> None:
    resilience = service(RESILIENT_CHECKS__BIG_DISK__TIMEOUT="0.5", RESILIENT_STARTUP_TIMEOUT="30", RESILIENT_CHECKS__DISK__STARTUP="true")
    resilience.check("disk", ok, interval=60, timeout=7)
    resilience.check("big-disk", ok)
    resilience.check("other", ok, interval=60)
    health, checks = resilience.health, resilience.checks
    assert (health.readiness, health.startup.timeout, health.startup.anyway) == ("required", 30, False)
    disk = checks["disk"]
    assert (disk.interval, disk.timeout, disk.required, disk.startup) == (5, 7, True, True)
    assert (checks["big-disk"].timeout, checks["other"].interval) == (0.5, 60)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"readiness": "all"}, "readiness: expected local or required"),
        ({"checks": {"disk": {"intervall": 3}}}, "did you mean interval"),
        ({"checks": {"disk": {"fn": 3}}}, "a check has no setting 'fn'"),
        ({"checks": {"disk": {"timeout": {"total": 3}}}}, "checks.disk.timeout: expected a number"),
        ({"checks": {"disk": {"interval": "often"}}}, "checks.disk.interval: expected a number"),
        ({"checks": 3}, "checks: expected a table"),
        ({"start_any_way": True}, "did you mean start_anyway"),
    ],
)
def test_what_nobody_knows_is_refused(settings: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Resilience(settings=settings)


def test_what_is_out_of_bounds_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="startup_timeout must be above 0"):
        Resilience(settings={"startup_timeout": -1})
    with pytest.raises(ValueError, match="interval must be above 0"):
        service("[checks.disk]\ninterval = 0").check("disk", ok)


def test_a_name_that_nobody_declares_is_told() -> None:
    resilience = service("[checks.dsik]\ninterval = 3", RESILIENT_CHECKS__DISKS__TIMEOUT="3")
    resilience.check("disk", ok)
    told = [str(one) for one in resilience.settings.unused(resilience.dependencies, resilience.features, resilience.checks)]
    assert len(told) == 2 and all("did you mean disk" in one for one in told)


def test_they_take_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "resilient.toml"
    path.write_text(FILE)
    resilience = Resilience(settings=path)
    resilience.check("disk", ok)
    assert resilience.reload() == []
    path.write_text(FILE.replace("interval = 5", "interval = 6").replace("= 90", "= 80"))
    with pytest.raises(SettingsError, match=r"startup_timeout.*checks\.disk\.interval: can't be changed.*takes a restart"):
        resilience.reload()
    assert resilience.checks["disk"].interval == 5
