"""Flask: each request has a deadline, a criticality and a degradation record, and what fails is told as 503 or 504."""

from __future__ import annotations

import time
from contextlib import ExitStack

import httpx
from flask import Flask, Response, g, request

from resilient import Criticality, Deadline, Resilience, ResilienceError, degradation_scope
from resilient.asgi.degradation import degraded_field
from resilient.asgi.errors import ErrorMapping
from resilient.context import criticality, deadline_scope
from resilient.httpx import ResilientTransport

TIMEOUT = 10.0  # seconds that a request may take
TRUSTED = {"127.0.0.1"}  # whose headers are believed: the gateway's
CLASSES = {member.name.lower() for member in Criticality}

resilience = Resilience()
catalog = resilience.dependency("catalog", origin="http://127.0.0.1:9001", required=True, timeout=2.0)
recommendations = resilience.dependency("recommendations", origin="http://127.0.0.1:9002", timeout=0.3)
client = httpx.Client(transport=ResilientTransport(resilience))
problems = ErrorMapping()
app = Flask(__name__)


def told_seconds(text: str) -> float:
    """What a caller says that he will wait, in milliseconds; garbage says nothing."""
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) <= 10 else TIMEOUT


@app.before_request
def begin() -> None:
    """Put in force what the request brings."""
    g.began = time.monotonic()
    g.scopes = scopes = ExitStack()
    g.record = scopes.enter_context(degradation_scope())
    headers = request.headers if request.remote_addr in TRUSTED else {}
    seconds = min(TIMEOUT, told_seconds(headers.get("X-Request-Timeout-Ms", "")))
    scopes.enter_context(deadline_scope(Deadline(g.began + seconds, inbound=True)))
    word = headers.get("X-Criticality", "").lower().replace("-", "_")
    if word in CLASSES:
        scopes.enter_context(criticality(word))


@app.after_request
def tell(response: Response) -> Response:
    """Tell the client what it was served less of, and count the request."""
    if g.record.entries:
        response.headers["Degraded"] = degraded_field(g.record.entries)
    route = "unmatched" if request.url_rule is None else request.url_rule.rule
    resilience.metrics.count_request(route, request.method, f"{response.status_code // 100}xx", time.monotonic() - g.began)
    return response


@app.teardown_request
def end(error: BaseException | None) -> None:
    """Whatever has happened, the next request on this thread begins without."""
    g.scopes.close()


@app.errorhandler(ResilienceError)
def failed(error: ResilienceError) -> Response:
    """503 or 504 with Retry-After and problem details, which say nothing of what is behind."""
    start, body = problems.problem(error).messages(head=request.method == "HEAD")
    return Response(body["body"], start["status"], [(name.decode(), value.decode()) for name, value in start["headers"]])


@app.get("/metrics")
def metrics() -> Response:
    """For Prometheus."""
    page, content_type = resilience.metrics.render(request.headers.get("Accept", ""))
    return Response(page, content_type=content_type)


@resilience.feature("recommendations", needs=[recommendations], fallback=[])
def recommended(product: str) -> list[str]:
    """What others bought, or nothing."""
    return client.get(f"http://127.0.0.1:9002/for/{product}").raise_for_status().json()


@app.get("/product/<product>")
def product(product: str) -> dict[str, object]:
    """The page of a product."""
    item = client.get(f"http://127.0.0.1:9001/item/{product}").raise_for_status().json()
    return {**item, "recommendations": recommended(product)}
