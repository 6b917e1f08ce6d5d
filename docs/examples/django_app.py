"""Django: a middleware that gives each request a deadline, a criticality and a degradation record, and tells what fails as 503 or 504."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from resilient import Criticality, Deadline, Resilience, degradation_scope
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


def told_seconds(text: str) -> float:
    """What a caller says that he will wait, in milliseconds; garbage says nothing."""
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) <= 10 else TIMEOUT


class ResilienceMiddleware:
    """The first of MIDDLEWARE, so that everything else is inside."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Put in force what the request brings, and tell the client what it was served less of."""
        began = time.monotonic()
        headers = request.headers if request.META.get("REMOTE_ADDR") in TRUSTED else {}
        seconds = min(TIMEOUT, told_seconds(headers.get("X-Request-Timeout-Ms", "")))
        word = headers.get("X-Criticality", "").lower().replace("-", "_")
        with ExitStack() as scopes:
            record = scopes.enter_context(degradation_scope())
            scopes.enter_context(deadline_scope(Deadline(began + seconds, inbound=True)))
            if word in CLASSES:
                scopes.enter_context(criticality(word))
            response = self.get_response(request)
        if record.entries:
            response["Degraded"] = degraded_field(record.entries)
        route = request.resolver_match.route if request.resolver_match else "unmatched"
        resilience.metrics.count_request(route, request.method, f"{response.status_code // 100}xx", time.monotonic() - began)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """503 or 504 with Retry-After and problem details, which say nothing of what is behind. Other errors are Django's."""
        problem = problems.problem(error)
        if problem is None:
            return None
        start, body = problem.messages(head=request.method == "HEAD")
        return HttpResponse(body["body"], status=start["status"], headers={n.decode(): value.decode() for n, value in start["headers"]})


def metrics(request: HttpRequest) -> HttpResponse:
    """For Prometheus."""
    page, content_type = resilience.metrics.render(request.headers.get("Accept", ""))
    return HttpResponse(page, content_type=content_type)


@resilience.feature("recommendations", needs=[recommendations], fallback=[])
def recommended(product: str) -> list[str]:
    """What others bought, or nothing."""
    return client.get(f"http://127.0.0.1:9002/for/{product}").raise_for_status().json()


def product(request: HttpRequest, product: str) -> JsonResponse:
    """The page of a product."""
    item = client.get(f"http://127.0.0.1:9001/item/{product}").raise_for_status().json()
    return JsonResponse({**item, "recommendations": recommended(product)})


urlpatterns = [path("metrics", metrics), path("product/<product>", product)]

if not settings.configured:  # as in settings.py, of which this is the part that matters here
    settings.configure(
        SECRET_KEY="for-a-recipe",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[f"{__name__}.ResilienceMiddleware"],
    )
