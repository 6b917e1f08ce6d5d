"""Brownout: which features are dimmed, when, and who is told."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from resilient import Brownout, Level, Resilience
from resilient.events import BrownoutChanged, FeatureChanged, FeatureDegraded
from resilient.testing import FakeClock, RecordingListener

from .feature_worlds import Uses, in_each_world

FULL, REDUCED, STATIC, OFF = Level


def service(clock: FakeClock, listener: RecordingListener, **settings: Any) -> tuple[Resilience, Brownout]:
    brownout = Brownout(target=0.1, **settings)
    return Resilience(clock=clock, listeners=[listener], brownout=brownout), brownout


def requests(brownout: Brownout, clock: FakeClock, took: float, seconds: float, rate: int = 100) -> None:
    for _ in range(int(seconds * rate)):
        clock.advance(1 / rate)
        brownout.observe(took)


@in_each_world
def test_a_slow_service_gives_up_what_is_optional(world: str, clock: FakeClock, listener: RecordingListener) -> None:
    resilience, brownout = service(clock, listener)
    feature = resilience.feature("recommendations", fallback=[])
    use = Uses(world, feature)
    assert use() == "own"
    requests(brownout, clock, 1.0, 20)
    assert brownout.share == 0
    assert use() == []
    assert use.calls == 1
    assert feature.level is STATIC
    assert [(event.level, event.cause) for event in listener.of(FeatureDegraded)] == [("static", "load")]
    assert [(event.new, event.cause) for event in listener.of(FeatureChanged)] == [("static", "load")]
    requests(brownout, clock, 0.01, 60)
    assert brownout.share == 1
    assert use() == "own"
    clock.advance(10)
    assert feature.level is FULL
    assert [event.share < 1 for event in listener.of(BrownoutChanged)] == [True, False]
    assert listener.of(BrownoutChanged)[0].measured == pytest.approx(10)


def test_in_between_chance_picks_the_uses_of_the_feature_whose_turn_it_is(clock: FakeClock, listener: RecordingListener) -> None:
    resilience, brownout = service(clock, listener)
    rng = random.Random(7)
    names = ["first", "second", "third"]
    uses = {name: Uses("sync", resilience.feature(name, fallback=None, chance=rng.random)) for name in names}
    last = Uses("sync", resilience.feature("last", fallback=None, dim=0.5, chance=rng.random))
    early = Uses("sync", resilience.feature("early", fallback=None, dim=2, chance=rng.random))
    brownout._dimmer.share = 0.5
    brownout.watch(resilience.features.values())
    for use in (*uses.values(), last, early):
        for _ in range(400):
            use()
    assert (early.calls, uses["first"].calls) == (0, 0)
    assert 150 < uses["second"].calls < 250
    assert uses["third"].calls == last.calls == 400


def test_what_matters_is_never_dimmed(clock: FakeClock, listener: RecordingListener) -> None:
    resilience, brownout = service(clock, listener)
    spared = [
        resilience.feature("page", critical=True, fallback="plain"),
        resilience.feature("payment", required=True),
        resilience.feature("search"),
        resilience.feature("pinned", dim=0, fallback=[]),
    ]
    optional = resilience.feature("extra", fallback=[])
    brownout.load(50.0)
    for _ in range(40):
        clock.advance(0.5)
        brownout.load(50.0)
    assert brownout.share == 0
    assert optional.level is STATIC
    for feature in spared:
        assert Uses("sync", feature)() == "own"
        assert feature.level is FULL


def test_a_load_that_somebody_else_measures(clock: FakeClock, listener: RecordingListener) -> None:
    _, brownout = service(clock, listener)
    for _ in range(10):
        clock.advance(0.5)
        brownout.load(0.8)
        brownout.load(0.3)
        assert brownout.measured in (0.0, 0.8, 0.3)
    assert brownout.share == 1
    for _ in range(4):
        clock.advance(0.5)
        brownout.load(1.5)
    assert brownout.share < 1
    requests(brownout, clock, 0.001, 0.4)
    dimmed = brownout.share
    clock.advance(0.2)
    brownout.load(1.2)
    assert brownout.share < dimmed, "the worse of the two counts"


def test_few_requests_say_nothing_and_a_long_silence_forgets(clock: FakeClock, listener: RecordingListener) -> None:
    resilience, brownout = service(clock, listener)
    feature = resilience.feature("extra", fallback=[])
    for _ in range(9):
        brownout.observe(5.0)
        clock.advance(1)
    assert brownout.share == 1
    requests(brownout, clock, 5.0, 5)
    assert brownout.share == 0
    clock.advance(11)
    brownout.observe(0.01)
    assert brownout.share == 1
    assert Uses("sync", feature)() == "own"


def test_shadow_mode_finds_out_and_dims_nothing(clock: FakeClock, listener: RecordingListener) -> None:
    resilience, brownout = service(clock, listener, enforce=False)
    feature = resilience.feature("extra", fallback=[])
    requests(brownout, clock, 1.0, 10)
    assert brownout.share == 0
    assert Uses("sync", feature)() == "own"
    assert [event.enforced for event in listener.of(BrownoutChanged)] == [False]


def test_a_reset_forgets(clock: FakeClock, listener: RecordingListener) -> None:
    resilience, brownout = service(clock, listener)
    feature = resilience.feature("extra", fallback=[])
    requests(brownout, clock, 1.0, 10)
    resilience.reset()
    assert (brownout.share, feature.level) == (1, FULL)
    assert Uses("sync", feature)() == "own"
    assert repr(brownout) == "<Brownout 100% of optional work>"


@pytest.mark.slow
def test_a_closed_loop_stays_near_its_target(clock: FakeClock, listener: RecordingListener) -> None:
    """Optional work takes four fifths of a request's time, and all of it would take five times the target."""
    resilience, brownout = service(clock, listener)
    rng = random.Random(3)
    use = Uses("sync", resilience.feature("extra", fallback=[], chance=rng.random))
    slow: list[bool] = []
    for number in range(6000):
        clock.advance(0.01)
        before = use.calls
        use()
        # The queue behind the optional work makes everybody's time, as far as it is done.
        took = 0.02 + 0.5 * brownout.share
        assert use.calls - before in (0, 1)
        brownout.observe(took)
        if number > 1500:
            slow.append(took > 0.105)
    assert sum(slow) / len(slow) < 0.05
    assert 0.1 < brownout.share < 0.25, "and no more is given up than needs be"


def test_threads(listener: RecordingListener) -> None:
    brownout = Brownout(target=0.1, period=0.001)
    resilience = Resilience(listeners=[listener], brownout=brownout)
    use = Uses("sync", resilience.feature("extra", fallback=[]))

    def work() -> None:
        for _ in range(300):
            brownout.observe(1.0)
            use()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 <= brownout.share < 1


def test_it_belongs_to_one_resilience() -> None:
    brownout = Brownout(target=1)
    brownout.observe(5.0)  # nobody's yet
    brownout.load(5.0)
    assert Resilience(brownout=brownout).brownout is brownout
    with pytest.raises(ValueError, match="brownout"):
        Resilience(brownout=brownout)
    with pytest.raises(TypeError, match="brownout"):
        Resilience(brownout=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"target": 0}, ValueError),
        ({"target": "1"}, TypeError),
        ({"percentile": 0}, ValueError),
        ({"period": 0}, ValueError),
        ({"min_samples": 0}, ValueError),
        ({"pole": 1}, ValueError),
        ({"pole": -0.1}, ValueError),
        ({"margin": 1}, ValueError),
        ({"dwell": -1}, ValueError),
        ({"enforce": None}, TypeError),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        Brownout(**{"target": 1, **settings})


def test_a_load_is_a_number() -> None:
    with pytest.raises(ValueError, match="load"):
        Brownout(target=1).load(-1)
