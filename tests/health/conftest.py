"""A service in virtual time, and checks that do what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient import Resilience
from resilient.testing import FakeClock, RecordingListener


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    return Resilience(clock=clock, listeners=[listener])


class Script:
    """A check that answers by a script: a value, an error to raise, or seconds to take (a float). The last one lasts."""

    def __init__(self, now: Callable[[], float], *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        self.inside = self.most = 0
        self._now = now

    async def __call__(self) -> Any:
        self.asked.append(self._now())
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, float):
                await anyio.sleep(answer)
                return None
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            self.inside -= 1


@pytest.fixture
def script(clock: FakeClock) -> Callable[..., Script]:
    return lambda *answers: Script(clock.now, *answers)
