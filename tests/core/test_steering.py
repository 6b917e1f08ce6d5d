"""What SteadyGradient adds to the published law: starts, outages, mixtures, and latencies that changed for good."""

from __future__ import annotations

import math
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.limiter import DROPPED, Seen, seen
from resilient.core.steering import SteadyGradient

from ..thorough import often


def settled(rtt: float = 0.1, limit: int = 100, most: int = 100) -> SteadyGradient:
    """A law that has known a dependency for a while."""
    law = SteadyGradient(initial=limit, least=4, most=most)
    for _ in range(200):
        law.decide(Seen(rtt, 1))
    assert law.limit == limit
    return law


def busy(law: SteadyGradient, rtt: float | None, dropped: float = 0.0) -> int:
    """A window in which all of the limit was used."""
    return law.decide(Seen(rtt, law.limit, dropped))


windows = st.lists(
    st.builds(Seen, st.none() | st.floats(1e-5, 100.0), st.integers(0, 1200), st.floats(0, 1)),
    max_size=80,
)


@pytest.mark.slow
@given(windows)
def test_it_never_leaves_its_limits(fed: list[Seen]) -> None:
    law = SteadyGradient(initial=20, least=4, most=500)
    for window in fed:
        assert 4 <= law.decide(window) <= 500
        assert math.isfinite(law.estimate)


@pytest.mark.slow
@given(windows)
def test_what_is_not_limited_concludes_nothing(fed: list[Seen]) -> None:
    law = SteadyGradient(initial=100, least=4, most=500)
    for window in fed:
        assert law.decide(Seen(window.rtt, window.peak % 50, window.dropped)) == 100


def test_a_cold_start_doubles() -> None:
    law = SteadyGradient(initial=20, most=1000)
    assert [busy(law, 0.1) for _ in range(7)] == [20, 40, 80, 160, 320, 640, 1000]


def test_until_latency_says_no() -> None:
    """Then the law itself goes on, from what Little's law says is needed."""
    law = settled(limit=80, most=1000)
    for _ in range(30):
        busy(law, 0.1 * law.limit / 40)  # a queue behind 40 servers: 60 are 1.5 times as long as usual
    assert 55 <= law.limit <= 75


def test_load_brings_it_down_to_what_is_needed() -> None:
    law = settled()
    limits = [busy(law, 0.1 * max(1.0, law.limit / 20)) for _ in range(60)]
    assert 25 <= limits[-1] <= 50
    assert limits.index(next(limit for limit in limits if limit <= 60)) <= 10
    assert max(limits) <= 100


def test_an_hour_of_load_is_not_taken_for_what_is_usual() -> None:
    law = settled()
    for _ in range(15_000):
        busy(law, 0.1 * max(1.0, law.limit / 20))
    assert law.limit <= 50
    assert law.usual.value <= 0.1 * 1.26


def test_calls_without_an_answer_halve_it_and_it_comes_back_at_once() -> None:
    law = settled()
    assert [busy(law, None, dropped=1.0) for _ in range(5)] == [50, 25, 12, 6, 4]
    assert [busy(law, 0.1) for _ in range(5)] == [8, 16, 32, 64, 100]


def test_a_page_that_always_fails_costs_next_to_nothing() -> None:
    law = settled()
    for _ in range(200):
        busy(law, 0.1, dropped=0.05)
    assert law.limit >= 98
    for _ in range(200):
        busy(law, 0.1, dropped=0.5)
    assert law.limit <= 8


def test_a_limit_that_was_halved_in_vain_is_given_back() -> None:
    """All calls take a hundred times as long from now on, however few there are."""
    law = settled(rtt=0.01)
    limits = [busy(law, 1.0) for _ in range(30)]
    assert min(limits) >= 20
    assert limits[-1] == 100
    assert limits.index(min(limits)) <= 12


def test_a_limit_that_helps_is_kept() -> None:
    law = settled(rtt=0.1)
    for _ in range(200):
        assert busy(law, 0.1 * law.limit / 10) <= 100
    assert law.limit <= 45


def test_who_drowns_is_not_given_more_for_being_no_quicker() -> None:
    law = settled()
    for _ in range(50):
        busy(law, 1.0, dropped=0.6)
    assert law.limit <= 8


def mixture(rng: random.Random, count: int, slow_share: float, slow: float, spread: float = 0.0) -> deque[float]:
    return deque((slow if rng.random() < slow_share else 0.01) * rng.lognormvariate(0, spread) for _ in range(count))


@pytest.mark.slow
@pytest.mark.parametrize("slow_share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_one_slow_endpoint_among_fast_ones_is_no_load(slow_share: float, spread: float) -> None:
    rng = random.Random(20)
    law = SteadyGradient(initial=100, least=4, most=100)
    lowest = 100
    for _ in range(often(2000)):
        lowest = min(lowest, busy(law, seen(mixture(rng, 200, slow_share, 2.0, spread), 1).rtt))
    assert lowest >= 85


def test_and_load_on_both_is_seen_all_the_same() -> None:
    rng = random.Random(20)
    law = SteadyGradient(initial=100, least=4, most=100)
    for window in range(300):
        delay = 0.0 if window < 200 else 0.1 * max(0.0, law.limit / 20 - 1)
        durations = deque(duration + delay for duration in mixture(rng, 200, 0.1, 2.0))
        busy(law, seen(durations, 1).rtt)
    assert law.limit <= 60


def test_noise_with_few_calls_is_no_load() -> None:
    """Ten samples a window, spread over two orders of magnitude, and all of a small limit in use."""
    rng = random.Random(20)
    law = SteadyGradient(initial=20, least=4, most=100)
    lowest = 100
    for _ in range(1000):
        durations = deque(0.05 * rng.lognormvariate(0, 1.0) for _ in range(10))
        lowest = min(lowest, law.decide(seen(durations, law.limit)))
    assert lowest >= 20


def test_the_first_to_come_back_say_nothing_of_the_others() -> None:
    law = SteadyGradient(initial=20)
    busy(law, 0.001)
    assert law.usual.value == 0.0
    busy(law, 0.1)
    assert law.usual.value == 0.1


def test_clear_forgets_everything() -> None:
    law = settled()
    busy(law, 5.0)
    busy(law, None, dropped=1.0)
    law.clear()
    fresh = SteadyGradient(initial=100, least=4, most=100)
    assert [busy(law, 0.2) for _ in range(5)] == [busy(fresh, 0.2) for _ in range(5)]


def test_dropped_calls_are_a_share_of_what_was_measured() -> None:
    assert seen(deque([DROPPED] * 3 + [0.1] * 9), 5).dropped == 0.25


# -- by the number -----------------------------------------------------------------------------------------------


def test_a_half_of_the_limit_in_flight_is_enough_to_learn_from() -> None:
    law = SteadyGradient(initial=20, least=4, most=100)
    assert law.decide(Seen(None, 9, 1.0)) == 20
    assert law.decide(Seen(None, 10, 1.0)) == 10
    law.decide(Seen(None, 10, 0.5))
    assert law.estimate == 8.75


def test_what_is_usual_is_the_plain_mean_of_a_hundred_windows() -> None:
    law = SteadyGradient(initial=20, least=4, most=100)
    for rtt in [9.0] + [0.1] * 50 + [0.15] * 50:
        law.decide(Seen(rtt, 1))
    assert law.usual.value == pytest.approx(0.125)
    law.decide(Seen(0.2, 1))
    assert law.usual.value == pytest.approx(0.125 + 0.075 * 2 / 601)


def test_the_latest_window_weighs_a_half() -> None:
    law = SteadyGradient(initial=20, least=4, most=100)
    law.decide(Seen(9.0, 1))
    law.decide(Seen(0.1, 1))
    assert (law._recent, law._calm) == (0.1, 0.1)
    law.decide(Seen(0.2, 1))
    assert (law._recent, law._calm) == pytest.approx((0.15, 0.15))
    busy(law, 0.3)  # under load, what is calm is not known
    assert (law._recent, law._calm) == pytest.approx((0.225, 0.15))


def test_what_is_usual_stays_under_load_once_it_has_risen_by_a_quarter() -> None:
    law = settled(rtt=0.5)
    law.usual.value = 0.62
    busy(law, 0.7)
    assert law.usual.value == pytest.approx(0.62 + 0.08 * 2 / 601)
    law.usual.value = 0.625
    busy(law, 0.7)
    assert law.usual.value == 0.625


def test_load_proves_what_is_needed() -> None:
    """By Little's law, and never less than what the law comes to rest at."""
    law = settled(limit=80, most=1000)
    busy(law, 1.0)
    assert law._proven == pytest.approx(1.5 * 80 * 0.1 / 1.0)
    assert law.estimate == pytest.approx(80 * 0.8 + 0.2 * (80 * 0.5 + 4))
    busy(law, 100.0)
    assert law._proven == 8


def test_up_to_the_tolerance_nothing_is_load() -> None:
    law = settled(rtt=0.5, limit=50, most=400)
    law.usual.value = 0.5
    assert busy(law, 0.75) == 100


def test_what_load_has_proven_ends_the_doubling() -> None:
    law = settled(limit=80, most=1000)
    busy(law, 0.3)
    assert law._proven == pytest.approx(40)
    busy(law, None, dropped=1.0)
    law.decide(Seen(None, 80, 1.0))
    estimates = []
    for _ in range(3):
        busy(law, 0.1)
        estimates.append(law.estimate)
    assert estimates == pytest.approx([36.4, 40.0, 40.8], rel=1e-3)
    assert law._proven == law.estimate


def test_a_window_with_drops_doubles_nothing() -> None:
    law = settled(limit=50, most=400)
    busy(law, 0.1, dropped=0.05)
    assert law.estimate == pytest.approx(50.8 * (1 - 0.05**2 / 2))


def test_a_lower_limit_has_to_better_the_latency_by_a_fifth() -> None:
    law = settled(limit=80, most=1000)
    busy(law, 1.0)
    assert law._mark == pytest.approx((80, 0.55)) and law._start == 80
    busy(law, 0.5)  # 0.525: as before
    assert law._mark == pytest.approx((80, 0.55)) and law._start == 80
    before = law.estimate
    busy(law, 1.0)  # 0.7625: worse, and the limit that is given back stays
    assert law._mark == pytest.approx((before, 0.7625)) and law._start == 80
    before = law.estimate
    busy(law, 0.2)  # 0.48125: better
    assert law._mark == pytest.approx((before, 0.48125)) and law._start == before
    law.decide(Seen(0.2, 1))
    assert law._mark is None


def test_many_calls_without_an_answer_are_no_evidence() -> None:
    law = settled(limit=80, most=1000)
    busy(law, 1.0, dropped=0.1)
    assert law._mark is not None
    busy(law, 1.0, dropped=0.11)
    assert law._mark is None


def test_what_was_in_vain_is_what_is_usual_now() -> None:
    law = settled(rtt=0.01)
    for _ in range(30):
        if busy(law, 1.0) == 100 and law._mark is None:
            break
    assert law.estimate == law._proven == 100
    assert law.usual.value == law._calm == law._recent == pytest.approx(1.0, rel=0.01)
