"""One run of the demo: play the timeline under load and write down what is seen."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from .client import BrokenError
from .load import Load, arrivals
from .processes import StartError
from .recording import PING, PRODUCT, Sighting, Span, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .client import Answer, Origin
    from .processes import Stage
    from .recording import Recording
    from .timeline import Phase

SIGHTING_GAP = 0.2  # seconds between two looks at /metrics, which is how exactly a breaker's closing is known
TALLY_GAP = 0.5
WARM_UP = 40  # requests to each page before the clock starts: the first ones pay for imports and connections
_OBSERVED = ("resilient_breaker_state{", "resilient_feature_level{")


class Run:
    """Plays phases on a stage.

    Args:
        stage: the processes.
        recording: where samples and observations go.

    Attributes:
        phase: the phase that is being played, None before the first.
        loads: the load on each app.
    """

    def __init__(self, stage: Stage, recording: Recording) -> None:
        self.stage = stage
        self.recording = recording
        recording.processes = dict(stage.pids)
        self.phase: Phase | None = None
        self._zero = time.monotonic()
        self.loads = {
            app: Load(app, origin, timeout=recording.client_timeout, clock=self.clock, book=recording.samples.append)
            for app, origin in stage.shops.items()
        }

    def clock(self) -> float:
        """Seconds since the first phase began."""
        return time.monotonic() - self._zero

    async def play(self, phases: Sequence[Phase], *, show: Callable[[Run], None], gap: float) -> None:
        """Plays all phases; `show` is called with this run every `gap` seconds and once at the end.

        Raises:
            StartError: a shop does not even answer while all is healthy.
        """
        await asyncio.gather(*(_warm_up(origin) for origin in self.stage.shops.values()))
        self._zero = time.monotonic()
        rate, seconds = self.recording.rate, sum(phase.seconds for phase in phases)
        async with asyncio.TaskGroup() as observers:
            observing = [
                observers.create_task(_every(SIGHTING_GAP, self._sight)),
                observers.create_task(_every(TALLY_GAP, self._tally)),
                observers.create_task(_every(gap, functools.partial(_shown, show, self))),
            ]
            async with asyncio.TaskGroup() as acts:
                acts.create_task(self._phases(phases))
                for app, load in self.loads.items():
                    acts.create_task(load.run(arrivals(rate, f"{app} {self.recording.seed}"), seconds))
            for task in observing:
                task.cancel()
        show(self)

    async def _phases(self, phases: Sequence[Phase]) -> None:
        end = start = 0.0
        for phase in phases:
            await self._switch(phase)
            self.phase, start = phase, self.clock()
            end += phase.seconds
            await asyncio.sleep(end - self.clock())
            self.recording.spans.append(Span(phase.name, phase.title, start, self.clock(), tuple(phase.faults)))

    async def _switch(self, phase: Phase) -> None:
        for name, origin in self.stage.upstreams.items():
            mode = phase.faults.get(name, "none")
            answer = await origin.request(f"/fault?mode={mode}", method="POST")
            if answer.status != 200:
                raise RuntimeError(f"{name} did not take fault {mode!r}: {answer.body!r}")

    async def _sight(self) -> None:
        breakers: dict[str, str] = {}
        features: dict[str, str] = {}
        page = await _observed(self.stage.shops["protected"], "/metrics")
        lines = [line for line in page.body.decode().splitlines() if line.startswith(_OBSERVED)] if page else []
        for family in text_string_to_metric_families("\n".join(lines)):
            for sample in family.samples:
                if sample.value == 1 and "state" in sample.labels:
                    breakers[sample.labels["dependency"]] = sample.labels["state"]
                elif sample.value == 1:
                    features[sample.labels["feature"]] = sample.labels["level"]
        self.recording.sightings.append(Sighting(self.clock(), breakers, features))

    async def _tally(self) -> None:
        at = self.clock()
        pages = {name: await _observed(origin, "/calls") for name, origin in self.stage.upstreams.items()}
        self.recording.tallies.append(Tally(at, {name: page.json() for name, page in pages.items() if page}))


async def _warm_up(origin: Origin) -> None:
    for number in range(WARM_UP):
        for target in (f"{PRODUCT}/{number}", PING):
            answer = await origin.request(target)
            if answer.status != 200:
                raise StartError(f"{origin.url}{target} answered {answer.status} while all was healthy: {answer.body!r}")


async def _observed(origin: Origin, target: str) -> Answer | None:
    """The page, or None where there is no usable answer: an observer must not end the show, a hole in the record tells."""
    try:
        async with asyncio.timeout(2.0):
            answer = await origin.request(target)
    except (OSError, BrokenError):
        return None
    return answer if answer.status == 200 else None


async def _shown(show: Callable[[Run], None], run: Run) -> None:
    show(run)


async def _every(gap: float, observe: Callable[[], Awaitable[None]]) -> None:
    while True:
        await observe()
        await asyncio.sleep(gap)
