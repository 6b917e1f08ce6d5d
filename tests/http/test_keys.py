"""Which circuit a request belongs to: its route, as told or as guessed from its path, or its origin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import CircuitBreaker, Constant, Dependency, RateLimit, Rejected, Retry, RetryBudget
from resilient.http.template import template_of
from resilient.testing import FaultyTransport


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("", ""),
        ("/", "/"),
        ("/users", "/users"),
        ("/users/42", "/users/{id}"),
        ("/users/42/", "/users/{id}/"),
        ("/v2/users/me", "/v2/users/me"),
        ("/users/42/orders/2026-11-22", "/users/{id}/orders/{id}"),
        ("/files/9f86d081-884c-4d63-a1e2-0f00c0ffee00", "/files/{id}"),
        ("/objects/deadbeef1234", "/objects/{id}"),
        ("/search-as_you.type~now", "/search-as_you.type~now"),
        ("/people/Zo%C3%AB", "/people/{id}"),
        ("/people/Zoë", "/people/{id}"),
        ("/mail/ann@example.com", "/mail/{id}"),
        ("/" + "x" * 33, "/{id}"),
        ("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/g/h"),
        ("/a/b/c/d/e/f/g/h/i/j/k", "/a/b/c/d/e/f/g/h/..."),
    ],
)
def test_the_route_is_the_path_without_ids(path: str, template: str) -> None:
    assert template_of(path) == template


@pytest.mark.slow
@given(st.text(max_size=300), st.integers(100, 10**12))
def test_ids_never_make_a_route_of_their_own(path: str, number: int) -> None:
    assert template_of(f"/things/{number}/{path}") == template_of(f"/things/{number + 1}/{path}")
    assert len(template_of(path)) <= 8 * 33 + 4


def keyed(library: Any, key: Any, *answers: Any) -> tuple[Any, CircuitBreaker]:
    breaker = CircuitBreaker(1, 60, key=key)
    inner = FaultyTransport(answers or (200,))
    return library.Client(transport=library.ours.ResilientTransport(Dependency("shop", breaker), inner)), breaker


def test_a_route_each(library: Any) -> None:
    client, breaker = keyed(library, "route", 500, 200)
    client.get("http://shop/orders/17")
    with pytest.raises(library.ours.CircuitOpen):
        client.get("http://shop/orders/18")
    assert client.get("http://shop/users/18").status_code == 200
    assert {key: circuit.current_state for key, circuit in breaker.circuits.items()} == {"/orders/{id}": "open", "/users/{id}": "closed"}


def test_a_request_that_knows_its_route_says_so(library: Any) -> None:
    client, breaker = keyed(library, "route")
    for name in ("ann", "bob"):
        client.get(f"http://shop/people/{name}", extensions={"resilient": {"route": "/people/{name}"}})
    client.get("http://shop/people/ann", extensions={"resilient": {}})
    assert list(breaker.circuits) == ["/people/{name}", "/people/ann"]


def test_a_route_that_is_none_is_the_callers_mistake(library: Any) -> None:
    client, _ = keyed(library, "route")
    with pytest.raises(TypeError, match=r"extensions\['resilient'\]\['route'\]"):
        client.get("http://shop/", extensions={"resilient": {"route": 5}})


def test_an_origin_each(library: Any) -> None:
    client, breaker = keyed(library, "origin", 500, 200)
    client.get("http://a/1")
    with pytest.raises(library.ours.CircuitOpen):
        client.get("http://a:80/2")
    assert client.get("https://a/1").status_code == client.get("http://a:8080/1").status_code == 200
    assert list(breaker.circuits) == ["http://a", "https://a", "http://a:8080"]


def budget(key: Any) -> Retry:
    return Retry(attempts=2, backoff=Constant(0), budget=RetryBudget(ratio=0, reserve=0.1, window=10, key=key))


def by_partition(name: str) -> tuple[str, dict[str, Any]]:
    return "http://shop/", {"resilient": {"partition": name}}


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(lambda key: CircuitBreaker(1, 60, key=key), id="breaker"),
        pytest.param(lambda key: RateLimit(1, per=60, key=key), id="rate limit"),
        pytest.param(budget, id="budget"),
    ],
)
@pytest.mark.parametrize(
    ("key", "request_of"),
    [
        ("route", lambda name: (f"http://shop/{name}/17", {})),
        ("origin", lambda name: (f"http://{name}/", {})),
        ("partition", by_partition),
        (lambda request: request.headers["host"], lambda name: (f"http://{name}/", {})),
    ],
)
def test_each_policy_takes_the_same_keys(library: Any, policy: Callable[[Any], Any], key: Any, request_of: Any) -> None:
    """What the first one has used up is used up for its key, and for no other."""
    inner = FaultyTransport([500])
    client = library.Client(transport=library.ours.ResilientTransport(Dependency("shop", policy(key)), inner))

    def sent(name: str) -> int:
        before, (url, extensions) = len(inner.requests), request_of(name)
        with contextlib.suppress(Rejected):
            client.get(url, extensions=extensions)
        return len(inner.requests) - before

    first, second, other = sent("ann"), sent("ann"), sent("bob")
    assert first == other > second


def test_a_key_of_ones_own_is_made_of_the_request(library: Any) -> None:
    client, breaker = keyed(library, lambda request: request.headers.get("x-tenant"))
    client.get("http://shop/", headers={"x-tenant": "t1"})
    client.get("http://shop/")
    assert list(breaker.circuits) == ["t1", ""]


@pytest.mark.anyio
async def test_the_same_for_async_clients(library: Any) -> None:
    breaker = CircuitBreaker(1, 60, key="route")
    inner = FaultyTransport((500, 200))
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(Dependency("shop", breaker), inner)) as client:
        await client.get("http://shop/orders/17")
        with pytest.raises(library.ours.CircuitOpen) as rejected:
            await client.get("http://shop/orders/18")
        assert rejected.value.retry_after == pytest.approx(60, abs=1)
        assert (await client.get("http://shop/users/18")).status_code == 200
    assert breaker.current_state == "open"
