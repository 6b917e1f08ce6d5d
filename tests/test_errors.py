"""Errors: one tree, what each carries, and that every one of them survives being pickled and copied."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import httpx
import httpx2
import pybreaker
import pytest

import resilient.httpx
import resilient.httpx2
from resilient import errors
from resilient.errors import (
    AllTargetsFailed,
    BulkheadFull,
    CircuitOpen,
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    Rejected,
    ResilienceError,
    SpendExceeded,
    cause_of,
)

KINDS = [ResilienceError, Rejected, CircuitOpen, BulkheadFull, RateLimited, SpendExceeded, Overloaded, DeadlineExceeded, AllTargetsFailed]
BOUND = [getattr(module, kind.__name__) for module in (resilient.httpx, resilient.httpx2) for kind in KINDS]
DETAILS = {"dependency": "shop", "policy": "breaker", "reason": "outage", "retry_after": 1.5}


def test_the_tree() -> None:
    for kind in (CircuitOpen, BulkheadFull, RateLimited, SpendExceeded, Overloaded):
        assert kind.__bases__[0] is Rejected
    assert issubclass(Rejected, ResilienceError) and issubclass(AllTargetsFailed, ResilienceError)
    assert issubclass(CircuitOpen, pybreaker.CircuitBreakerError)
    assert issubclass(DeadlineExceeded, TimeoutError) and not issubclass(DeadlineExceeded, Rejected)
    assert set(errors.__all__) == {kind.__name__ for kind in KINDS} | {"ConfigurationWarning", "cause_of"}


@pytest.mark.parametrize("module", [httpx, httpx2])
def test_ground_22_the_bound_ones_are_also_the_librarys_own(module: Any) -> None:
    ours = {httpx: resilient.httpx, httpx2: resilient.httpx2}[module]
    for kind in KINDS:
        bound = getattr(ours, kind.__name__)
        assert issubclass(bound, kind) and issubclass(bound, module.TransportError)
    assert issubclass(ours.DeadlineExceeded, module.TimeoutException)
    assert not issubclass(ours.CircuitOpen, module.TimeoutException)


@pytest.mark.parametrize("kind", KINDS + BOUND)
def test_what_it_carries(kind: type[ResilienceError]) -> None:
    error = kind("shop: no", **DETAILS)
    assert str(error) == "shop: no" and error.args == ("shop: no",)
    assert {name: getattr(error, name) for name in DETAILS} == DETAILS
    bare = kind()
    assert str(bare) == kind.__name__
    assert {getattr(bare, name) for name in DETAILS} == {None}
    assert kind.cause.islower() and kind.error_token.islower()


@pytest.mark.parametrize("kind", KINDS + BOUND)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, *(lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in range(6))])
def test_it_can_be_copied_and_pickled(kind: type[ResilienceError], way: Any) -> None:
    error = kind("shop: no", **DETAILS)
    error.add_note("a note")
    if isinstance(error, AllTargetsFailed):
        error.causes = (KeyError("a"), CircuitOpen("b", dependency="b"))
    twin = way(error)
    assert type(twin) is kind and twin is not error
    assert str(twin) == "shop: no" and {name: getattr(twin, name) for name in DETAILS} == DETAILS
    assert twin.__notes__ == ["a note"]
    if isinstance(twin, AllTargetsFailed):
        assert [type(cause) for cause in twin.causes] == [KeyError, CircuitOpen]


def test_a_request_is_not_carried_along() -> None:
    """It may hold an open stream; and whoever unpickles it may not have the client library."""
    error = resilient.httpx.CircuitOpen("no")
    error.request = httpx.Request("GET", "http://shop.example", content=iter([b"x"]))
    assert error.request.method == "GET"
    twin = pickle.loads(pickle.dumps(error))
    with pytest.raises(RuntimeError):
        twin.request  # noqa: B018  # the library's own answer to that


def test_all_targets_failed_tells_why() -> None:
    causes = (KeyError("first"), CircuitOpen("second"))
    assert AllTargetsFailed("none answered", causes=causes, dependency="models").causes == causes
    assert AllTargetsFailed().causes == ()


def test_causes_are_words() -> None:
    request = httpx.Request("GET", "http://shop.example/?password=secret")
    response = httpx.Response(503, request=request)
    for error, word in (
        (CircuitOpen("x"), "circuit_open"),
        (resilient.httpx.DeadlineExceeded("x"), "deadline"),
        (httpx.HTTPStatusError("password=secret", request=request, response=response), "status_503"),
        (httpx.ConnectError("password=secret"), "ConnectError"),
        (ValueError("password=secret"), "ValueError"),
    ):
        assert cause_of(error) == word


def test_except_clauses_that_exist_keep_working() -> None:
    for kind, caught in (
        (resilient.httpx.CircuitOpen, httpx.TransportError),
        (resilient.httpx.CircuitOpen, pybreaker.CircuitBreakerError),
        (resilient.httpx.DeadlineExceeded, httpx.TimeoutException),
        (resilient.httpx2.DeadlineExceeded, httpx2.TimeoutException),
        (DeadlineExceeded, TimeoutError),
        (BulkheadFull, Rejected),
    ):
        with pytest.raises(caught):
            raise kind("x")
