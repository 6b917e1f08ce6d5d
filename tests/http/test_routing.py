"""Which dependency a request belongs to."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from resilient import Resilience
from resilient.testing import FakeClock, FaultyTransport


def routed(library: Any, resilience: Resilience, url: str) -> str:
    """The name of the dependency that a request to `url` was counted for."""
    before = {name: sum(one.stats.snapshot().counts.values()) for name, one in resilience.dependencies.items()}
    with library.Client(transport=library.ours.ResilientTransport(resilience, FaultyTransport([200]))) as client:
        client.get(url)
    after = {name: sum(one.stats.snapshot().counts.values()) for name, one in resilience.dependencies.items()}
    (name,) = [name for name, count in after.items() if count != before.get(name, 0)]
    return name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://api.test/", "api"),
        ("http://API.test/", "api"),
        ("http://api.test:80/x", "api"),
        ("http://api.test/v1", "v1"),
        ("http://api.test/v1/users", "v1"),
        ("http://api.test/v10", "api"),
        ("http://api.test/v1/admin/x", "admin"),
        ("http://api.test/v1/administrator", "v1"),
        ("http://api.test:8080/", "other port"),
        ("https://api.test/", "tls"),
        ("https://api.test:443/", "tls"),
        ("http://[::1]:9/x", "six"),
        ("http://[::1]:10/x", "http://[::1]:10"),
        ("https://b\u00fccher.test/", "idna"),
        ("https://xn--bcher-kva.test/", "idna"),
        ("http://elsewhere.test/", "http://elsewhere.test:80"),
        ("https://elsewhere.test:8443/x", "https://elsewhere.test:8443"),
    ],
)
def test_longest_origin_wins(library: Any, clock: FakeClock, url: str, name: str) -> None:
    resilience = Resilience(clock=clock)
    for declared, origin in {
        "api": "http://api.test",
        "v1": "http://api.test/v1",
        "admin": "http://api.test/v1/admin/",
        "other-port": "http://api.test:8080",
        "tls": "https://api.test/",
        "six": "http://[::1]:9",
        "idna": "https://b\u00fccher.test",
    }.items():
        resilience.dependency(declared, origin=origin)
    assert routed(library, resilience, url) == name.replace(" ", "-")


@pytest.mark.slow
def test_pitfall_10_undeclared_origins_are_bounded(library: Any, clock: FakeClock) -> None:
    """The one that was used least recently is forgotten, and nothing keeps it."""
    resilience = Resilience(clock=clock, max_origins=3)
    forgotten = []
    inner = library.MockTransport(lambda request: library.Response(200))  # it keeps no request
    with library.Client(transport=library.ours.ResilientTransport(resilience, inner)) as client:
        for host in ("a", "b", "c"):
            client.get(f"http://{host}/")
        forgotten.append(weakref.ref(resilience.dependencies["http://b:80"]))
        client.get("http://a/")
        client.get("http://d/")
        assert sorted(resilience.dependencies) == ["http://a:80", "http://c:80", "http://d:80"]
        for number in range(500):
            client.get(f"http://host{number}/")
        resilience.metrics.render("")
    gc.collect()
    assert len(resilience.dependencies) == 3
    assert forgotten[0]() is None


def test_pitfall_10_origins_differ_by_port_and_scheme(library: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    names = {routed(library, resilience, url) for url in ("http://h/", "http://h:81/", "https://h/", "https://h:81/", "http://h:443/")}
    assert len(names) == 5


def test_each_origin_has_policies_of_its_own(library: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)

    def answer(request: Any) -> Any:
        raise library.ConnectError("down") if request.url.host == "down" else library.ReadError("flaky")

    with library.Client(transport=library.ours.ResilientTransport(resilience, FaultyTransport([answer]))) as client:
        for _ in range(10):
            for host in ("down", "up"):
                with pytest.raises(library.TransportError):
                    client.post(f"http://{host}/") if host == "down" else client.get("http://down/")
            clock.advance(1)
    assert resilience.dependencies["http://down:80"].state == "open"
    assert "http://up:80" not in resilience.dependencies


def test_one_registry_for_both_libraries_and_both_colours(clock: FakeClock) -> None:
    import httpx
    import httpx2

    import resilient.httpx
    import resilient.httpx2

    resilience = Resilience(clock=clock)
    dependency = resilience.dependency("api", origin="http://api.test")
    for library, ours in ((httpx, resilient.httpx), (httpx2, resilient.httpx2)):
        client: Any = library.Client(transport=ours.ResilientTransport(resilience, FaultyTransport([200])))
        client.get("http://api.test/")
    assert dependency.stats.snapshot().counts["success"] == 2
