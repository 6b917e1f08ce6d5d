"""A worker process for the tests of several: does what it is told, a line at a time, and answers each with a line of JSON.

Told `fork` it becomes the parent of another worker that goes on in its place, as under a server that loads the app first.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

from resilient.events import CallRejected, CircuitChanged, FeatureChanged
from resilient.outbox import Outbox
from resilient.stats import CallStats
from resilient.telemetry.prometheus import Metrics

catalog = SimpleNamespace(
    name="catalog",
    stats=CallStats(),
    breaker=SimpleNamespace(current_state="closed"),
    bulkhead=SimpleNamespace(in_use=2, limit=100, queued=0),
    budget=SimpleNamespace(remaining_ratio=lambda: 0.5),
    cache=None,
)
prices = SimpleNamespace(name="prices", level="full")
source = SimpleNamespace(dependencies={"catalog": catalog}, features={"prices": prices}, admissions=[], checks={}, outbox=Outbox())
metrics = Metrics(source)


def obey(word: str, *arguments: str) -> object:
    if word == "call":
        outcome, seconds = arguments
        catalog.stats.record(outcome, float(seconds), 0.0)
    elif word == "request":
        route, method, status, seconds = arguments
        metrics.count_request(route, method, status, float(seconds))
    elif word == "reject":
        metrics.on_event(CallRejected(at=0.0, dependency="catalog", policy="breaker", reason="outage"))
    elif word == "open":
        catalog.breaker.current_state = "open"
        metrics.on_event(CircuitChanged(at=0.0, dependency="catalog", old="closed", new="open", reason="outage"))
    elif word == "degrade":
        prices.level = "static"
        metrics.on_event(FeatureChanged(at=0.0, feature="prices", old="full", new="static", cause="outage"))
    elif word == "budget":
        catalog.budget.remaining_ratio = lambda: float(arguments[0])
    elif word == "fork":
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            os._exit(0)
    elif word == "scrape":
        return metrics.render("application/openmetrics-text")[0].decode()
    else:
        raise ValueError(word)
    return os.getpid()


for line in sys.stdin:
    print(json.dumps(obey(*line.split())), flush=True)
