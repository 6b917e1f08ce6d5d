"""Flask and Django by the synchronous transport, as their recipes show it: the same service, the same behaviour."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from resilient import CircuitOpen, Criticality, current_criticality, current_deadline
from resilient.context import current_record
from resilient.httpx import ResilientTransport
from resilient.testing import FaultyTransport

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Shop:
    """The program of a recipe: how it is asked, and what it is made of."""

    program: ModuleType
    get: Callable[..., Answer]

    def answers(self, *script: Any) -> FaultyTransport:
        """Let both of its dependencies answer by a script."""
        inner = FaultyTransport(script)
        self.program.client._transport = ResilientTransport(self.program.resilience, inner)
        return inner


def loaded(name: str) -> ModuleType:
    """A program of the recipes, under a name by which it can be imported."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def flask_shop() -> Shop:
    pytest.importorskip("flask", reason="needs Flask")
    program = loaded("flask_app")
    client = program.app.test_client()

    def get(path: str, address: str = "127.0.0.1", method: str = "GET", **headers: str) -> Answer:
        answer = client.open(path, method=method, headers=headers, environ_base={"REMOTE_ADDR": address})
        return Answer(answer.status_code, answer.headers, answer.text)

    return Shop(program, get)


@pytest.fixture(scope="module")
def django_program() -> ModuleType:
    """Django is configured once in a process."""
    django = pytest.importorskip("django", reason="needs Django")
    program = loaded("django_app")
    from django.conf import settings

    settings.ROOT_URLCONF = program.__name__
    settings.MIDDLEWARE = [f"{program.__name__}.ResilienceMiddleware"]
    django.setup(set_prefix=False)
    return program


def django_shop(program: ModuleType) -> Shop:
    from django.test import Client

    client = Client(raise_request_exception=False)
    program.resilience.reset()

    def get(path: str, address: str = "127.0.0.1", method: str = "GET", **headers: str) -> Answer:
        answer = client.generic(method, path, headers=headers, REMOTE_ADDR=address)
        return Answer(answer.status_code, answer.headers, answer.content.decode())

    return Shop(program, get)


@pytest.fixture(params=["flask", "django"])
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    made = flask_shop() if request.param == "flask" else django_shop(request.getfixturevalue("django_program"))
    yield made
    made.program.client.close()
    made.program.client = httpx.Client()


def item(request: Any) -> httpx.Response:
    return httpx.Response(200, json={"name": "lamp"} if request.url.port == 9001 else ["chair"])


def only_the_item(request: Any) -> httpx.Response:
    return item(request) if request.url.port == 9001 else httpx.Response(503)


def test_the_page_of_a_product(shop: Shop) -> None:
    shop.answers(item)
    answer = shop.get("/product/7")
    assert (answer.status, answer.json) == (200, {"name": "lamp", "recommendations": ["chair"]})
    assert "degraded" not in answer.headers


def test_what_was_degraded_is_told_in_the_header(shop: Shop) -> None:
    shop.answers(only_the_item)
    answer = shop.get("/product/7")
    assert (answer.status, answer.json["recommendations"]) == (200, [])
    assert answer.headers["Degraded"] == "recommendations;level=static"
    shop.answers(item)
    shop.program.resilience.reset()
    assert "Degraded" not in shop.get("/product/7").headers  # the record was that request's alone


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_open_circuit_is_a_problem_answer(shop: Shop, method: str) -> None:
    shop.answers(item)
    shop.program.catalog.breaker.trip()
    answer = shop.get("/product/7", method=method)
    assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Content-Type"] == "application/problem+json" and answer.headers["Cache-Control"] == "no-store"
    assert "catalog" not in answer.text
    if method == "GET":
        assert answer.json["error"] == CircuitOpen.error_token


def test_too_late_is_504(shop: Shop) -> None:
    inner = shop.answers(item)
    answer = shop.get("/product/7", **{"X-Request-Timeout-Ms": "1"})
    assert (answer.status, answer.json["status"]) == (504, 504)
    assert inner.requests == []  # there was too little time left to begin


def test_other_errors_are_the_frameworks(shop: Shop) -> None:
    shop.answers(404)
    assert shop.get("/product/7").status == 500
    assert shop.get("/nowhere").status == 404


def test_deadline_and_criticality_come_from_the_request(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    inner = current_deadline

    def look(request: Any) -> httpx.Response:
        deadline = inner()
        assert deadline is not None
        seen.append((deadline.remaining, current_criticality()))
        return item(request)

    shop.answers(look)
    for headers, address in (
        ({}, "127.0.0.1"),
        ({"X-Request-Timeout-Ms": "1500", "X-Criticality": "critical-plus"}, "127.0.0.1"),
        ({"X-Request-Timeout-Ms": "1500", "X-Criticality": "critical_plus"}, "10.0.0.9"),  # whoever that is
        ({"X-Request-Timeout-Ms": "1.5", "X-Criticality": "very"}, "127.0.0.1"),
        ({"X-Request-Timeout-Ms": "99999999999999999999"}, "127.0.0.1"),
    ):
        seen.clear()
        assert shop.get("/product/7", address, **headers).status == 200
        remaining, value = seen[0]
        trusted = headers.get("X-Request-Timeout-Ms") == "1500" and address == "127.0.0.1"
        assert remaining <= 1.5 if trusted else 1.5 < remaining <= 2.0, headers  # the dependency's own limit is 2
        assert value is (Criticality.CRITICAL_PLUS if trusted else Criticality.CRITICAL)


def test_nothing_is_left_for_the_next_request_on_the_thread(shop: Shop) -> None:
    shop.answers(item)
    shop.program.catalog.breaker.trip()
    shop.get("/product/7", **{"X-Criticality": "sheddable"})
    assert (current_deadline(), current_criticality(), current_record()) == (None, Criticality.CRITICAL, None)


def test_requests_on_other_threads_have_records_of_their_own(shop: Shop) -> None:
    meeting = threading.Barrier(2, timeout=30)

    def answer(request: Any) -> httpx.Response:
        if request.url.port == 9001:
            meeting.wait()
            return item(request)
        return httpx.Response(503) if request.url.path.endswith("degraded") else item(request)

    shop.answers(answer)
    found: dict[str, str | None] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: shop.get(f"/product/{name}").headers.get("Degraded")}))
        for name in ("degraded", "full")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {"degraded": "recommendations;level=static", "full": None}


def test_metrics(shop: Shop) -> None:
    shop.answers(only_the_item)
    shop.get("/product/7")
    shop.get("/nowhere")
    page = shop.get("/metrics")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/plain")
    lines = page.text.splitlines()
    route = "/product/<product>" if "flask" in shop.program.__name__ else "product/<product>"
    assert any(line.startswith(f'resilient_requests_total{{method="GET",route="{route}",status="2xx"}}') for line in lines)
    assert any('route="unmatched",status="4xx"' in line for line in lines)
    assert any(line.startswith("resilient_degraded_responses_total{") for line in lines)
    openmetrics = shop.get("/metrics", Accept="application/openmetrics-text")
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
