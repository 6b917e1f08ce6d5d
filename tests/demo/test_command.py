"""`resilient demo` as its user runs it: real processes on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import resilient
from resilient.demo.processes import SHOPS, UPSTREAMS

DEMO = (sys.executable, "-m", "resilient.cli", "demo")
# The children look for the package where it is installed, never in the working directory; here that is wherever this one is.
HERE = {"PYTHONPATH": str(Path(resilient.__file__).parents[1])}
pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [*DEMO, *map(str, options)]
    return subprocess.run(command, env={**os.environ, **HERE}, capture_output=True, text=True, check=False, timeout=100)


def start(*options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *map(str, options)], env={**os.environ, **HERE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow(measured=True)  # the one that goes through the processes' own code
def test_a_short_run_leaves_a_complete_record_and_no_process(tmp_path: Path) -> None:
    record, report = tmp_path / "run.json", tmp_path / "run.html"
    done = run("--seconds", 5, "--rate", 10, "--no-live", "--json", record, "--report", report)
    assert done.returncode == 1, done.stderr  # five seconds are too short to prove anything
    assert done.stderr == ""
    assert report.as_uri() in done.stdout
    assert report.read_text(encoding="utf-8").rstrip().endswith("</html>")

    told: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    assert set(told["processes"]) == {*UPSTREAMS, *SHOPS}
    assert all(gone(pid) for pid in told["processes"].values())
    assert [phase["name"] for phase in told["phases"]] == ["healthy", "hang", "recovery", "flaky", "trickle", "recovered"]
    assert told["phases"][-1]["end"] == pytest.approx(5, abs=1.5)
    rows = [dict(zip(told["samples"]["columns"], row, strict=True)) for row in told["samples"]["rows"]]
    assert {(row["app"], row["path"]) for row in rows} == {(app, path) for app in SHOPS for path in ("/product", "/ping")}
    assert sum(row["status"] == 200 for row in rows) > len(rows) / 2
    assert told["sightings"][0]["breakers"] == dict.fromkeys(UPSTREAMS, "closed")
    assert set(told["sightings"][0]["features"]) == {"recommendations", "reviews"}
    assert all(told["tallies"][-1]["calls"][name][app] > 0 for name in UPSTREAMS for app in SHOPS)
    assert len(told["verdict"]["rows"]) == 13
    assert told["verdict"]["passed"] is False
    hang = told["phases"][1]
    lacking = [row for row in rows if row["app"] == "protected" and row["absent"]]
    assert any(hang["start"] <= row["at"] < hang["end"] and row["absent"] == ["recommendations"] for row in lacking)
    assert all(row["absent"] == row["marked"] for row in lacking)


@pytest.fixture
def serving() -> Iterator[subprocess.Popen[str]]:
    with start("--serve") as process:
        yield process
        process.kill()


def tour(process: subprocess.Popen[str]) -> tuple[str, dict[str, int]]:
    """What --serve prints, and the process ids in it."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()[1]
    text = "".join(lines)
    return text, {name: int(pid) for name, pid in re.findall(r"^  (\w+) (\d+)$", text, re.MULTILINE)}


def connections(text: str) -> list[socket.socket]:
    """An open connection to each server: its end comes with the end of its process."""
    ports = sorted({int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", text)})
    return [socket.create_connection(("127.0.0.1", port), timeout=10) for port in ports]


def ended(connection: socket.socket) -> bool:
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def get(url: str, *, method: str = "GET") -> tuple[int, Any]:
    response = httpx2.request(method, url, timeout=10)
    return response.status_code, response.json()


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_however_it_ends_no_process_outlives_it(serving: subprocess.Popen[str], number: signal.Signals, code: int) -> None:
    text, pids = tour(serving)
    assert set(pids) == {*UPSTREAMS, *SHOPS}
    open_connections = connections(text)
    assert len(open_connections) == 5
    serving.send_signal(number)
    assert serving.wait(20) == code
    assert all(ended(connection) for connection in open_connections)
    if number != signal.SIGKILL:  # after which nobody but init could collect them
        assert all(gone(pid) for pid in pids.values())


@posix
def test_faults_can_be_switched_by_hand_until_ctrl_c(serving: subprocess.Popen[str]) -> None:
    text, pids = tour(serving)
    [shop] = re.findall(r"curl -i (\S+)/product/7 +# protected", text)
    [switch] = re.findall(r"curl -X POST '(\S+)hang' +# recommendations", text)
    assert get(f"{shop}/product/7")[1]["recommendations"]
    assert get(f"{switch}down", method="POST") == (200, {"fault": "down"})
    assert get(f"{shop}/product/7")[1]["recommendations"] == []
    serving.send_signal(signal.SIGINT)
    assert serving.wait(20) == 0
    assert all(gone(pid) for pid in pids.values())


@posix
def test_ctrl_c_in_the_live_view_ends_it_without_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the pipe for a terminal
    report = tmp_path / "run.html"
    with start("--report", report) as process:
        assert process.stdout is not None
        while "healthy" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    assert "recommendations" in out  # a frame of the live view
    assert "claims" not in out
    assert not report.exists()


def test_a_report_that_could_not_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    done = run("--report", tmp_path / "missing" / "run.html")
    assert done.returncode == 2
    assert "--report" in done.stderr
    assert "starting" not in done.stdout


@pytest.mark.parametrize(("option", "value"), [("--seconds", "2"), ("--rate", "0"), ("--rate", "1e9")])
def test_settings_out_of_range_name_the_option(option: str, value: str) -> None:
    done = run(option, value)
    assert done.returncode == 2
    assert option in done.stderr
