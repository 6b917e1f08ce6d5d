"""Features that are asked and switched: by operators, by a schedule, for tenants and for a share of the users."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from resilient import CircuitOpen, Feature, Level, Rejected, Resilience, context
from resilient.context import RECORD
from resilient.core.degradation import DegradationRecord
from resilient.events import FeatureChanged, FeatureDegraded, FeatureOrdered
from resilient.testing import FakeClock, RecordingListener

from .feature_worlds import Uses, in_each_world

FULL, REDUCED, STATIC, OFF = Level
MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


@pytest.fixture
def record() -> Any:
    record = DegradationRecord()
    token = RECORD.set(record)
    yield record
    RECORD.reset(token)


def changes(listener: RecordingListener) -> list[tuple[str, ...]]:
    return [(event.old, event.new, event.cause, event.by, event.why) for event in listener.of(FeatureChanged)]


def causes(listener: RecordingListener) -> list[tuple[str, str]]:
    return [(event.level, event.cause) for event in listener.of(FeatureDegraded)]


# -- the switch -----------------------------------------------------------------------------------------------------


@in_each_world
@pytest.mark.parametrize("level", ["static", "off"])
def test_what_is_switched_off_calls_nothing_and_serves_the_fallback(
    world: str, level: str, resilience: Resilience, listener: RecordingListener, record: DegradationRecord
) -> None:
    feature = resilience.feature("reviews", fallback=["none yet"])
    use = Uses(world, feature)
    assert use() == "own"
    feature.set_level(level, by="ann", why="migration")
    assert feature.level is Level(level)
    assert use() == ["none yet"]
    assert use.calls == 1
    assert causes(listener) == [(level, "operator")]
    assert [(entry.feature, entry.level, entry.cause) for entry in record.entries] == [("reviews", level, "operator")]
    feature.clear(by="bob", why="done")
    assert feature.level is FULL, "what was ordered ends at once"
    assert use() == "own"
    assert changes(listener) == [
        ("full", level, "operator", "ann", "migration"),
        (level, "full", "operator", "bob", "done"),
    ]


@in_each_world
def test_without_a_fallback_it_is_refused(world: str, resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    feature = resilience.feature("checkout")
    use = Uses(world, feature)
    feature.set_level("off", until=30)
    clock.advance(10)
    with pytest.raises(Rejected, match="checkout is off") as caught:
        use()
    assert (caught.value.policy, caught.value.reason, caught.value.retry_after) == ("feature", "operator", 20)
    assert use.calls == 0
    assert causes(listener) == [("off", "operator")]
    clock.advance(20)
    assert use() == "own"
    assert changes(listener)[-1] == ("off", "full", "operator", "", "its time is over")
    feature.set_level("off")
    with pytest.raises(Rejected) as caught:
        use()
    assert caught.value.retry_after is None


@in_each_world
def test_reduced_serves_what_is_made_for_the_use_or_else_calls_the_function(
    world: str, resilience: Resilience, listener: RecordingListener
) -> None:
    made = resilience.feature("made", fallback=lambda *args: ("stored", *args))
    fixed = resilience.feature("fixed", fallback=[])
    use_made, use_fixed = Uses(world, made), Uses(world, fixed)
    made.set_level("reduced")
    fixed.set_level("reduced")
    assert use_made("7") == ("stored", "7")
    assert use_made.calls == 0
    assert use_fixed("7") == "own"
    assert causes(listener) == [("reduced", "operator")] * 2
    assert (made.level, fixed.level) == (REDUCED, REDUCED)


def test_an_order_does_not_outlive_itself_in_what_uses_show(resilience: Resilience, clock: FakeClock) -> None:
    feature = resilience.feature("reviews", fallback=[])
    use = Uses("sync", feature)
    feature.set_level("off")
    for _ in range(3):
        use()
    feature.clear()
    assert feature.level is FULL


def test_the_most_severe_trigger_wins_and_each_is_lifted_by_itself(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    now = [MONDAY]
    feature = resilience.feature("reviews", fallback=lambda: "made", schedule="static 12:00-13:00", wall=lambda: now[0])
    use = Uses("sync", feature, CircuitOpen("x"))
    assert feature.level is STATIC
    feature.set_level("off", by="ann")
    assert feature.level is OFF
    now[0] += 3600  # the window is over
    assert feature.level is OFF
    feature.set_level("reduced", by="bob")
    assert feature.level is REDUCED
    feature.clear(by="cy")
    assert feature.level is FULL
    assert use() == "made"
    assert feature.level is REDUCED, "a use that failed"
    feature.set_level("static")
    feature.clear()
    assert feature.level is REDUCED, "the operator's is lifted, the failure is not"
    clock.advance(10)
    assert feature.level is FULL
    assert [change[:4] for change in changes(listener)] == [
        ("full", "static", "schedule", ""),
        ("static", "off", "operator", "ann"),
        ("off", "reduced", "operator", "bob"),
        ("reduced", "full", "operator", "cy"),
        ("full", "reduced", "circuit_open", ""),
        ("reduced", "static", "operator", ""),
        ("static", "reduced", "operator", ""),
        ("reduced", "full", "recovered", ""),
    ]


def test_full_lifts_and_a_share_of_nobody_too(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback=[])
    feature.set_level("off")
    feature.set_level(FULL)
    assert feature.orders == ()
    feature.set_level("off", share=0.5)
    feature.set_level("off", share=0)
    assert feature.orders == ()


def test_the_end_of_an_order_is_a_date_or_seconds(clock: FakeClock, resilience: Resilience) -> None:
    now = [MONDAY]
    feature = resilience.feature("reviews", fallback=[], wall=lambda: now[0])
    feature.set_level("off", until=datetime.fromtimestamp(MONDAY, UTC) + timedelta(seconds=90))
    (order,) = feature.orders
    assert order.until == clock.now() + 90
    clock.advance(89)
    assert feature.level is OFF
    clock.advance(1)
    assert feature.level is FULL
    assert [entry.what for entry in feature.history] == ["ordered", "changed", "expired", "changed"]


# -- tenants and shares ---------------------------------------------------------------------------------------------


TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
USER: ContextVar[str | None] = ContextVar("user", default=None)


@in_each_world
def test_a_switch_for_one_tenant(world: str, resilience: Resilience, listener: RecordingListener) -> None:
    feature = resilience.feature("reviews", fallback="none", tenant=TENANT.get)
    use = Uses(world, feature)
    feature.set_level("off", tenant="acme", by="ann")
    assert use() == "own"
    TENANT.set("acme")
    try:
        assert use() == "none"
        assert feature.level_for() is OFF
    finally:
        TENANT.set("other")
    assert use() == "own"
    TENANT.set(None)
    assert feature.level is FULL, "everybody's level is another"
    assert changes(listener) == []
    assert (feature.level_for(tenant="acme"), feature.level_for(tenant="other"), feature.level_for()) == (OFF, FULL, FULL)
    feature.clear(tenant="other")
    assert feature.level_for(tenant="acme") is OFF
    feature.clear(tenant="acme")
    assert feature.level_for(tenant="acme") is FULL


def test_by_default_the_tenant_is_the_partition_in_force(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback="none")
    use = Uses("sync", feature)
    feature.set_level("off", tenant="acme")
    with context.partition("acme"):
        assert use() == "none"
    with context.partition("other"):
        assert use() != "none"


def test_a_share_is_the_same_users_at_any_time(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback="none", key=USER.get)
    use = Uses("sync", feature)
    users = [f"user {number}" for number in range(500)]

    def without() -> set[str]:
        found = set()
        for user in users:
            USER.set(user)
            if use() == "none":
                found.add(user)
        USER.set(None)
        return found

    feature.set_level("off", share=0.3)
    some = without()
    assert 100 < len(some) < 200
    assert without() == some
    assert {user for user in users if feature.level_for(key=user) is OFF} == some
    feature.set_level("off", share=0.6)
    assert some < without()
    assert feature.level is FULL


def test_an_order_may_bring_its_own_key(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback="none")
    feature.set_level("off", share=0.5, key=USER.get)
    answers = set()
    for user in ("a", "b", "c", "d", "e", "f", "g", "h"):
        USER.set(user)
        answers.add((user, feature.level_for()))
        assert {feature.enabled_for() for _ in range(5)} == {feature.level_for() is FULL}
    USER.set(None)
    assert {level for _, level in answers} == {FULL, OFF}


def test_without_a_key_chance_decides(resilience: Resilience) -> None:
    draws = iter([0.1, 0.6, 0.49, 0.5])
    feature = resilience.feature("reviews", fallback="none", chance=lambda: next(draws))
    use = Uses("sync", feature)
    feature.set_level("off", share=0.5)
    assert feature.level_for() is FULL, "nothing is certain"
    assert [use() for _ in range(4)] == ["none", "own", "none", "own"]


def test_a_function_that_cannot_say_whose_use_it_is_harms_nobody(resilience: Resilience, caplog: pytest.LogCaptureFixture) -> None:
    def tenant() -> str:
        raise KeyError("no session")

    feature = resilience.feature("reviews", fallback="none", tenant=tenant)
    feature.set_level("off", tenant="acme")
    assert Uses("sync", feature)() == "own"
    assert resilience.outbox.listener_errors == 1
    assert "KeyError" in caplog.text


def test_orders_are_bounded(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback="none")
    for number in range(1000):
        feature.set_level("off", tenant=f"t{number}")
    with pytest.raises(OverflowError):
        feature.set_level("off", tenant="one more")
    assert len(feature.orders) == 1000
    assert len(feature.history) == 100


# -- the schedule ---------------------------------------------------------------------------------------------------


@in_each_world
def test_a_schedule(world: str, resilience: Resilience, listener: RecordingListener) -> None:
    now = [MONDAY]
    feature = resilience.feature("reviews", fallback="none", schedule=["off mon 13:00-14:00"], wall=lambda: now[0])
    use = Uses(world, feature)
    assert use() == "own"
    now[0] += 3600
    assert use() == "none"
    assert use.calls == 1
    assert causes(listener) == [("off", "schedule")]
    now[0] += 3600
    assert use() == "own"
    assert [change[:3] for change in changes(listener)] == [("full", "off", "schedule"), ("off", "full", "schedule")]


# -- asked ----------------------------------------------------------------------------------------------------------


def test_enabled_for_is_a_use_of_its_own(resilience: Resilience, listener: RecordingListener, record: DegradationRecord) -> None:
    feature = resilience.feature("banner", fallback=None)
    assert feature.enabled_for()
    feature.set_level("off")
    assert feature.level_for() is OFF
    assert record.entries == (), "that was a look"
    assert not feature.enabled_for()
    assert [(entry.feature, entry.level) for entry in record.entries] == [("banner", OFF)]
    assert causes(listener) == [("off", "operator")]
    feature.set_level("reduced")
    assert feature.enabled_for()


@pytest.mark.anyio
async def test_the_level_as_a_dependency_of_an_endpoint(resilience: Resilience) -> None:
    feature = resilience.feature("banner", fallback=None)
    assert await feature.current_level() is FULL
    feature.set_level("static")
    assert await feature.current_level() is STATIC


@pytest.mark.anyio
async def test_a_plain_function_that_hands_on_an_awaitable_is_replaced_by_one(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback=["none"])
    annotated = resilience.feature("more", fallback=["none"])

    async def fetch() -> str:
        await anyio.lowlevel.checkpoint()
        return "own"

    @feature
    def use():  # type: ignore[no-untyped-def]
        return fetch()

    from collections.abc import Awaitable

    def other() -> Awaitable[str]:
        return fetch()

    use_other = annotated(other)
    assert await use() == "own"
    feature.set_level("off")
    annotated.set_level("off")
    assert await use() == ["none"]
    assert await use_other() == ["none"]  # it was never called, but says what it returns


# -- told -----------------------------------------------------------------------------------------------------------


def test_who_what_why_and_when_are_kept(resilience: Resilience, listener: RecordingListener, caplog: pytest.LogCaptureFixture) -> None:
    feature = resilience.feature("reviews", fallback=[], wall=lambda: MONDAY)
    caplog.set_level(logging.INFO, "resilient")
    feature.set_level("off", by="ann", why="migration", tenant="acme", share=0.5)
    feature.set_level("static", by="bob")
    feature.clear(by="cy", why="done")
    told = [(one.what, one.level, one.by, one.why, one.tenant, one.share) for one in feature.history]
    assert told == [
        ("ordered", "off", "ann", "migration", "acme", 0.5),
        ("ordered", "static", "bob", "", None, 1.0),
        ("changed", "static", "bob", "", None, 1.0),
        ("lifted", "off", "cy", "done", "acme", 0.5),
        ("lifted", "static", "cy", "done", None, 1.0),
        ("changed", "full", "cy", "done", None, 1.0),
    ]
    assert {one.when for one in feature.history} == {datetime.fromtimestamp(MONDAY, UTC)}
    assert [event.what for event in listener.of(FeatureOrdered)] == ["ordered", "ordered", "lifted", "lifted"]
    assert "feature reviews: ordered: off for 50% of 'acme', by 'ann': 'migration'" in caplog.text
    assert "feature reviews: static -> full (operator, by 'cy': 'done')" in caplog.text
    feature.reset()
    assert feature.history == feature.orders == ()


def test_a_disabled_resilience_takes_no_notice(listener: RecordingListener) -> None:
    resilience = Resilience(enabled=False, listeners=[listener])
    feature = resilience.feature("reviews", fallback=[])
    feature.set_level("off")
    assert Uses("sync", feature)() == "own"
    assert feature.enabled_for()
    assert feature.level_for() is FULL


def test_a_reset_lifts_everything_but_the_schedule(resilience: Resilience) -> None:
    feature = resilience.feature("reviews", fallback="none", schedule="off mon", wall=lambda: MONDAY)
    feature.set_level("off")
    resilience.reset()
    assert feature.orders == ()
    assert Uses("sync", feature)() == "none"


# -- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"required": True, "fallback": []}, ValueError, "required, fallback"),
        ({"required": 1}, TypeError, "required"),
        ({"writes": "yes"}, TypeError, "writes"),
        ({"dim": -1}, ValueError, "dim"),
        ({"dim": "low"}, TypeError, "dim"),
        ({"key": "user"}, TypeError, "key"),
        ({"tenant": 3}, TypeError, "tenant"),
        ({"schedule": "off whenever"}, ValueError, "schedule"),
        ({"schedule": "static mon"}, ValueError, "schedule.*no fallback"),
        ({"required": True, "schedule": "reduced mon"}, ValueError, "schedule, required"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception], message: str, resilience: Resilience) -> None:
    with pytest.raises(error, match=message):
        Feature(resilience, **{"name": "a", **settings})


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ({"level": "low"}, ValueError, "level"),
        ({"level": 3}, ValueError, "level"),
        ({"share": 1.5}, ValueError, "share"),
        ({"share": "half"}, TypeError, "share"),
        ({"tenant": 3}, TypeError, "tenant"),
        ({"tenant": ""}, ValueError, "tenant"),
        ({"tenant": "a" * 201}, ValueError, "tenant"),
        ({"by": None}, TypeError, "by"),
        ({"by": "a" * 501}, ValueError, "by"),
        ({"why": "two\nlines"}, ValueError, "why"),
        ({"key": "user"}, TypeError, "key"),
        ({"until": 0}, ValueError, "until"),
        ({"until": float("nan")}, ValueError, "until"),
        ({"until": "tomorrow"}, TypeError, "until"),
        ({"until": datetime(2030, 1, 1)}, ValueError, "until"),  # noqa: DTZ001  # that is what is wrong with it
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, ValueError, "until"),
    ],
)
def test_orders_are_checked(order: dict[str, Any], error: type[Exception], message: str, resilience: Resilience) -> None:
    feature = resilience.feature("a", fallback=[])
    with pytest.raises(error, match=message):
        feature.set_level(**{"level": "off", **order})
    assert feature.orders == ()


def test_what_must_hard_fail_never_degrades(resilience: Resilience) -> None:
    feature = resilience.feature("payment", required=True)
    for level in ("reduced", "static"):
        with pytest.raises(ValueError, match="level, required"):
            feature.set_level(level)
    with pytest.raises(ValueError, match="share, required"):
        feature.set_level("off", share=0.3)
    assert not feature.optional
    use = Uses("sync", feature, CircuitOpen("x"))
    with pytest.raises(CircuitOpen):
        use()
    feature.set_level("off")
    with pytest.raises(Rejected):
        use()
    with pytest.raises(ValueError, match="no fallback"):
        resilience.feature("search").set_level("static")
