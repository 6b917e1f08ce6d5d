"""Settings: what a file and the environment say stands over the program, wrong ones are named, and a reload keeps state."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st
from starlette.applications import Starlette

from resilient import (
    AdaptiveConcurrency,
    Bulkhead,
    Cache,
    Chaos,
    CircuitBreaker,
    CircuitOpen,
    ConfigurationWarning,
    Exponential,
    Failover,
    Fallback,
    Hedge,
    Linear,
    RateLimit,
    RateLimited,
    Resilience,
    Retry,
    RetryBudget,
    Settings,
    SettingsError,
    Timeout,
    standard,
)
from resilient.asgi import Drain
from resilient.policies import AdaptiveThrottle, Target
from resilient.policies.cached import CachedFallback
from resilient.policies.shown import settings_of
from resilient.settings.schema import DEPENDENCY, FEATURE, KINDS, parameters
from resilient.stores import MemoryStore
from resilient.testing import FakeClock, RecordingListener

from .thorough import often


def catalog(**table: Any) -> dict[str, Any]:
    return {"dependencies": {"catalog": table}}


def policy(resilience: Resilience, kind: type, name: str = "catalog") -> Any:
    (found,) = (one for one in resilience.dependencies[name].policies if type(one) is kind)
    return found


def write(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


# -- applied ----------------------------------------------------------------------------------------------------------


def test_a_file_stands_over_the_program_and_the_environment_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resilient.toml"
    file.write_text("[dependencies.catalog]\ntimeout = 2\nrequired = true\n[dependencies.catalog.retry]\nattempts = 2\nmax_retry_after = 5")
    monkeypatch.setenv("RESILIENT_CATALOG__TIMEOUT", "0.3")
    monkeypatch.setenv("RESILIENT_CATALOG__RETRY__ATTEMPTS", "4")
    resilience = Resilience(settings=file)
    made = resilience.dependency("catalog", timeout=30)
    assert policy(resilience, Timeout) == Timeout(total=0.3)
    assert made.required
    retry = policy(resilience, Retry)
    assert (retry.attempts, retry.max_retry_after) == (4, 5)


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENT_CATALOG__TIMEOUT", "0.3")
    monkeypatch.setenv("RESILIENT_SEARCH_V2__ORIGIN", "http://search.example")
    monkeypatch.setenv("RESILIENT_DEPENDENCIES__STORE__BULKHEAD", "{max_concurrent = 3}")
    monkeypatch.setenv("RESILIENT_FEATURES__ADVICE__CRITICAL", "true")
    resilience = Resilience()
    resilience.dependency("catalog")
    assert policy(resilience, Timeout).total == 0.3
    assert str(resilience.dependency("search-v2").origin) == "http://search.example"
    resilience.dependency("store")
    assert policy(resilience, Bulkhead, "store").limit == 3
    assert resilience.feature("advice").critical


def test_a_policy_of_the_program_stays_itself_where_it_can() -> None:
    shared, breaker = Bulkhead(max_concurrent=5), CircuitBreaker(name="own")
    resilience = Resilience(settings=catalog(bulkhead={"max_concurrent": 7}, circuit_breaker={"window": 60.0, "failure_rate": 0.5}))
    resilience.dependency("catalog", *standard(bulkhead=shared, breaker=breaker))
    assert policy(resilience, Bulkhead) is shared and shared.limit == 7
    # The window can't change at work: another breaker, with what the program said of this one.
    made = policy(resilience, CircuitBreaker)
    assert made is not breaker and (made.name, made.rules.window, made.rules.failure_rate) == ("own", 60.0, 0.5)


def test_a_table_of_a_policy_that_is_not_there_adds_it_where_it_belongs() -> None:
    table = catalog(hedge={"max_hedges": 2}, rate_limit={"rate": 5}, bulkhead={"max_concurrent": 2}, cache={"ttl": 9.0}, fallback=[])
    resilience = Resilience(settings=table)
    made = resilience.dependency("catalog")
    kinds = [type(one) for one in made.policies]
    assert kinds == [Fallback, Cache, Timeout, RateLimit, Retry, Hedge, Bulkhead, CircuitBreaker]
    assert made.policies[5].budget is made.policies[4].budget  # type: ignore[attr-defined]


def test_parts_are_tables_too() -> None:
    retry = {"backoff": {"kind": "linear", "step": 1.0}, "budget": {"ratio": 0.1}}
    resilience = Resilience(settings=catalog(retry=retry))
    resilience.dependency("catalog", *standard(retry=Retry(budget=RetryBudget(reserve=1.0))))
    made = policy(resilience, Retry)
    assert made.backoff == Linear(step=1.0)
    assert repr(made.budget) == "RetryBudget(ratio=0.1, reserve=1.0)"
    other = Resilience(settings=catalog(retry={"backoff": {"maximum": 2.0}}))
    other.dependency("catalog", *standard(retry=Retry(backoff=Exponential(initial=0.5))))
    assert policy(other, Retry).backoff == Exponential(initial=0.5, maximum=2.0)


def test_a_cache_may_be_switched_on_and_off_and_shares_the_store_of_the_settings() -> None:
    resilience = Resilience(settings={"store": {"kind": "memory", "max_bytes": 1000}, **catalog(cache=True)})
    assert resilience.dependency("catalog").cache.store is resilience.store  # type: ignore[union-attr]
    off = Resilience(settings=catalog(cache=False))
    assert off.dependency("catalog", cache=Cache()).cache is None


def test_the_switches_are_the_programs_then_the_environments_then_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Resilience(settings={"enabled": False}).enabled
    assert Resilience(settings={"enabled": False}, enabled=True).enabled
    assert Resilience(settings={"chaos": True}).chaos
    monkeypatch.setenv("RESILIENT_ENABLED", "1")
    assert Resilience(settings={"enabled": False}).enabled


def test_every_policy_tells_all_that_a_table_can_say() -> None:
    """Otherwise what the program said would be lost when a table changes something else."""
    made = [
        Timeout(),
        Retry(),
        Hedge(),
        Bulkhead(),
        AdaptiveConcurrency(),
        CircuitBreaker(),
        Cache(),
        Chaos(rate=1, hang=True),
        RateLimit(1),
        AdaptiveThrottle(),
        CachedFallback(ttl=1),
        Failover("https://eu.example", Target("us", url="https://us.example")),
    ]
    assert {type(one) for one in made} == set(KINDS.values())
    for one in made:
        told = settings_of(one)
        assert told is not None
        targets = told.pop("targets", ())
        assert repr(type(one)(*targets, **told)) == repr(one)


def test_values_are_cached_by_a_table() -> None:
    resilience = Resilience(settings=catalog(cached_fallback={"ttl": 60, "stale_if_error": 3600, "max_size": 1000}, cache=False))
    made = resilience.dependency("catalog")
    assert [type(one) for one in made.policies][:2] == [CachedFallback, Timeout]
    asked = []

    @made
    def price(product: str) -> int:
        asked.append(product)
        return 5

    assert (price("a"), price("a"), asked) == (5, 5, ["a"])


def test_a_table_stands_over_the_programs_cache_of_values_and_keeps_what_is_its_own() -> None:
    store, own = MemoryStore(), CachedFallback(ttl=1, key=lambda product: product, on=KeyError)
    shared = Fallback.cached(ttl=1, key="route", store=store)
    tables = {"catalog": {"cached_fallback": {"ttl": 60}}, "search": {"cached_fallback": {"key": "partition"}}}
    resilience = Resilience(settings={"dependencies": tables})
    resilience.dependency("catalog", *standard(cache=own))
    assert policy(resilience, CachedFallback) is own and own.ttl == 60 and own.on == (KeyError,)
    resilience.dependency("search", *standard(cache=shared))
    made = policy(resilience, CachedFallback, "search")
    assert made is not shared and made.store is store and made.ttl == 1  # whose a value is can't change


def test_targets_are_urls_and_may_have_names() -> None:
    named = {"eu": "https://eu.example/v1", "us": "https://us.example/v1"}
    resilience = Resilience(settings=catalog(failover={"targets": named, "repeat": True}))
    made = resilience.dependency("catalog")
    found = policy(resilience, Failover)
    assert {target.name: target.url for target in found.targets} == named and found.repeat
    assert [*resilience.dependencies] == ["catalog/eu", "catalog/us", "catalog"]
    assert not any(isinstance(one, CircuitBreaker) for one in made.policies)  # each target has its own

    listed = Settings({}, environ={"RESILIENT_CATALOG__FAILOVER__TARGETS": '["https://eu.example/v1", "https://us.example:8443"]'})
    resilience = Resilience(settings=listed)
    resilience.dependency("catalog")
    assert [target.name for target in policy(resilience, Failover).targets] == ["eu.example", "us.example:8443"]


def test_a_breaker_around_all_targets_stays_where_somebody_wants_it() -> None:
    targets = {"targets": ["https://eu.example", "https://us.example"]}
    for table, policies in ((catalog(failover=targets, circuit_breaker={"window": 60.0}), ()), (catalog(failover=targets), standard())):
        resilience = Resilience(settings=table)
        with pytest.warns(ConfigurationWarning, match="takes all targets for one"):
            resilience.dependency("catalog", *policies)
        assert policy(resilience, CircuitBreaker)


def test_a_table_without_targets_speaks_of_the_programs() -> None:
    eu = Target("eu", Timeout(total=1), url="https://eu.example", headers={"X-Key": "k"})
    own = Failover(eu, "https://us.example")
    resilience = Resilience(settings=catalog(failover={"repeat": True}))
    resilience.dependency("catalog", *standard(failover=own))
    assert policy(resilience, Failover) is own and own.repeat and own.targets[0] is eu
    resilience = Resilience(settings=catalog(failover={"targets": ["https://eu.example"]}))
    resilience.dependency("catalog", *standard(failover=own))
    assert [target.name for target in policy(resilience, Failover).targets] == ["eu.example"] and len(own.targets) == 2


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        (catalog(retry={"attemps": 2}), "dependencies.catalog.retry.attemps", "did you mean attempts?"),
        ({"dependencys": {}}, "dependencys", "did you mean dependencies?"),
        (catalog(breaker={"window": 3}), "dependencies.catalog.breaker", "circuit_breaker"),
        (catalog(timeout="fast"), "dependencies.catalog.timeout.total", "expected a number, got 'fast'"),
        (catalog(timeout=True), "dependencies.catalog.timeout.total", "expected a number, got True"),
        (catalog(required=1), "dependencies.catalog.required", "expected true or false"),
        (catalog(retry=3), "dependencies.catalog.retry", "expected a table with settings of Retry: attempt_header"),
        (catalog(retry={"budget": 3}), "dependencies.catalog.retry.budget", "ratio"),
        (catalog(cached_falback={"ttl": 3}), "dependencies.catalog.cached_falback", "did you mean cached_fallback?"),
        (catalog(cached_fallback={"stale_on_error": 3}), "dependencies.catalog.cached_fallback.stale_on_error", "mean stale_if_error?"),
        (catalog(cached_fallback={"ttl": "long"}), "dependencies.catalog.cached_fallback.ttl", "expected a number"),
        (catalog(cached_fallback={"on": ["KeyError"]}), "dependencies.catalog.cached_fallback.on", "no setting"),
        (catalog(failover={"target": ["https://eu.example"]}), "dependencies.catalog.failover.target", "did you mean targets?"),
        (catalog(failover={"targets": "https://eu.example"}), "dependencies.catalog.failover.targets", "expected a list of URLs"),
        (catalog(failover={"targets": []}), "dependencies.catalog.failover.targets", "expected a list of URLs"),
        (catalog(failover={"targets": {"eu": {"url": "x"}}}), "dependencies.catalog.failover.targets", "a table of URLs"),
        (catalog(classify="x"), "dependencies.catalog.classify", "no setting"),
        ({"features": {"advice": {"critica": True}}}, "features.advice.critica", "did you mean critical?"),
        ({"dependencies": {"catalog": 3}}, "dependencies.catalog", "expected a table"),
        ({"dependencies": 3}, "dependencies", "expected a table"),
        ({"store": {"kind": "redos"}}, "store.kind", "did you mean redis?"),
        ({"store": {"url": "redis://"}}, "store.kind", "is missing"),
        ({"store": {"kind": "memory", "max_bites": 3}}, "store.max_bites", "did you mean max_bytes?"),
        ({"max_origins": "many"}, "max_origins", "a whole number"),
    ],
)
def test_what_is_wrong_is_named_at_once(table: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Resilience(settings=table)
    assert caught.value.key == key and key in str(caught.value)
    assert words in str(caught.value) and caught.value.source == "settings="


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        (catalog(retry={"attempts": 0}), "dependencies.catalog.retry.attempts", "must be at least 1"),
        (catalog(timeout={"total": 1.0, "attempt": 2.0}), "dependencies.catalog.timeout.attempt", "longer than total"),
        (catalog(rate_limit={"burst": 2}), "dependencies.catalog.rate_limit.rate", "is missing"),
        (catalog(circuit_breaker={"fail_max": 3, "window": 5.0}), "dependencies.catalog.circuit_breaker.fail_max", "together"),
        (catalog(retry={"backoff": {"kind": "cubic"}}), "dependencies.catalog.retry.backoff.kind", "exponential"),
        (catalog(retry={"backoff": {"kind": "constant", "delay": 1, "step": 1}}), "dependencies.catalog.retry.backoff.step", "no such"),
        (catalog(cached_fallback={"stale_if_error": 9}), "dependencies.catalog.cached_fallback.ttl", "is missing"),
        (catalog(cached_fallback={"ttl": -1}), "dependencies.catalog.cached_fallback.ttl", "0 or more"),
        (catalog(failover={"repeat": True}), "dependencies.catalog.failover.targets", "is missing"),
        (catalog(failover={"targets": ["ftp://eu.example"]}), "dependencies.catalog.failover.targets", "https://eu.example.com/v1"),
        (catalog(failover={"targets": ["https://a/1", "https://a/2"]}), "dependencies.catalog.failover.targets", "name of its own"),
        (catalog(failover={"targets": {"e u": "https://a"}}), "dependencies.catalog.failover.targets", "without white space"),
        (catalog(timeout=10**400), "dependencies.catalog.timeout", "too large"),
    ],
)
def test_what_a_constructor_refuses_is_named_where_it_is_declared(table: dict[str, Any], key: str, words: str) -> None:
    resilience = Resilience(settings=table)
    with pytest.raises(SettingsError) as caught:
        resilience.dependency("catalog")
    assert caught.value.key == key and words in str(caught.value)
    assert resilience.dependencies == {}


def test_two_of_a_kind_and_those_of_others_are_not_for_a_table() -> None:
    import pybreaker

    resilience = Resilience(settings=catalog(rate_limit={"rate": 3}))
    with pytest.raises(SettingsError, match="^dependencies.catalog.rate_limit: there are 2 of them"):
        resilience.dependency("catalog", RateLimit(1), RateLimit(2))
    resilience = Resilience(settings=catalog(circuit_breaker={"trials": 3}))
    with pytest.raises(SettingsError, match="^dependencies.catalog.circuit_breaker: the program has a ForeignBreaker"):
        resilience.dependency("catalog", pybreaker.CircuitBreaker())


def test_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENT_CATALOG__RETRY__ATTEMPTS", "two")
    with pytest.raises(SettingsError, match=r"retry\.attempts: expected a whole number, got 'two' \(given by RESILIENT_CATALOG__RETRY__"):
        Resilience()
    monkeypatch.delenv("RESILIENT_CATALOG__RETRY__ATTEMPTS")
    monkeypatch.setenv("RESILIENT_ENABELD", "0")
    with pytest.raises(SettingsError, match="did you mean enabled"):
        Resilience()
    monkeypatch.delenv("RESILIENT_ENABELD")
    monkeypatch.setenv("RESILIENT_SERVICE_HOST", "10.0.0.1")  # Kubernetes
    Resilience()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="absent.toml cannot be read"):
        Resilience(settings=tmp_path / "absent.toml")
    file = tmp_path / "bad.toml"
    file.write_text('[store]\nurl = "redis://:hunter2@host\n')
    with pytest.raises(SettingsError, match=r"bad.toml is no TOML") as caught:
        Resilience(settings=str(file))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(TypeError, match="^settings: "):
        Resilience(settings=5)  # type: ignore[arg-type]


def test_names_that_nobody_declared_are_told() -> None:
    resilience = Resilience(settings=Settings(catalog(timeout=1), environ={"RESILIENT_SERACH__TIMEOUT": "1"}))
    resilience.dependency("catalogue")
    resilience.dependency("search")
    first, second = resilience.settings.unused(resilience.dependencies, resilience.features, resilience.checks)
    assert first.key == "dependencies.catalog" and "did you mean catalogue?" in str(first)
    assert second.source == "RESILIENT_SERACH__TIMEOUT" and "did you mean search?" in str(second)


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    store = {"kind": "redis", "url": "redis://user:hunter2@127.0.0.1:1/0", "secret": "hunter3 hunter3 hunter3"}
    resilience = Resilience(settings={"store": store})
    texts = [repr(resilience.settings), repr(resilience.settings.store), str(resilience.settings.store), repr(resilience.store)]
    for wrong in ({"trust": "no"}, {"secret": 5}, {"url": ["redis://:hunter2@h"]}, {"timeout": -1}, {"prefix": ""}, {"secret": "hunter3"}):
        with pytest.raises(SettingsError) as caught:
            Resilience(settings={"store": {**store, **wrong}})
        texts += [str(caught.value), repr(caught.value)]
    resilience.settings.source["store"] = {**store, "secret": "hunter4 hunter4 hunter4"}  # type: ignore[index,call-overload]
    with pytest.raises(SettingsError, match="store.secret: can't be changed") as caught:
        resilience.reload()
    texts += [str(caught.value), caplog.text]
    assert not [text for text in texts if "hunter" in text]


# -- any mapping ------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["none", "", "auto", "route", "full"]) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "ratio", "200", "delay", "initial"]), inner, max_size=3)
    ),
    max_leaves=5,
)
TABLES = st.one_of(
    *(
        st.dictionaries(st.sampled_from([*parameters(kind), "nonsense"]), VALUES, max_size=3).map(lambda table, name=name: {name: table})  # type: ignore[misc]
        for name, kind in KINDS.items()
    )
)


@pytest.mark.slow
@drawn(max_examples=often(300), deadline=None)
@given(TABLES, st.dictionaries(st.sampled_from([*DEPENDENCY, *FEATURE, "nonsense"]), VALUES, max_size=2), st.booleans())
def test_any_mapping_applies_or_is_refused_by_name(table: dict[str, Any], more: dict[str, Any], feature: bool) -> None:
    mapping = {"features": {"catalog": more}} if feature else catalog(**{**more, **table})
    try:
        resilience = Resilience(settings=Settings(mapping, environ={}))
        resilience.dependency("catalog")
        resilience.feature("catalog")
    except SettingsError as error:
        refused: Exception | None = error
    except (TypeError, ValueError) as error:
        # What isn't a policy's is judged by the Dependency or the Feature itself, which name their parameter.
        refused = error
    else:
        refused = None
    if isinstance(refused, SettingsError):
        assert refused.key in str(refused) and refused.key.split(".")[0] in ("dependencies", "features")
        assert refused.source == "settings="
    elif refused is not None:
        assert any(str(refused).startswith(name) for name in (*DEPENDENCY, *FEATURE)), refused


# -- reload -----------------------------------------------------------------------------------------------------------


def serving(file: Path, text: str, clock: FakeClock | None = None) -> tuple[Resilience, RecordingListener]:
    write(file, text)
    listener = RecordingListener()
    return Resilience(settings=file, listeners=[listener], **({} if clock is None else {"clock": clock})), listener


def test_a_reload_changes_living_objects_and_tells_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    resilience, listener = serving(tmp_path / "r.toml", "[dependencies.catalog]\ntimeout = 2")
    made = resilience.dependency("catalog", *standard(bulkhead=Bulkhead(max_concurrent=5), retry=Retry(attempts=2)))
    before = {type(one): one for one in made.policies}
    budget, breaker = made.budget, made.breaker
    write(
        tmp_path / "r.toml",
        "[dependencies.catalog]\ntimeout = 1\nrequired = true\n"
        "retry.attempts = 4\nbulkhead.max_concurrent = 9\ncircuit_breaker.failure_rate = 0.2",
    )
    with caplog.at_level(logging.WARNING, "resilient"):
        told = resilience.reload()
    assert {(one.key, one.old, one.new) for one in told} == {
        ("dependencies.catalog.timeout.total", "2", "1"),
        ("dependencies.catalog.required", "False", "True"),
        ("dependencies.catalog.retry.attempts", "2", "4"),
        ("dependencies.catalog.bulkhead.max_concurrent", "5", "9"),
        ("dependencies.catalog.circuit_breaker.failure_rate", "default", "0.2"),
    }
    assert [event for event in listener.events if type(event).__name__ == "SettingChanged"] == told
    assert "setting dependencies.catalog.retry.attempts: 2 -> 4" in caplog.text
    assert {one.event for one in caplog.records} == {"setting_changed"}  # type: ignore[attr-defined]
    assert made.required and made.budget is budget and made.breaker is breaker
    assert all(one is before[type(one)] for one in made.policies if not isinstance(one, Timeout))
    assert policy(resilience, Timeout) == Timeout(total=1)
    assert (before[Retry].attempts, before[Bulkhead].limit, breaker.rules.failure_rate) == (4, 9, 0.2)  # type: ignore[union-attr]
    assert resilience.reload() == []
    write(tmp_path / "r.toml", "")  # back to what the program says
    resilience.reload()
    assert (before[Retry].attempts, before[Bulkhead].limit, breaker.rules.failure_rate) == (2, 5, 0.7)  # type: ignore[union-attr]
    assert policy(resilience, Timeout) == Timeout() and not made.required


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[dependencies.catalog]\nretry.attempts = 4\ncircuit_breaker.window = 60.0", ["circuit_breaker.window"]),
        ("[dependencies.catalog]\nretry.attempts = 4\norigin = 'http://other.example'", ["dependencies.catalog.origin"]),
        ("[dependencies.catalog]\nretry.attempts = 4\nhedge.max_hedges = 2", ["dependencies.catalog.hedge"]),
        ("[dependencies.catalog]\nretry.attempts = 4\nretry.budget.ratio = 0.5", ["dependencies.catalog.retry.budget"]),
        ("[dependencies.catalog]\nretry.attempts = 4\ntimeout = -1", ["dependencies.catalog.timeout.total"]),
        ("[dependencies.catalog]\nretry.attempts = 4\ncircuit_breaker.max_break = 0.1", ["circuit_breaker.max_break"]),
        (
            "max_origins = 3\n[dependencies.catalog]\nretry.attempts = 4\n[features.advice]\ndwell = 2",
            ["max_origins", "features.advice.dwell"],
        ),
        ("[dependencies.catalog]\nretry.attempts = 4\ncached_fallback.ttl = 2", ["dependencies.catalog.cached_fallback"]),
        ("[dependencies.catalog]\nretry.attempts = 4\nfailover.targets = ['https://a.example']", ["dependencies.catalog.failover"]),
        ("nonsense", ["no TOML"]),
    ],
)
def test_what_cannot_change_is_refused_and_nothing_is_changed(tmp_path: Path, text: str, keys: list[str]) -> None:
    resilience, listener = serving(tmp_path / "r.toml", "")
    made = resilience.dependency("catalog")
    resilience.feature("advice")
    before = [repr(one) for one in made.policies]
    write(tmp_path / "r.toml", text)
    with pytest.raises(SettingsError) as caught:
        resilience.reload_if_changed()
    assert all(key in str(caught.value) for key in keys)
    assert [repr(one) for one in made.policies] == before and listener.events == []
    assert resilience.reload_if_changed() == []  # it is refused once


def test_what_is_cached_stays_and_how_long_it_serves_changes(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "r.toml"
    text = "[dependencies.catalog.cached_fallback]\nttl = {}\nstale_if_error = {}\n"
    resilience, _ = serving(file, text.format(10, 5), clock)
    made = resilience.dependency("catalog")
    cached, asked = policy(resilience, CachedFallback), []

    @made
    def price(product: str) -> int:
        asked.append(product)
        return len(asked)

    assert price("a") == 1
    write(file, text.format(100, 0) + "max_size = 9\n")
    told = {(one.key.rpartition(".")[2], one.old, one.new) for one in resilience.reload()}
    assert told == {("ttl", "10", "100"), ("stale_if_error", "5", "0"), ("max_size", "1048576", "9")}
    assert policy(resilience, CachedFallback) is cached and repr(cached) == "CachedFallback(ttl=100, stale_if_error=0, max_size=9)"
    assert (cached.ttl, cached.max_size, cached.rules.stale_if_error, cached.rules.max_stale) == (100, 9, 0, 0)
    assert price("a") == 1  # it is there still, and fresh for as long as it was to be
    clock.advance(11)
    assert price("a") == 2
    write(file, text.format(100, 0) + "max_size = 9\nkey = 'route'\n")
    with pytest.raises(SettingsError, match=r"cached_fallback\.key: can't be changed without losing"):
        resilience.reload()


def test_targets_stay_while_repeating_changes(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    text = "[dependencies.catalog.failover]\ntargets = ['https://eu.example', 'https://{}.example']\nrepeat = {}\n"
    resilience, _ = serving(file, text.format("us", "false"))
    resilience.dependency("catalog")
    failover = policy(resilience, Failover)
    pipelines = failover.pipelines
    write(file, text.format("us", "true"))
    assert [(one.key, one.old, one.new) for one in resilience.reload()] == [("dependencies.catalog.failover.repeat", "False", "True")]
    assert failover.repeat and failover.pipelines is pipelines and policy(resilience, Failover) is failover
    write(file, text.format("ap", "true"))
    with pytest.raises(SettingsError, match=r"failover\.targets: can't be changed without losing"):
        resilience.reload()
    write(file, "")
    with pytest.raises(SettingsError, match="can't be taken out"):
        resilience.reload()


def test_the_window_and_the_state_of_a_breaker_survive(tmp_path: Path) -> None:
    clock = FakeClock()
    resilience, _ = serving(tmp_path / "r.toml", "", clock)
    made = resilience.dependency("catalog", CircuitBreaker(failure_rate=0.9, minimum_calls=20))

    def fails() -> None:
        raise ConnectionError

    for _ in range(12):
        with pytest.raises(ConnectionError):
            made.call_sync(fails)
    assert made.state == "closed"
    write(tmp_path / "r.toml", "[dependencies.catalog.circuit_breaker]\nminimum_calls = 13")
    resilience.reload_if_changed()
    assert made.state == "closed"
    with pytest.raises(ConnectionError):
        made.call_sync(fails)
    assert made.state == "open"  # the twelve from before count
    write(tmp_path / "r.toml", "[dependencies.catalog.circuit_breaker]\nminimum_calls = 20")
    resilience.reload_if_changed()
    with pytest.raises(CircuitOpen):
        made.call_sync(fails)


def test_a_rate_limit_keeps_what_went(tmp_path: Path) -> None:
    clock = FakeClock()
    resilience, _ = serving(tmp_path / "r.toml", "[dependencies.catalog.rate_limit]\nrate = 1\nburst = 3", clock)
    made = resilience.dependency("catalog", RateLimit(1))
    for _ in range(3):
        made.call_sync(int)
    write(tmp_path / "r.toml", "[dependencies.catalog.rate_limit]\nrate = 10\nburst = 3")
    resilience.reload()
    with pytest.raises(RateLimited):
        made.call_sync(int)


def test_variants_that_share_a_timeout_change_with_it(tmp_path: Path) -> None:
    resilience, _ = serving(tmp_path / "r.toml", "")
    made = resilience.dependency("catalog")
    same, own = made.variant("same"), made.variant("own", timeout=60)
    write(tmp_path / "r.toml", "[dependencies.catalog]\ntimeout = 1")
    resilience.reload()
    assert policy(resilience, Timeout, "same").total == 1 and same.policies[1:] == made.policies[1:]
    assert own.policies[0].total == 60  # type: ignore[attr-defined]


def test_the_switches_and_features_change_too(tmp_path: Path) -> None:
    resilience, _ = serving(tmp_path / "r.toml", "")
    made, feature = resilience.dependency("catalog"), resilience.feature("advice")
    write(tmp_path / "r.toml", "enabled = false\nchaos = true\n[features.advice]\ncritical = true")
    assert {one.key for one in resilience.reload()} == {"enabled", "chaos", "features.advice.critical"}
    assert not made.enabled and made.chaos and feature.critical
    resilience.chaos = False  # by hand, which stays
    write(tmp_path / "r.toml", "chaos = true")
    resilience.reload()
    assert made.enabled and not resilience.chaos and not feature.critical


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bulkhead", "adaptive_concurrency"])
def test_a_reload_under_load_keeps_permits_and_windows(tmp_path: Path, kind: str) -> None:
    """Threads call all the while; limits, timeouts and rules change again and again. Nothing is lost and nothing kept."""
    file = tmp_path / "r.toml"
    resilience, _ = serving(file, "")
    made = resilience.dependency("catalog", *standard(bulkhead=KINDS[kind](max_concurrent=4)))
    over, errors, calls = threading.Event(), [], [0] * 6
    gate = threading.Semaphore(0)

    def load(number: int) -> None:
        while not over.is_set():
            try:
                made.call_sync(gate.acquire, timeout=0.001)
                calls[number] += 1
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        write(
            file,
            f"[dependencies.catalog]\ntimeout = {20 + turn % 3}\n{kind}.max_concurrent = {1 + turn % 7}\n"
            f"circuit_breaker.trials = {1 + turn % 4}",
        )
        assert resilience.reload_if_changed()
    over.set()
    for thread in threads:
        thread.join(10)
    assert errors == [] and all(calls)
    bulkhead = made.bulkhead
    assert bulkhead is not None and (bulkhead.in_use, bulkhead.queued) == (0, 0)
    assert made.stats.snapshot().counts["success"] == sum(calls)
    made.call_sync(int)


def reloaded() -> None:
    """Wait for what a signal has begun."""
    for thread in threading.enumerate():
        if thread.name == "resilient-reload":
            thread.join(10)


def test_a_signal_reloads_and_whoever_was_called_before_still_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    resilience, listener = serving(tmp_path / "r.toml", "")
    made = resilience.dependency("catalog")
    heard: list[int] = []
    changed = threading.Event()
    listener.on_event = lambda event: changed.set()  # type: ignore[method-assign]
    before = signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    try:
        undo = resilience.reload_on_signal()
        write(tmp_path / "r.toml", "[dependencies.catalog.retry]\nattempts = 7")
        os.kill(os.getpid(), signal.SIGHUP)
        assert changed.wait(10) and heard == [signal.SIGHUP]
        assert policy(resilience, Retry).attempts == 7
        write(tmp_path / "r.toml", "[dependencies.catalog.retry]\nattempts = 0")
        os.kill(os.getpid(), signal.SIGHUP)
        reloaded()
        assert f"settings from {tmp_path / 'r.toml'} were not reloaded, and nothing was changed: dependencies.catalog.retry" in caplog.text
        assert made.policies and policy(resilience, Retry).attempts == 7
        undo()
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP] * 3
    finally:
        signal.signal(signal.SIGHUP, before)


def test_of_mounted_services_each_reloads_its_own_settings_and_says_which_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How a service leaves and how often it asks its checks takes a restart: the line says so, and of whose settings."""
    outer, _ = serving(tmp_path / "outer.toml", "[drain]\ndelay = 5\n[checks.disk]\ninterval = 30")
    inner, _ = serving(tmp_path / "inner.toml", "")
    for resilience in (outer, inner):
        resilience.dependency("catalog")
        resilience.check("disk", lambda: None)
    app, mounted = Starlette(), Starlette()
    outer.install(app)
    inner.install(mounted)
    app.mount("/tenants", mounted)
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        outer.reload_on_signal()
        inner.reload_on_signal()
        text = "[drain]\ndelay = 9\n[checks.disk]\ninterval = 60\n[dependencies.catalog.retry]\nattempts = 7"
        write(tmp_path / "outer.toml", text)
        write(tmp_path / "inner.toml", "[dependencies.catalog.retry]\nattempts = 7")
        with caplog.at_level(logging.WARNING, "resilient"):
            os.kill(os.getpid(), signal.SIGHUP)
            reloaded()
        (refused,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
        assert refused.startswith(f"settings from {tmp_path / 'outer.toml'} were not reloaded, and nothing was changed: ")
        for key in ("drain.delay", "checks.disk.interval"):
            assert f"{key}: can't be changed while the service is at work; it takes a restart" in refused
        assert (policy(outer, Retry).attempts, policy(inner, Retry).attempts) == (Retry().attempts, 7)
        assert outer.leaving.settings is not None and outer.leaving.settings.delay == 5
    finally:
        signal.signal(signal.SIGHUP, before)


# -- the drain --------------------------------------------------------------------------------------------------------


def test_how_a_service_leaves_is_set_too() -> None:
    settings = Settings(
        {"drain": {"delay": 7, "budget": 9}}, environ={"RESILIENT_DRAIN__BUDGET": "30", "RESILIENT_DRAIN__ENFORCE": "false"}
    )
    resilience = Resilience(settings=settings)
    app, drain = Starlette(), Drain(delay=1, close_websockets=True)
    resilience.install(app, drain=drain)
    set_to = resilience.leaving.settings
    assert set_to is not None
    assert (set_to.delay, set_to.budget, set_to.enforce, set_to.close_websockets) == (7, 30, False, True)
    assert set_to.spares({"type": "http", "method": "GET", "path": "/readyz"})
    assert (drain.delay, drain.budget) == (1, 20)


@pytest.mark.parametrize(
    ("source", "key", "told"),
    [
        ({"drain": {"dealy": 7}}, "drain.dealy", "did you mean delay"),
        ({"drain": {"delay": -1}}, "drain.delay", "0 or more"),
        ({"drain": {"delay": "soon"}}, "drain.delay", "expected a number"),
        ({"drain": {"signals": [15]}}, "drain.signals", "no setting"),
        ({"drain": 5}, "drain", "expected a table"),
    ],
)
def test_what_cannot_be_is_told(source: Any, key: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as refused:
        Resilience(settings=Settings(source, environ={}))
    assert refused.value.key == key


def test_it_takes_a_restart() -> None:
    source: dict[str, Any] = {"drain": {"delay": 7}}
    resilience = Resilience(settings=Settings(source, environ={}))
    source["drain"] = {"delay": 8}
    with pytest.raises(SettingsError, match=r"^drain\.delay: .*restart"):
        resilience.reload()
