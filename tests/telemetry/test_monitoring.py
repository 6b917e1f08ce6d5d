"""The dashboard and the alerts that the documentation ships fit the metrics there are: names, labels, and PromQL."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
import yaml

from resilient.telemetry.families import ALL

from .alerting import CASES, Case
from .busy import busy_app

DOCS = Path(__file__).parents[2] / "docs"
BOARD = json.loads((DOCS / "grafana" / "resilient.json").read_text(encoding="utf-8"))
RULES = DOCS / "prometheus" / "alerts.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]

SERIES = {
    name: {*family.labels, *(["le"] if name.endswith("_bucket") else [])}
    for family in ALL
    for name in ([family.name] if family.kind != "histogram" else [family.name + end for end in ("_bucket", "_sum", "_count")])
}
"""Every name on the page, with its labels."""
OF_PROMETHEUS = {"job", "instance"}
FUNCTIONS = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
SELECTORS = re.compile(r"\b(resilient_\w+)(?:\{([^}]*)\})?")


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


EXPRESSIONS = {f"{panel['title']} {number}": query for panel in PANELS for number, query in enumerate(queries(panel))}
EXPRESSIONS |= {alert["alert"]: alert["expr"] for alert in ALERTS}
EXPRESSIONS |= {one["name"]: one["expr"] for one in BOARD["annotations"]["list"]}


# -- names and labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", EXPRESSIONS.values(), ids=list(EXPRESSIONS))
def test_what_is_asked_for_exists(query: str) -> None:
    used = SELECTORS.findall(query)
    assert used, query
    labels = set()
    for name, matchers in used:
        assert name in SERIES, query
        asked = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        assert asked <= SERIES[name] | OF_PROMETHEUS, query
        labels |= SERIES[name]
    grouped = {label.strip() for group in FUNCTIONS.findall(query) for label in group.split(",")}
    assert grouped <= labels | OF_PROMETHEUS, query


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_legends_and_names_of_series_are_labels_that_the_query_leaves(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        left = {label.strip() for group in FUNCTIONS.findall(target["expr"]) for label in group.split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_every_family_is_on_the_dashboard() -> None:
    shown = {name for query in EXPRESSIONS.values() for name, _ in SELECTORS.findall(query)}
    assert {family.name for family in ALL} <= {re.sub("_(bucket|sum|count)$", "", name) for name in shown}


# -- the dashboard ----------------------------------------------------------------------------------------------------


def test_the_dashboard_can_be_imported() -> None:
    assert BOARD["uid"] == "resilient" and BOARD["id"] is None and BOARD["schemaVersion"] >= 38
    assert {one["id"] for one in BOARD["__requires"]} >= {"grafana", "prometheus", *(panel["type"] for panel in PANELS)}
    names = [variable["name"] for variable in BOARD["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "dependency"]
    assert BOARD["templating"]["list"][0]["type"] == "datasource"
    sources = [panel["datasource"] for panel in PANELS] + [target["datasource"] for panel in PANELS for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    asked = {name for query in EXPRESSIONS.values() for name in re.findall(r"\$(\w+)", query)}
    assert asked <= {*names, "__rate_interval", "__interval"}
    for variable in BOARD["templating"]["list"][1:]:
        assert variable["multi"] and variable["includeAll"]
        metric = re.search(r"resilient_\w+", variable["definition"])
        assert metric is not None and metric[0] in SERIES


def test_its_rows() -> None:
    assert [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"] == [
        "Service",
        "Inbound",
        "Dependencies",
        "Features",
        "Cache",
        "Health",
    ]


def test_its_panels_have_places_of_their_own_and_units() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    units = {"reqps", "cps", "s", "short", "percentunit", "bytes", "none"}
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        assert unit in units, panel["title"]
        if any("_seconds" in query for query in queries(panel)):
            assert unit == "s"
        assert ("_ratio" in queries(panel)[0]) <= (unit == "percentunit")
        assert ("_bytes" in queries(panel)[0]) <= (unit == "bytes")


# -- the alerts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings if heading == alert["alert"]]


def test_the_page_tells_of_the_same_alerts() -> None:
    told = re.findall(r"^## (Resilient\w+)$", (DOCS / "alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert told == [alert["alert"] for alert in ALERTS]


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {alert["alert"] for alert in ALERTS}


def promtool(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, check=False, timeout=60)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt-get install prometheus)")


@needs_promtool
@pytest.mark.slow
def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    annotations = {alert["alert"]: alert["annotations"] for alert in ALERTS}
    tests = tmp_path / "alerts_test.yml"
    tests.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(RULES)],
                "evaluation_interval": "1m",
                "tests": [unit for case in CASES for unit in case.units(annotations[case.alert])],
            }
        )
    )
    done = promtool("test", "rules", str(tests))
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@needs_promtool
@pytest.mark.slow
def test_a_case_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """The cases above are judged: one that says the opposite of what happens fails."""
    case = next(case for case in CASES if case.alert == "ResilientStoreDown")
    wrong = Case(case.alert, case.calm, case.calm, at=case.at, labels=case.labels)
    annotations = next(alert["annotations"] for alert in ALERTS if alert["alert"] == case.alert)
    tests = tmp_path / "alerts_test.yml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": list(wrong.units(annotations))}))
    assert promtool("test", "rules", str(tests)).returncode != 0


# -- a real scrape ----------------------------------------------------------------------------------------------------


@needs_promtool
@pytest.mark.slow
@pytest.mark.parametrize("accept", ["", "text/plain; version=0.0.4"])
def test_promtool_accepts_the_page(service: str, accept: str) -> None:
    page = httpx2.get(f"http://{service}/metrics", headers={"accept": accept}, timeout=30)
    for family in ALL:
        assert re.search(rf"^{family.name}[_{{ ]", page.text, re.MULTILINE), family.name  # everything is on
    done = promtool("check", "metrics", stdin=page.content)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real server, which has answered some requests."""
    app, resilience = busy_app(tmp_path_factory.mktemp("service"))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    for number in range(5):
        assert httpx2.get(f"http://{address}/product/{number}", timeout=30).status_code == 200
    yield address
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
    assert resilience.store is not None
    resilience.store.close()


class Prometheus:
    """A real one, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=f"{url}/api/v1", timeout=30)

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(path, params=parameters).raise_for_status().json()
        assert answer["status"] == "success", (path, parameters, answer)
        return answer["data"]

    def until(self, condition: Callable[[], Any]) -> Any:
        """What `condition` returns once that is true."""
        deadline = time.monotonic() + 60
        while True:
            try:
                found = condition()
            except httpx2.HTTPError:  # it answers 503 while it begins
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, "Prometheus is not as it should be, and not for a minute"
            time.sleep(0.1)

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def prometheus(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that scrapes the service, with our alerts."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus (apt-get install prometheus)")
    place = tmp_path_factory.mktemp("prometheus")
    job = {"job_name": "shop", "static_configs": [{"targets": [service]}]}
    every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    (place / "prometheus.yml").write_text(yaml.safe_dump({"global": every, "rule_files": [str(RULES)], "scrape_configs": [job]}))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    arguments = [f"--config.file={place / 'prometheus.yml'}", f"--storage.tsdb.path={place}", f"--web.listen-address={address}"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log, cwd=place)
        client = Prometheus(f"http://{address}")
        try:
            client.until(lambda: [one for one in client.get("/targets")["activeTargets"] if one["health"] == "up"])
            yield client
        except AssertionError as error:
            raise AssertionError((place / "log").read_text()) from error
        finally:
            client.close()
            process.terminate()
            process.wait(30)


@pytest.mark.slow
def test_prometheus_scrapes_the_names_that_are_promised(prometheus: Prometheus) -> None:
    (target,) = prometheus.get("/targets")["activeTargets"]
    assert (target["health"], target["lastError"], target["labels"]["job"]) == ("up", "", "shop")
    found = [name for name in prometheus.get("/label/__name__/values") if name.startswith("resilient_")]
    assert {name for name in found if not name.endswith("_created")} == set(SERIES)
    for name, labels in SERIES.items():
        for series in prometheus.get("/series", **{"match[]": name}):
            assert series.keys() == labels | {"__name__", *OF_PROMETHEUS}


@pytest.mark.slow
def test_prometheus_answers_every_panel(prometheus: Prometheus) -> None:
    for panel in PANELS:
        asked = [in_grafana(query) for query in queries(panel)]
        for query in asked:
            prometheus.get("/query", query=query)
        if panel["type"] != "timeseries":  # what has happened once shows no rate; of a state or of all that comes there is something
            assert prometheus.until(lambda asked=asked: prometheus.get("/query", query=asked[0])["result"]), panel["title"]


def in_grafana(query: str) -> str:
    """As Grafana sends it, where all jobs, instances and dependencies are chosen."""
    for variable in ("$job", "$instance", "$dependency"):
        query = query.replace(variable, ".*")
    return query.replace("$__rate_interval", "4s")


@pytest.mark.slow
def test_prometheus_evaluates_every_alert(prometheus: Prometheus) -> None:
    def evaluated() -> dict[str, str]:
        rules = [rule for group in prometheus.get("/rules")["groups"] for rule in group["rules"]]
        health = {rule["name"]: rule["health"] for rule in rules}
        return health if "unknown" not in health.values() else {}

    assert prometheus.until(evaluated) == {alert["alert"]: "ok" for alert in ALERTS}
