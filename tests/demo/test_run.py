"""The run over origins that are only told what to answer: no processes, no sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from resilient.demo.client import Answer, BrokenError, Origin
from resilient.demo.processes import Stage, StartError
from resilient.demo.recording import Recording, Sighting
from resilient.demo.run import Run
from resilient.demo.timeline import Phase

METRICS = """\
# HELP resilient_breaker_state Which state the breaker is in.
# TYPE resilient_breaker_state gauge
resilient_breaker_state{dependency="catalog",state="closed"} 1.0
resilient_breaker_state{dependency="catalog",state="open"} 0.0
resilient_breaker_state{dependency="recommendations",state="closed"} 0.0
resilient_breaker_state{dependency="recommendations",state="open"} 1.0
# TYPE resilient_feature_level gauge
resilient_feature_level{feature="recommendations",level="full"} 0.0
resilient_feature_level{feature="recommendations",level="static"} 1.0
"""
PAGE = json.dumps({"recommendations": ["a"], "reviews": ["b"]})


class FakeOrigin:
    """Answers as it is told: path -> (status, body) or an error."""

    url = "http://fake"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def request(self, target: str, *, method: str = "GET") -> Answer:
        self.asked.append(target)
        told = self.answers.get(target.strip("/").split("/")[0].split("?")[0], (404, ""))
        if isinstance(told, Exception):
            raise told
        return Answer(told[0], {}, told[1].encode())


def origins(**fakes: FakeOrigin) -> dict[str, Origin]:
    return cast("dict[str, Origin]", fakes)


def shop(**changes: Any) -> FakeOrigin:
    return FakeOrigin(**{"ping": (200, "{}"), "product": (200, PAGE), "metrics": (200, METRICS), **changes})


def upstream(**changes: Any) -> FakeOrigin:
    return FakeOrigin(**{"fault": (200, "{}"), "calls": (200, '{"bare": 3}'), **changes})


PHASES = (Phase("healthy", "all healthy", 0.3), Phase("hang", "it hangs", 0.3, {"catalog": "hang"}), Phase("over", "over", 0.2))


def play(stage: Stage) -> tuple[Recording, list[str]]:
    recording = Recording(200, 0.8, 1)
    shown: list[str] = []

    async def main() -> None:
        run = Run(stage, recording)
        await run.play(PHASES, show=lambda run: shown.append(run.phase.name if run.phase else ""), gap=0.05)

    asyncio.run(main())
    return recording, shown


def test_a_run_plays_its_phases_and_writes_down_what_it_sees() -> None:
    catalog = upstream()
    stage = Stage(origins(catalog=catalog), origins(bare=shop(), protected=shop()), {"catalog": 7})
    recording, shown = play(stage)
    assert [target for target in catalog.asked if "fault" in target] == ["/fault?mode=none", "/fault?mode=hang", "/fault?mode=none"]
    assert [(span.name, span.failing) for span in recording.spans] == [("healthy", ()), ("hang", ("catalog",)), ("over", ())]
    assert [span.end for span in recording.spans] == pytest.approx([0.3, 0.6, 0.8], abs=0.25)
    assert list(dict.fromkeys(name for name in shown if name)) == ["healthy", "hang", "over"]
    assert {(sample.app, sample.path, sample.status) for sample in recording.samples} == {
        (app, path, 200) for app in ("bare", "protected") for path in ("/product", "/ping")
    }
    assert recording.processes == {"catalog": 7}


def test_it_reads_the_breakers_and_features_that_are_on() -> None:
    recording, _ = play(Stage(origins(catalog=upstream()), origins(bare=shop(), protected=shop()), {}))
    [seen] = {json.dumps([dict(seen.breakers), dict(seen.features)]) for seen in recording.sightings}
    assert json.loads(seen) == [{"catalog": "closed", "recommendations": "open"}, {"recommendations": "static"}]
    assert all(tally.calls["catalog"] == {"bare": 3} for tally in recording.tallies)


@pytest.mark.parametrize("failure", [(500, "x"), ConnectionRefusedError(), BrokenError()])
def test_what_can_not_be_observed_leaves_a_hole_and_the_run_goes_on(failure: Any) -> None:
    stage = Stage(origins(catalog=upstream(), reviews=upstream(calls=failure)), origins(bare=shop(), protected=shop(metrics=failure)), {})
    recording, _ = play(stage)
    assert recording.sightings
    assert all(seen == Sighting(seen.at, {}, {}) for seen in recording.sightings)
    assert all(set(tally.calls) == {"catalog"} for tally in recording.tallies)
    assert len(recording.spans) == len(PHASES)


def test_a_shop_that_fails_while_all_is_healthy_is_told_before_the_run() -> None:
    with pytest.raises(StartError, match="answered 500 while all was healthy"):
        play(Stage(origins(catalog=upstream()), origins(bare=shop(), protected=shop(product=(500, "x"))), {}))


def test_an_upstream_that_does_not_take_its_fault_ends_the_run() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        play(Stage(origins(catalog=upstream(fault=(500, "x"))), origins(bare=shop(), protected=shop()), {}))
    assert caught.group_contains(RuntimeError, match="did not take fault 'none'")
