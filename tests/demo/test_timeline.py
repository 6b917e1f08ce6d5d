from __future__ import annotations

import math

import pytest

from resilient.demo.timeline import SECONDS, timeline
from resilient.demo.upstreams import CONTENTS, Fault


def test_the_default_timeline_takes_its_time() -> None:
    assert sum(phase.seconds for phase in timeline()) == pytest.approx(SECONDS)


def test_phases_keep_their_shares_at_any_length() -> None:
    half = timeline(SECONDS / 2)
    assert [phase.seconds * 2 for phase in half] == pytest.approx([phase.seconds for phase in timeline()])


def test_faults_are_what_the_upstreams_understand() -> None:
    phases = timeline()
    assert {name for phase in phases for name in phase.faults} == set(CONTENTS)
    assert {mode for phase in phases for mode in phase.faults.values()} <= {fault.value for fault in Fault}


def test_it_begins_and_ends_healthy_and_names_are_unique() -> None:
    phases = timeline()
    assert not phases[0].faults
    assert not phases[-1].faults
    assert len({phase.name for phase in phases}) == len(phases)


@pytest.mark.parametrize("seconds", [4.9, 0, -1, math.nan])
def test_a_timeline_too_short_names_the_parameter(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be at least 5"):
        timeline(seconds)
