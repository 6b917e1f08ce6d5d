from __future__ import annotations

import json
from collections.abc import Callable

from resilient.demo.recording import PING, PRODUCT, Recording, Sample, Sighting, full_share, good_share, honest_share, percentile
from resilient.demo.series import by_second, call_rates, stretches


def samples(*latencies: float) -> list[Sample]:
    return [Sample("bare", PRODUCT, 0, latency, 200) for latency in latencies]


def test_a_percentile_is_a_latency_that_occurred() -> None:
    hundred = samples(*(number / 1000 for number in range(1, 101)))
    assert percentile(hundred, 0.5) == 0.050
    assert percentile(hundred, 0.99) == 0.099
    assert percentile(hundred, 1.0) == 0.100
    assert percentile(samples(3, 1, 2), 0.99) == 3
    assert percentile(samples(4), 0.01) == 4
    assert percentile([], 0.5) is None


def test_shares_count_what_they_say() -> None:
    page = ("protected", PRODUCT, 0.0, 0.01)
    seen = [
        Sample(*page, 200),
        Sample(*page, 200, "", ("reviews",), ("reviews",)),
        Sample(*page, 200, "", (), ("reviews",)),
        Sample(*page, 0, "timeout"),
    ]
    assert good_share(seen) == 0.75
    assert full_share(seen) == 0.25
    assert honest_share(seen) == 2 / 3
    assert good_share([]) is full_share([]) is honest_share(seen[3:]) is None


def test_select_takes_one_app_and_path_in_a_half_open_stretch() -> None:
    recording = Recording(1, 10, 1)
    recording.samples += [
        Sample(app, path, at, 0, 200) for app in ("bare", "protected") for path in (PRODUCT, PING) for at in (1.0, 2.0, 3.0)
    ]
    assert [(sample.path, sample.at) for sample in recording.select("bare", PING, 1.0, 3.0)] == [(PING, 1.0), (PING, 2.0)]


def test_the_record_survives_json(record: Callable[[float], Recording]) -> None:
    recording = record(10)
    told = json.loads(json.dumps(recording.as_dict(), allow_nan=False))
    assert len(told["samples"]["rows"]) == len(recording.samples)
    assert told["samples"]["columns"][:3] == ["app", "path", "at"]
    assert [phase["name"] for phase in told["phases"]] == [span.name for span in recording.spans]
    assert told["phases"][1]["failing"] == ["recommendations"]
    assert told["tallies"][2]["calls"]["catalog"].keys() == {"bare", "protected"}
    assert told["sightings"][0]["breakers"] == {"recommendations": "closed"}


def test_seconds_hold_each_sample_once(record: Callable[[float], Recording]) -> None:
    recording = record(45)
    seconds = by_second(recording, "bare", PRODUCT)
    assert len(seconds) == 45
    assert sum(second.full + second.degraded + second.failed for second in seconds) == len(recording.select("bare", PRODUCT))
    assert [second.failed == len(second.samples) for second in (seconds[3], seconds[10])] == [False, True]
    assert (seconds[10].median, seconds[10].slowest) == (5.0, 5.0)


def test_call_rates_are_per_second(record: Callable[[float], Recording]) -> None:
    [(name, line)] = call_rates(record(45), "protected").items()
    assert name == "catalog"
    mean = sum(rate for _, rate in line) / len(line)
    assert 0.8 * 30 * 1.15 * 0.9 < mean < 0.8 * 30 * 1.15 * 1.1


def test_stretches_join_what_did_not_change() -> None:
    seen = [Sighting(at, {"catalog": state}, {}) for at, state in enumerate(["closed", "closed", "open", "open", "closed"])]
    found = stretches([(sighting.at, sighting.breakers) for sighting in seen], 6)
    assert found == {"catalog": [(0, 2, "closed"), (2, 4, "open"), (4, 6, "closed")]}


def test_stretches_leave_a_hole_where_nothing_was_seen() -> None:
    found = stretches([(0, {"catalog": "open"}), (1, {}), (2, {"catalog": "open"})], 3)
    assert found == {"catalog": [(0, 1, "open"), (2, 3, "open")]}
