"""Features: what is caught, what is served instead, and who is told."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import httpx2
import pytest

import resilient.httpx
from resilient import (
    AllTargetsFailed,
    BulkheadFull,
    CircuitOpen,
    DeadlineExceeded,
    Feature,
    Level,
    Resilience,
    ResilienceError,
)
from resilient.context import RECORD
from resilient.core.degradation import DegradationRecord
from resilient.events import FeatureChanged, FeatureDegraded
from resilient.substitute import Substitute
from resilient.testing import FakeClock, RecordingListener


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


@pytest.fixture
def record() -> Any:
    record = DegradationRecord()
    token = RECORD.set(record)
    yield record
    RECORD.reset(token)


def told(listener: RecordingListener) -> list[tuple[str, str, str]]:
    return [(event.feature, event.level, event.cause) for event in listener.of(FeatureDegraded)]


def changes(listener: RecordingListener) -> list[tuple[str, str, str]]:
    return [(event.old, event.new, event.cause) for event in listener.of(FeatureChanged)]


def status_error(module: Any, status: int) -> Exception:
    request = module.Request("GET", "http://reviews")
    error: Exception = module.HTTPStatusError("x", request=request, response=module.Response(status, request=request))
    return error


FAILURES = [
    (CircuitOpen("x"), "circuit_open"),
    (BulkheadFull("x"), "bulkhead_full"),
    (DeadlineExceeded("x"), "deadline"),
    (AllTargetsFailed("x"), "all_targets_failed"),
    (resilient.httpx.CircuitOpen("x"), "circuit_open"),
    (httpx.ConnectError("x"), "ConnectError"),
    (httpx2.ReadTimeout("x"), "ReadTimeout"),
    (httpx2.RemoteProtocolError("x"), "RemoteProtocolError"),
    (status_error(httpx, 500), "status_500"),
    (status_error(httpx2, 503), "status_503"),
    (status_error(httpx2, 429), "status_429"),
    (status_error(httpx2, 408), "status_408"),
    (ExceptionGroup("tasks", [ExceptionGroup("more", [CircuitOpen("x")]), httpx.ConnectError("y")]), "circuit_open"),
]
OTHERS = [
    KeyError("bug"),
    ValueError("bad json"),
    TimeoutError("the app's own"),
    OSError("disk"),
    status_error(httpx, 404),
    status_error(httpx2, 401),
    status_error(httpx2, 501),
    httpx.InvalidURL("bug"),
    httpx.TooManyRedirects("x"),
    ExceptionGroup("tasks", [CircuitOpen("x"), KeyError("bug")]),
]


def name_of(value: Any) -> str | None:
    return f"{type(value).__module__}.{type(value).__name__}" if isinstance(value, Exception) else None


# -- what is caught -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("error", "cause"), FAILURES, ids=name_of)
async def test_a_failure_of_a_dependency_is_answered_by_the_fallback(
    error: Exception, cause: str, resilience: Resilience, listener: RecordingListener
) -> None:
    feature = resilience.feature("reviews", fallback="none yet")

    @feature
    async def reviews() -> str:
        raise error

    @feature
    def reviews_sync() -> str:
        raise error

    assert await reviews() == "none yet"
    assert reviews_sync() == "none yet"
    assert told(listener) == [("reviews", "static", cause)] * 2
    assert feature.errors == 0


@pytest.mark.anyio
@pytest.mark.parametrize("error", OTHERS, ids=name_of)
async def test_anything_else_is_raised_untouched_and_counted(error: Exception, resilience: Resilience, listener: RecordingListener) -> None:
    feature = resilience.feature("reviews", fallback="none yet")

    @feature
    async def reviews() -> str:
        raise error

    @feature
    def reviews_sync() -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        await reviews()
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        reviews_sync()
    assert caught.value is error
    assert feature.errors == 2
    assert listener.events == []
    feature.reset()
    assert feature.errors == 0


@pytest.mark.parametrize("on", [KeyError, (KeyError, OSError), [OSError, LookupError]])
def test_more_can_be_caught(on: Any, resilience: Resilience, listener: RecordingListener) -> None:
    @resilience.feature("reviews", fallback=None, on=on)
    def reviews() -> str:
        raise KeyError("gone")

    assert reviews() is None
    assert told(listener) == [("reviews", "static", "KeyError")]


def test_a_group_itself_can_be_caught(resilience: Resilience, listener: RecordingListener) -> None:
    @resilience.feature("reviews", fallback=None, on=ExceptionGroup)
    def reviews() -> str:
        raise ExceptionGroup("tasks", [KeyError("bug")])

    assert reviews() is None
    assert told(listener) == [("reviews", "static", "ExceptionGroup")]


@pytest.mark.anyio
async def test_pitfall_12_a_cancellation_passes(resilience: Resilience, listener: RecordingListener, anyio_backend: Any) -> None:
    @resilience.feature("reviews", fallback=None)
    async def reviews() -> None:
        await anyio.sleep(100)

    with anyio.move_on_after(1) as scope:
        await reviews()
    assert scope.cancelled_caught
    assert listener.events == []


# -- what is served instead -----------------------------------------------------------------------------------------


def failing(feature: Callable[[Any], Any]) -> Callable[..., Any]:
    @feature
    def use(product: str = "p", *, limit: int = 3) -> Any:
        raise CircuitOpen("x")

    return use  # type: ignore[no-any-return]


def test_none_is_a_value(resilience: Resilience) -> None:
    assert failing(resilience.feature("a", fallback=None))() is None


@pytest.mark.parametrize(
    "value",
    [[["nested"]], {"key": ["nested"]}, {1, 2}, (["nested"], 1)],
    ids=lambda value: type(value).__name__,
)
def test_a_collection_is_copied_for_each_use_to_its_depths(value: Any, resilience: Resilience) -> None:
    use = failing(resilience.feature("a", fallback=value))
    first, second = use(), use()
    assert first == second == value
    assert first is not second
    inner = {list: lambda c: c[0], dict: lambda c: c["key"], tuple: lambda c: c[0], set: lambda c: c}[type(value)]
    (inner(first).append if type(value) is not set else inner(first).add)("spoilt")
    assert "spoilt" not in inner(use())
    assert "spoilt" not in inner(value)
    (inner(value).append if type(value) is not set else inner(value).add)("spoilt")
    assert "spoilt" not in inner(use())


def test_another_object_is_served_as_it_is(resilience: Resilience) -> None:
    value = object()
    assert failing(resilience.feature("a", fallback=value))() is value


@pytest.mark.parametrize(
    ("fallback", "expected", "level"),
    [
        (lambda: "made", "made", "reduced"),
        (lambda product, limit: (product, limit), ("42", 7), "reduced"),
        (lambda *args, **kwargs: (args, kwargs), (("42",), {"limit": 7}), "reduced"),
        (lambda product, *, limit=0: (product, limit), ("42", 7), "reduced"),
        (functools.partial(lambda shop, product, limit: (shop, product, limit), "s"), ("s", "42", 7), "reduced"),
        (list, [], "static"),
        (dict, {}, "static"),
    ],
    ids=["nothing", "all", "whatever", "named", "partial", "list", "dict"],
)
def test_a_function_is_called_with_the_arguments_or_with_none(
    fallback: Any, expected: Any, level: str, resilience: Resilience, listener: RecordingListener
) -> None:
    use = failing(resilience.feature("a", fallback=fallback))
    assert use("42", limit=7) == expected
    assert told(listener) == [("a", level, "circuit_open")]


def test_a_class_makes_a_default(resilience: Resilience) -> None:
    @dataclass
    class Recommendations:
        products: tuple[str, ...] = ()

    assert failing(resilience.feature("a", fallback=Recommendations))("42") == Recommendations()


@pytest.mark.anyio
async def test_an_async_fallback_is_awaited(resilience: Resilience, listener: RecordingListener) -> None:
    async def stored(product: str) -> str:
        await anyio.sleep(1)
        return f"stored {product}"

    @resilience.feature("reviews", fallback=stored)
    async def reviews(product: str) -> str:
        raise CircuitOpen("x")

    assert await reviews("42") == "stored 42"
    assert told(listener) == [("reviews", "reduced", "circuit_open")]


@pytest.mark.anyio
async def test_what_the_fallback_raises_reaches_the_caller_with_the_failure_as_its_context(
    resilience: Resilience, listener: RecordingListener
) -> None:
    failure = CircuitOpen("x")

    def broken() -> str:
        raise KeyError("no default either")

    async def broken_async() -> str:
        raise KeyError("no default either")

    @resilience.feature("a", fallback=broken)
    def sync() -> str:
        raise failure

    @resilience.feature("b", fallback=broken_async)
    async def asynchronous() -> str:
        raise failure

    with pytest.raises(KeyError) as caught:
        sync()
    assert caught.value.__context__ is failure
    with pytest.raises(KeyError) as caught:
        await asynchronous()
    assert caught.value.__context__ is failure
    assert told(listener) == [("a", "off", "circuit_open"), ("b", "off", "circuit_open")]


@pytest.mark.anyio
async def test_without_a_fallback_the_failure_is_raised_and_told(resilience: Resilience, listener: RecordingListener) -> None:
    failure = CircuitOpen("x")

    @resilience.feature("checkout")
    async def checkout() -> str:
        raise failure

    @resilience.feature("basket")
    def basket() -> str:
        raise failure

    with pytest.raises(CircuitOpen) as caught:
        await checkout()
    assert caught.value is failure
    with pytest.raises(CircuitOpen) as caught:
        basket()
    assert caught.value is failure
    assert failure.__context__ is None
    assert told(listener) == [("checkout", "off", "circuit_open"), ("basket", "off", "circuit_open")]


# -- what can be a feature ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_pitfall_09_every_kind_of_function(resilience: Resilience) -> None:
    feature = resilience.feature("a", fallback="instead")

    class Shop:
        @feature
        async def method(self, product: str) -> str:
            raise CircuitOpen(product)

        @feature
        def plain(self, product: str) -> str:
            raise CircuitOpen(product)

        @feature
        @staticmethod
        async def static(product: str) -> str:
            raise CircuitOpen(product)

        @feature
        @classmethod
        async def of_class(cls, product: str) -> str:
            raise CircuitOpen(product)

        async def __call__(self, product: str) -> str:
            raise CircuitOpen(product)

    shop = Shop()
    assert await shop.method("42") == "instead"
    assert shop.plain("42") == "instead"
    assert await shop.static("42") == "instead"
    assert await Shop.of_class("42") == "instead"
    assert await feature(shop)("42") == "instead"
    assert await feature(functools.partial(Shop.static, "42"))() == "instead"


@pytest.mark.anyio
async def test_an_awaitable_that_a_plain_function_hands_on_is_the_use(resilience: Resilience, listener: RecordingListener) -> None:
    async def fetch(product: str) -> str:
        if product == "42":
            raise CircuitOpen("x")
        return product

    @resilience.feature("a", fallback=lambda product: f"instead of {product}")
    def use(product: str) -> Any:
        return fetch(product)

    assert await use("1") == "1"
    assert await use("42") == "instead of 42"
    assert told(listener) == [("a", "reduced", "circuit_open")]


def test_the_function_keeps_its_face(resilience: Resilience) -> None:
    import inspect

    @resilience.feature("a", fallback=None)
    async def reviews(product: str) -> str:
        """Of a product."""
        return product

    assert (reviews.__name__, reviews.__doc__) == ("reviews", "Of a product.")
    assert inspect.iscoroutinefunction(reviews)
    assert list(inspect.signature(reviews).parameters) == ["product"]


def test_generators_are_refused(resilience: Resilience) -> None:
    feature = resilience.feature("a", fallback=None)

    def plain() -> Any:
        yield 1

    async def asynchronous() -> Any:
        yield 1

    class Yielding:
        def __call__(self) -> Any:
            yield 1

    for fn in (plain, asynchronous, Yielding()):
        with pytest.raises(TypeError, match="generator"):
            feature(fn)


def test_a_fallback_that_could_not_stand_in_is_refused_before_the_outage(resilience: Resilience) -> None:
    def use(product: str, *, limit: int = 3) -> str:
        return product

    async def async_fallback(product: str, limit: int) -> str:
        return product

    for number, fallback in enumerate(
        [lambda product: 1, lambda product, shop, limit: 1, lambda product, *, limit, shop: 1, lambda product, *, lmit=3: 1]
    ):
        with pytest.raises(TypeError, match="fallback"):
            resilience.feature(f"a{number}", fallback=fallback)(use)
    with pytest.raises(TypeError, match=r"fallback.*async"):
        resilience.feature("b", fallback=async_fallback)(use)
    with pytest.raises(TypeError):
        resilience.feature("c", fallback=[threading.Lock()])


def test_a_function_that_does_not_say_what_it_takes_is_given_no_arguments() -> None:
    class Opaque:
        __signature__ = "none"

        def __call__(self, *args: Any) -> Any:
            return args

    substitute = Substitute(Opaque())
    assert substitute.make(("42",), {}) == ()
    Substitute(lambda product: product).check(Opaque(), is_async=False)  # nor can it be held against a fallback


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": ""}, ValueError, "name"),
        ({"name": "two words"}, ValueError, "name"),
        ({"name": "2fa"}, ValueError, "name"),
        ({"name": "é"}, ValueError, "name"),
        ({"name": "a" * 65}, ValueError, "name"),
        ({"name": None}, TypeError, "name"),
        ({"needs": "reviews"}, TypeError, "needs"),
        ({"needs": ["reviews"]}, TypeError, "needs"),
        ({"needs": 5}, TypeError, "needs"),
        ({"on": KeyError("x")}, TypeError, "on"),
        ({"on": [BaseException]}, TypeError, "on"),
        ({"on": ["KeyError"]}, TypeError, "on"),
        ({"critical": "yes"}, TypeError, "critical"),
        ({"dwell": -1}, ValueError, "dwell"),
        ({"recover_after": 0.5}, ValueError, "recover_after"),
        ({"recover_after": float("nan")}, ValueError, "recover_after"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception], message: str, resilience: Resilience) -> None:
    with pytest.raises(error, match=message):
        Feature(resilience, **{"name": "a", **settings})


# -- who is told ----------------------------------------------------------------------------------------------------


def need(name: str) -> Any:
    return SimpleNamespace(name=name)


@pytest.mark.parametrize(
    ("needs", "failure", "dependency"),
    [
        ([], CircuitOpen("x"), ""),
        ([], CircuitOpen("x", dependency="search"), "search"),
        (["search"], httpx.ConnectError("x"), "search"),
        (["search"], CircuitOpen("x", dependency="index"), "index"),
        (["search", "index"], httpx.ConnectError("x"), ""),
    ],
)
def test_the_dependency_is_named_as_far_as_it_is_known(
    needs: list[str], failure: Exception, dependency: str, resilience: Resilience, listener: RecordingListener, record: DegradationRecord
) -> None:
    @resilience.feature("a", needs=[need(name) for name in needs], fallback=None)
    def use() -> None:
        raise failure

    use()
    assert [event.dependency for event in listener.of(FeatureDegraded)] == [dependency]
    assert [entry.dependency for entry in record.entries] == [dependency]


@pytest.mark.anyio
async def test_the_request_is_told(resilience: Resilience, record: DegradationRecord) -> None:
    @resilience.feature("a", fallback=None)
    async def first() -> None:
        raise CircuitOpen("x")

    @resilience.feature("b", fallback=lambda: 1)
    def second() -> int:
        raise BulkheadFull("x")

    @resilience.feature("c", fallback=lambda: 1)
    def third() -> int:
        return 2

    await first()
    second()
    third()
    assert [(entry.feature, entry.level, entry.cause) for entry in record.entries] == [
        ("a", Level.STATIC, "circuit_open"),
        ("b", Level.REDUCED, "bulkhead_full"),
    ]


def test_levels_fall_at_once_and_rise_after_ten_seconds_of_health(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    feature = resilience.feature("a", fallback=None)
    healthy = False

    @feature
    def use() -> None:
        if not healthy:
            raise CircuitOpen("x")

    assert feature.level is Level.FULL
    use()
    assert feature.level is Level.STATIC
    assert changes(listener) == [("full", "static", "circuit_open")]
    healthy = True
    clock.advance(9.9)
    use()
    assert feature.level is Level.STATIC
    clock.advance(0.1)
    use()
    assert changes(listener)[1:] == [("static", "full", "recovered")]
    assert feature.level is Level.FULL
    assert len(told(listener)) == 1
    assert [event.at for event in listener.of(FeatureChanged)] == [clock.now() - 10, clock.now()]


@pytest.mark.anyio
async def test_an_async_use_notices_the_recovery_too(resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    healthy = False

    @resilience.feature("a", fallback=None)
    async def use() -> None:
        if not healthy:
            raise CircuitOpen("x")

    await use()
    healthy = True
    await anyio.sleep(10)
    await use()
    assert changes(listener) == [("full", "static", "circuit_open"), ("static", "full", "recovered")]


def test_a_look_at_the_level_is_enough_to_notice_a_recovery(resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    feature = resilience.feature("a", fallback=None)
    failing(feature)()
    clock.advance(60)
    assert feature.level is Level.FULL
    assert changes(listener)[1:] == [("static", "full", "recovered")]


def test_a_fall_that_waited_for_the_dwell_is_noticed_without_another_use(resilience: Resilience, clock: FakeClock) -> None:
    feature = resilience.feature("a", fallback=None)
    use = failing(feature)
    use()
    clock.advance(10)
    assert feature.level is Level.FULL
    clock.advance(0.5)
    use()
    assert feature.level is Level.FULL
    clock.advance(0.5)
    assert feature.level is Level.STATIC


def test_reset_makes_it_full_and_tells_nobody(resilience: Resilience, listener: RecordingListener) -> None:
    feature = resilience.feature("a", fallback=None)
    failing(feature)()
    listener.clear()
    resilience.reset()
    assert feature.level is Level.FULL
    assert listener.events == []
    assert repr(feature) == "<Feature a full>"


def test_a_disabled_resilience_lets_everything_pass(listener: RecordingListener) -> None:
    resilience = Resilience(enabled=False, listeners=[listener])
    feature = resilience.feature("a", fallback=None)
    with pytest.raises(CircuitOpen):
        failing(feature)()
    assert feature.level is Level.FULL
    assert listener.events == []


@pytest.mark.anyio
async def test_a_disabled_resilience_lets_async_uses_pass(listener: RecordingListener) -> None:
    @Resilience(enabled=False, listeners=[listener]).feature("a", fallback=None)
    async def use(fail: bool) -> str:
        if fail:
            raise ResilienceError("x")
        return "own"

    assert await use(False) == "own"
    with pytest.raises(ResilienceError):
        await use(True)
    assert listener.events == []


def test_threads_tell_each_use_once_and_each_change_once(listener: RecordingListener) -> None:
    resilience = Resilience(listeners=[listener])
    use = failing(resilience.feature("a", fallback=None))
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(50):
            use()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    resilience.outbox.flush()
    assert len(told(listener)) == 400
    assert changes(listener) == [("full", "static", "circuit_open")]


def test_pitfall_10_a_degraded_use_leaves_nothing_for_the_collector() -> None:
    feature = Resilience().feature("recommendations", fallback=[])

    @feature
    def plain() -> list[str]:
        raise DeadlineExceeded("x")

    @feature
    async def awaited() -> list[str]:
        raise DeadlineExceeded("x")

    async def uses() -> None:
        for _ in range(50):
            assert plain() == [] and await awaited() == []

    anyio.run(uses)
    gc.collect()
    gc.disable()
    try:
        anyio.run(uses)
        gc.collect()  # of what the runner itself left
        for _ in range(50):
            plain()
        assert gc.collect() == 0
    finally:
        gc.enable()
