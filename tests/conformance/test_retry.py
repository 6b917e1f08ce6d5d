"""Retries of Polly, gRPC and Microsoft's HTTP handlers; timeouts that fit each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from typing import Any

import httpx
import pytest

import resilient
import resilient.httpx
from resilient import CircuitBreaker, Pipeline, Timeout
from resilient.core.backoff import Backoff, Exponential, Linear
from resilient.core.outcome import Outcome
from resilient.core.retry import decide, parse_retry_after
from resilient.http.request import HttpCall
from resilient.policies.mistakes import ConfigurationWarning

from .records import Record, records

FOREVER = 1e18
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize("record", records("retry"))
def test_record(record: Record) -> None:
    runners = {
        "retry.backoff": backoff,
        "retry.backoff.max_attempts": attempts,
        "retry.retry_after": retry_after,
        "http.classification": classification,
    }
    runners[record["feature"]](record)


def backoff(record: Record) -> None:
    for step in record["sequence"]:
        assert step["jitter"] is False
        maximum, base = step["max"] or FOREVER, step["base"]
        kinds: dict[str, Backoff] = {
            # A constant that is capped is a line that does not rise, and so is an exponential that begins at nothing.
            "constant": Linear(initial=base, step=0, maximum=maximum, jitter="none"),
            "linear": Linear(initial=base, step=base, maximum=maximum, jitter="none"),
            "exponential": Exponential(initial=base, maximum=maximum, jitter="none") if base else Linear(initial=0, step=0, jitter="none"),
        }
        expected = FOREVER if step["expect"] == "MAX" else step["expect"]
        assert kinds[step["type"]].delay(step["attempt"] + 1, 0.0) == expected, step


def attempts(record: Record) -> None:
    config = record["config"]
    pauses = Exponential(initial=config["initial"], factor=config["multiplier"], maximum=config["max"], jitter="none")
    for step in record["sequence"]:
        made = decide(
            attempt=step["n"],
            attempts=config["max_attempts"],
            retryable=True,
            repeatable=True,
            delay=pauses.delay(step["n"], 0.0),
            retry_after=None,
            remaining=FOREVER,
            min_useful=0.0,
        )
        if "next_attempt_after" in step["expect"]:
            assert made.result == "retried" and made.delay == step["expect"]["next_attempt_after"]
        else:
            assert (made.result == "retried") is step["expect"]["retry"]


def retry_after(record: Record) -> None:
    for step in record["sequence"]:
        header, wall = step["header"], NOW + step["t"]
        if header is None:
            call = http_call()
            assert call.retry_after(httpx.Response(503), None) is step["expect"]
            continue
        if "HTTP-date" in header:
            assert "+ 1 day" in header
            header = formatdate(NOW + 86400, usegmt=True)
        assert parse_retry_after(header, wall, None) == step["expect"]


def http_call() -> HttpCall:
    """A GET: whether another attempt may help is all that is asked."""
    pipeline, library = Pipeline(), resilient.httpx.AsyncResilientTransport._library
    return HttpCall(pipeline, pipeline.runtime, library, httpx.Request("GET", "http://x/"), print)


def classification(record: Record) -> None:
    for step in record["sequence"]:
        call, error = http_call(), None
        if "status" in step:
            outcome = call.outcome_of(httpx.Response(step["status"]))
        elif step["error"] == "programming error":
            error = KeyError("bug")
            call.ignore(error)
            outcome = call.outcome_of_error(error)
        elif step["error"] == "transport error":
            error = httpx.ConnectError("refused")
            outcome = call.outcome_of_error(error)
        else:
            error = call.cut("late", policy="timeout", reason="attempt", outcome=Outcome.OUTAGE)
            outcome = call.outcome_of_error(error)
        assert call.retryable(outcome, error) is step["expect"]["transient"], step


@pytest.mark.parametrize("record", records("config"))
def test_settings_that_fit_each_other(record: Record) -> None:
    """A sampling window shorter than two attempts is warned of, an attempt longer than the total is refused."""
    hedges = []
    for step in record["sequence"]:
        if step["op"] == "validate":
            made = partial(Pipeline, CircuitBreaker(window=step["sampling"]))
            assert fits(lambda step=step, made=made: made(timeout(step))) is step["expect"]["valid"], step
        else:
            hedges.append(step)
    if not hasattr(resilient, "Hedge"):
        pytest.skip("there is no Hedge to fit")
    for step in hedges:
        hedge = {} if step.get("delay_generator") else {"delay": step["delay"]}
        assert fits(lambda step=step, hedge=hedge: Pipeline(timeout(step), resilient.Hedge(**hedge))) is step["expect"]["valid"], step


def timeout(step: dict[str, Any]) -> Timeout:
    return Timeout(total=step["total"], attempt=step.get("attempt"))


def fits(make: Callable[[], Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigurationWarning)
        try:
            make()
        except (ValueError, ConfigurationWarning):
            return False
    return True
