"""Resilience: what is declared, where requests go, the switch, the reset; and nothing global."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
from starlette.applications import Starlette

import resilient.resilience
from resilient import Bulkhead, CircuitBreaker, CircuitOpen, Dependency, Fallback, Level, Resilience, Timeout
from resilient.events import CircuitChanged, FallbackServed
from resilient.testing import FakeClock, RecordingListener


def url(text: str) -> httpx.URL:
    return httpx.URL(text)


# -- declarations ------------------------------------------------------------------------------------------------


def test_dependencies_are_declared_once() -> None:
    resilience = Resilience()
    shop = resilience.dependency("shop", origin="http://shop.example")
    assert isinstance(shop, Dependency) and resilience.dependencies == {"shop": shop}
    with pytest.raises(ValueError, match="^name: there is a dependency 'shop' already"):
        resilience.dependency("shop")
    with pytest.raises(ValueError, match="^origin: http://shop.example belongs to 'shop' already"):
        resilience.dependency("other", origin="http://SHOP.example:80/")
    assert resilience.dependencies == {"shop": shop}
    resilience.dependency("https", origin="https://shop.example")
    resilience.dependency("path", origin="http://shop.example/v1")


def test_features_are_declared_once() -> None:
    resilience = Resilience()
    feature = resilience.feature("recommendations", fallback=[])
    assert resilience.features == {"recommendations": feature}
    with pytest.raises(ValueError, match="^name: there is a feature 'recommendations' already"):
        resilience.feature("recommendations")


def test_two_of_them_know_nothing_of_each_other() -> None:
    first, second = Resilience(), Resilience()
    first.dependency("shop", origin="http://shop.example").breaker.open()  # type: ignore[union-attr]
    assert second.dependencies == {}
    assert second.dependency("shop", origin="http://shop.example").call_sync(int) == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"enabled": 1}, "enabled"),
        ({"enabled": "no"}, "enabled"),
        ({"clock": 5}, "clock"),
        ({"listeners": 5}, "listeners"),
        ({"listeners": [object()]}, "listener"),
        ({"max_origins": 0}, "max_origins"),
        ({"max_origins": 1.5}, "max_origins"),
        ({"registry": {}}, "registry"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}"):
        Resilience(**settings)


# -- routes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [httpx.URL, httpx2.URL])
def test_the_longest_matching_origin_has_the_request(make: Any) -> None:
    resilience = Resilience()
    declared = {
        name: resilience.dependency(name, origin=origin)
        for name, origin in {
            "root": "https://api.example",
            "v1": "https://api.example/v1",
            "items": "https://api.example/v1/items",
            "port": "https://api.example:8443",
            "plain": "http://api.example",
        }.items()
    }
    for text, name in {
        "https://api.example": "root",
        "https://api.example/v10": "root",
        "https://API.example:443/v1?x=1": "v1",
        "https://api.example/v1/item": "v1",
        "https://api.example/v1/items/5": "items",
        "https://api.example:8443/v1/items": "port",
        "http://api.example/v1": "plain",
    }.items():
        assert resilience.dependency_for(make(text)) is declared[name], text
    assert len(resilience.dependencies) == 5


def test_pitfall_10_origins_that_nobody_declared_are_bounded_and_know_their_port() -> None:
    resilience = Resilience(max_origins=3)
    first = resilience.dependency_for(url("http://a.example:8001"))
    assert resilience.dependency_for(url("http://a.example:8001/path")) is first
    assert resilience.dependency_for(url("http://a.example:8002")) is not first
    assert resilience.dependency_for(url("https://a.example:8001")) is not first
    assert first.name == "http://a.example:8001"
    resilience.dependency_for(url("http://a.example:8001"))  # used again: the one on 8002 is the oldest now
    resilience.dependency_for(url("http://b.example"))
    assert resilience.dependency_for(url("http://a.example:8001")) is first
    assert "http://a.example:8002" not in resilience.dependencies and len(resilience.dependencies) == 3


LONG = "a" * 60 + "." + "b" * 60


def test_origins_with_long_names_are_told_apart() -> None:
    hosts = [f"{LONG}.{tail}.example" for tail in ("one", "two", "three")]
    made = [Resilience(), Resilience()]
    for resilience in made:
        for host in hosts if resilience is made[0] else reversed(hosts):
            for scheme in ("http", "https"):
                resilience.dependency_for(url(f"{scheme}://{host}:8001")).call_sync(int)
    names = set(made[0].dependencies)
    assert len(names) == 6 and {len(name) for name in names} == {100}
    assert names == set(made[1].dependencies), "the same in every process, whatever comes first"
    page = made[0].metrics.render()[0].decode()
    assert all(f'resilient_calls_total{{dependency="{name}",outcome="success"}} 1.0' in page for name in names)


def test_an_origin_without_a_declaration_leaves_a_name_that_was_declared() -> None:
    resilience = Resilience()
    declared = resilience.dependency("http://api.example:80", origin="http://api.example/v1")
    made = resilience.dependency_for(url("http://api.example/other"))
    assert made is not declared and made.name.startswith("http://api.example:80~")
    assert resilience.dependency_for(url("http://api.example/other")) is made
    assert resilience.dependencies == {declared.name: declared, made.name: made}


def test_a_declaration_takes_the_name_that_an_origin_has_had() -> None:
    resilience = Resilience()
    before = resilience.dependency_for(url("http://api.example"))
    other = resilience.dependency_for(url("http://other.example"))
    declared = resilience.dependency(before.name, origin="http://api.example/v1")
    made = resilience.dependency_for(url("http://api.example/other"))
    assert made.name != declared.name
    assert resilience.dependencies == {one.name: one for one in (declared, made, other)}
    assert resilience.dependency_for(url("http://other.example")) is other


def test_names_are_unique_even_where_a_digest_is_taken() -> None:
    resilience = Resilience()
    first = resilience.dependency_for(url(f"http://{LONG}.example"))
    resilience.dependency(first.name)
    second = resilience.dependency_for(url(f"http://{LONG}.example"))
    assert first.name != second.name and len(second.name) == 100 and len(resilience.dependencies) == 2


def test_pitfall_10_what_is_forgotten_is_gone() -> None:
    resilience = Resilience(max_origins=10)
    references = []
    for number in range(100):
        made = resilience.dependency_for(url(f"http://host-{number}.example"))
        made.call_sync(int)
        references.append(weakref.ref(made))
        if number % 30 == 0:
            resilience.metrics.render()
    resilience.metrics.render()
    del made
    gc.collect()
    assert sum(reference() is not None for reference in references) == 10
    page = resilience.metrics.render()[0].decode()
    assert "host-99" in page and "host-5.example" not in page


def test_routing_while_others_are_declared() -> None:
    resilience = Resilience()
    known = resilience.dependency("known", origin="http://api.example")
    wrong, done = [], threading.Event()

    def route() -> None:
        while not done.is_set():
            if resilience.dependency_for(SimpleNamespace(scheme="http", host="api.example", port=None, path="/")) is not known:
                wrong.append(1)

    threads = [threading.Thread(target=route) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        resilience.dependency(f"d{number}", Timeout(), origin=f"http://api.example/{number}")
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


# -- listeners ---------------------------------------------------------------------------------------------------


def test_every_dependency_tells_its_listeners(clock: FakeClock, listener: RecordingListener) -> None:
    resilience = Resilience(clock=clock, listeners=[listener])
    late = RecordingListener()
    resilience.add_listener(late)
    for name in ("first", "second"):
        dependency = resilience.dependency(name, Fallback("instead"), CircuitBreaker(1))
        dependency.call_sync({}.__getitem__, "missing")
    assert [event.dependency for event in listener.of(CircuitChanged)] == ["first", "second"]
    assert [event.at for event in listener.events] == [clock.now()] * 4
    assert late.events == listener.events
    assert b'resilient_breaker_transitions_total{dependency="first"' in resilience.metrics.render()[0]


# -- the switch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "environment", "enabled"),
    [
        (None, None, True),
        (None, "", True),
        (None, "1", True),
        (None, " ON ", True),
        (None, "0", False),
        (None, "False", False),
        (None, "no", False),
        (None, "off", False),
        (True, "0", True),
        (False, "1", False),
    ],
)
def test_whether_it_is_on(monkeypatch: pytest.MonkeyPatch, given: bool | None, environment: str | None, enabled: bool) -> None:
    if environment is not None:
        monkeypatch.setenv("RESILIENT_ENABLED", environment)
    resilience = Resilience(enabled=given)
    assert resilience.enabled is enabled
    assert resilience.dependency("shop").enabled is enabled
    assert resilience.dependency_for(url("http://other.example")).enabled is enabled


def test_an_environment_that_makes_no_sense_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENT_ENABLED", "maybe")
    with pytest.raises(ValueError, match="^RESILIENT_ENABLED"):
        Resilience()


def test_switched_off_every_call_passes_untouched() -> None:
    resilience = Resilience()
    shop = resilience.dependency("shop", Fallback("instead"), Bulkhead(), CircuitBreaker())
    shop.breaker.open()  # type: ignore[union-attr]

    @resilience.feature("recommendations", fallback=[])
    def recommended() -> list[int]:
        return [shop.call_sync(int)]

    assert recommended() == ["instead"]  # type: ignore[comparison-overlap]
    resilience.enabled = False
    assert recommended() == [0] and resilience.dependency_for(url("http://x.example")).enabled is False
    with pytest.raises(KeyError):
        shop.call_sync({}.__getitem__, "missing")
    resilience.enabled = True
    assert recommended() == ["instead"]  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match="^enabled"):
        resilience.enabled = 0  # type: ignore[assignment]


# -- reset -------------------------------------------------------------------------------------------------------


def test_reset_forgets_all_that_was_learnt_and_keeps_what_was_declared(clock: FakeClock, listener: RecordingListener) -> None:
    resilience = Resilience(clock=clock, listeners=[listener])
    shop = resilience.dependency("shop", CircuitBreaker(1), origin="http://shop.example")
    other = resilience.dependency_for(url("http://other.example"))

    @resilience.feature("recommendations", fallback=[])
    def recommended() -> list[int]:
        return [shop.call_sync({}.__getitem__, "missing")]

    with pytest.raises(KeyError):
        recommended()
    assert recommended() == [] and shop.state == "open"
    assert resilience.features["recommendations"].level is Level.STATIC
    resilience.reset()
    assert shop.state == "closed" and shop.call_sync(int) == 0
    assert resilience.features["recommendations"].level is Level.FULL
    assert shop.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}
    assert resilience.dependencies == {"shop": shop}
    assert resilience.dependency_for(url("http://other.example")) is not other
    assert not resilience.outbox.pending


def test_reset_in_the_middle_of_a_call_does_no_harm(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop", Bulkhead(max_concurrent=1, queue=0), CircuitBreaker(1))

    def work() -> None:
        resilience.reset()
        raise KeyError

    with pytest.raises(KeyError):
        shop.call_sync(work)
    assert shop.bulkhead is not None and shop.bulkhead.in_use == 0


def test_it_can_be_forgotten_itself() -> None:
    def use() -> weakref.ref[Any]:
        resilience = Resilience()
        resilience.dependency("shop").call_sync(int)
        resilience.feature("recommendations")
        return weakref.ref(resilience)

    reference = use()
    gc.collect()
    assert reference() is None


def test_a_rejection_names_the_dependency() -> None:
    shop = Resilience().dependency("shop", CircuitBreaker())
    shop.breaker.open()  # type: ignore[union-attr]
    with pytest.raises(CircuitOpen, match="^shop: circuit open"):
        shop.call_sync(int)


def test_a_fallback_of_a_dependency_is_counted_under_its_name(listener: RecordingListener) -> None:
    resilience = Resilience(listeners=[listener])
    resilience.dependency("shop", fallback=[]).call_sync({}.__getitem__, "missing")
    assert [(event.dependency, event.level) for event in listener.of(FallbackServed)] == [("shop", "static")]


def test_what_this_release_does_not_have_is_refused_by_name() -> None:
    resilience = Resilience()
    app = Starlette()
    resilience.install(app, dashboard=False)
    assert resilience.dependency("x", cache=None).name == "x"
    with pytest.raises(TypeError, match="cache"):
        resilience.dependency("y", cache=object())


def test_an_origin_with_percent_signs_is_compared_as_requests_show_theirs() -> None:
    resilience = Resilience()
    made = resilience.dependency("x", origin="http://e/a%20b")
    assert resilience.dependency_for(httpx.URL("http://e/a%20b/c")) is made


@pytest.mark.parametrize("name", ["clock", "outbox", "tiemout", "policies", "name_"])
def test_a_setting_that_a_dependency_does_not_have_is_named(name: str) -> None:
    resilience = Resilience()
    with pytest.raises(TypeError, match=rf"^{name}: a dependency "):
        resilience.dependency("shop", **{name: FakeClock()})
    assert resilience.dependencies == {}


def test_every_setting_of_a_dependency_can_be_given() -> None:
    given = {"origin", "required", "timeout", "cache", "fallback", "classify"}
    assert given <= set(resilient.resilience.SETTINGS)
    made = Resilience().dependency(
        "shop", origin="http://shop", required=True, timeout=2.0, cache=None, fallback=[], classify=lambda result, error: None
    )
    assert made.required and made.origin is not None
