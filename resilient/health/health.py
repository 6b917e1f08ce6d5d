"""The health of one service: asks its checks in the background, and knows from them what probes want to hear."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import anyio

from ..core.bounds import flag, one_of, positive
from ..core.check import ILL, pause
from ..core.startup import Startup
from ..events import CheckChanged, StartupChanged
from ..runtime import AsyncRuntime
from ..threads import Threads
from .asking import CLOSED, ask, credit, invoke
from .check import Check, Question, name_of, question
from .run import Run
from .service import Service, Settings

__all__ = ["Health"]

logger = logging.getLogger("resilient")

MOST = 50  # checks, and start-up tasks: each is a task, or a thread, and a label value
LONGEST_PAUSE = 10.0  # seconds between two tries of a start-up task


class Health:
    """The checks and the start-up of a service.

    Args:
        service: whose health it is.
        settings: what is said elsewhere, over what follows and over what checks are declared with.
        readiness: "local": no dependency takes the service out; "required": one that is required and ill does.
        startup_timeout: seconds for the start-up, from when checks begin.
        start_anyway: whether the service has started then, though something is not done.
        random: numbers from 0 to 1, for the jitter.

    Attributes:
        checks: all of them by name, as they are now and will stay: a new one makes a new mapping.
        pending: whether there is something to do in the background that nobody does.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        readiness: str,
        startup_timeout: float,
        start_anyway: bool,
        random: Callable[[], float] = random.random,
    ) -> None:
        readiness = settings.value("readiness", readiness)
        startup_timeout = settings.value("startup_timeout", startup_timeout)
        start_anyway = settings.value("start_anyway", start_anyway)
        one_of("readiness", readiness, ("local", "required"))
        positive("startup_timeout", startup_timeout)
        flag("start_anyway", start_anyway)
        self.readiness = readiness
        self.startup = Startup(startup_timeout, anyway=start_anyway)
        self.by_hand: bool | None = None
        self.checks: Mapping[str, Check] = MappingProxyType({})
        self.pending = False
        self._service = service
        self._settings = settings
        self._random = random
        self._runtime = AsyncRuntime(service.clock)
        # Of its own: a check that hangs must find no other work behind it. None lives where no thread can live by the clock.
        self._threads = None if getattr(service.clock, "threads", False) is None else Threads(limit=2 * MOST, idle=0.1)
        self._tasks: dict[str, Question] = {}
        self._lock = threading.RLock()  # the collector may end a run in the middle of anything
        self._run: Run | None = None

    # -- declaring ------------------------------------------------------------------------------------------------

    def declare(self, name: str, fn: Question, **settings: Any) -> Check:
        """Ask `fn` from now on, or from when the service starts. Settings as for `Check`.

        Raises:
            TypeError, ValueError: a setting is wrong; there is one of that name; or there are 50 already.
        """
        made = Check(name_of(name), fn, self._service.clock, strict=self.readiness == "required", **self._settings.check(name, settings))
        with self._lock:
            if name in self.checks:
                raise ValueError(f"name: there is a check {name!r} already")
            _bounded(self.checks, "checks")
            self.checks = MappingProxyType({**self.checks, name: made})
            if _awaited(made):
                self.startup.expect(_key(made))
            run = self._run
            self.pending = run is None
        if run is not None:
            run.news()
        return made

    def on_startup(self, fn: Question, name: str | None = None) -> None:
        """Call `fn` when the service starts, until it does not raise; before that it has not started.

        Raises:
            TypeError, ValueError: a parameter is wrong; there is one of that name; or there are 50 already.
        """
        question("fn", fn)
        given = name_of(name) if name is not None else getattr(fn, "__name__", type(fn).__name__)
        with self._lock:
            _bounded(self._tasks, "start-up tasks")
            key = f"task {given}"
            if name is not None and key in self._tasks:
                raise ValueError(f"name: there is a start-up task {name!r} already")
            number = 1
            while key in self._tasks:
                number += 1
                key = f"task {given} {number}"
            self._tasks[key] = fn
            self.startup.expect(key)
            run = self._run
            self.pending = run is None
        if run is not None:
            run.news()

    # -- in the background ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A life of the service: it starts anew, checks are asked meanwhile, and afterwards nothing is left of them."""
        run = self.begin(anew=True)
        try:
            yield
        finally:
            if run is not None:
                await run.end()

    def attend(self) -> None:
        """See that checks are asked: by whoever is at it, or else on the event loop that runs here."""
        run = self._run
        if self.pending or (run is not None and run.stuck):
            self.begin()

    def begin(self, *, anew: bool = False) -> Run | None:
        """Ask checks on the event loop that runs here. None if somebody does so already, or there is nothing to ask.

        Args:
            anew: whether the start-up begins again, where it was over.
        """
        with self._lock:
            if not (self.checks or self._tasks) or (self._run is not None and not self._run.stuck):
                return None
            if anew or self.startup.began == math.inf:
                keys = [*(_key(check) for check in self.checks.values() if _awaited(check)), *self._tasks]
                self.startup.begin(keys, self._service.clock.now())
                unchecked = self.unchecked
            else:
                unchecked = []
            stuck, self._run = self._run, Run(self._runtime, self._take, self._left)
            run = self._run
            self.pending = False
        if stuck is not None:
            stuck.cancel()  # its event loop may go on one day
        run.start()
        for name in unchecked:
            logger.warning('readiness="required", and dependency %s is required, but has no check: it has no part in readiness', name)
        return run

    @property
    def unchecked(self) -> list[str]:
        """Dependencies that readiness is said to require, and that nobody checks: they have no part in it."""
        if self.readiness == "local":
            return []
        checked = {check.dependency.name for check in self.checks.values() if check.dependency is not None}
        known = self._service.dependencies.values()
        return [one.name for one in known if getattr(one, "required", False) and one.variant_of is None and one.name not in checked]

    def _take(self, run: Run) -> None:
        with self._lock:
            unfinished = set(self.startup.waiting)
            checks, tasks = self.checks.values(), dict(self._tasks)
        for check in checks:
            run.take(_key(check), self._repeat, check)
        for key, fn in tasks.items():
            if key in unfinished:
                run.take(key, self._warm, key, fn)
        if not self.startup.over:
            run.take("bound", self._bound)

    def _left(self, run: Run) -> None:
        with self._lock:
            if self._run is run:
                self._run = None
                self.pending = bool(self.checks) or not self.startup.over

    async def _repeat(self, check: Check) -> None:
        while True:
            await self._ask(check)
            await anyio.sleep(pause(check.interval, self._random(), hurried=self._hurries(check)))

    def _hurries(self, check: Check) -> bool:
        """Whether somebody waits: the start-up, or a circuit that gets its trials from nobody else."""
        if not self.startup.over and _key(check) in self.startup.waiting:
            return True
        return check.dependency is not None and check.dependency.state != CLOSED

    async def _ask(self, check: Check) -> None:
        answer = await ask(check, self._runtime, self._threads)
        well = answer.result == "well"
        if well and check.dependency is not None:
            credit(check.dependency)
        with self._lock:
            first_bad = not (well or check.reason)
            check.standing.record(well, answer.reason, self._service.clock.now())
        self._service.metrics.count_check(check.name, answer.result)
        if first_bad:
            # The text of an error is told here alone: it may hold anything.
            logger.info("check %s: %s", check.name, answer.reason, exc_info=answer.error)
        self._look(check)
        if well or not check.startup:
            self._done(_key(check))

    async def _warm(self, key: str, fn: Question) -> None:
        seconds = 1.0
        while True:
            try:
                await invoke(fn, self._runtime, self._threads)
            except Exception:
                logger.warning("start-up: %s failed, and is tried again in %g s", key, seconds, exc_info=True)
            else:
                self._done(key)
                return
            await anyio.sleep(seconds)
            seconds = min(2 * seconds, LONGEST_PAUSE)

    async def _bound(self) -> None:
        await anyio.sleep(self.startup.left(self._service.clock.now()))
        with self._lock:
            late, waiting = self.startup.late(), self.startup.waiting
        if late:
            self._tell(waiting)

    def _done(self, key: str) -> None:
        with self._lock:
            ended = self.startup.done(key)
        if ended:
            self._tell(())

    def _tell(self, waiting: tuple[str, ...]) -> None:
        now = self._service.clock.now()
        took = now - self.startup.began
        self._service.outbox.emit(StartupChanged(at=now, complete=self.startup.over, waiting=waiting, seconds=took))

    # -- what probes want to hear ----------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the start-up is over, or was said to be."""
        return self.startup.over if self.by_hand is None else self.by_hand

    def look(self) -> bool:
        """Tell of what has changed by itself: answers that grew old.

        Returns:
            Whether no check that is required is known to be ill. What is not known is no reason to turn anybody away.
        """
        now, well = self._service.clock.now(), True
        for check in self.checks.values():
            standing = check.standing
            state = standing.state(now)
            if state != standing.told:
                self._look(check)
            if state == ILL and check.required:
                well = False
        return well

    def _look(self, check: Check) -> None:
        now = self._service.clock.now()
        with self._lock:
            change = check.standing.look(now)
        if change is not None:
            named = "" if check.dependency is None else check.dependency.name
            old, new, reason = change
            self._service.outbox.emit(CheckChanged(at=now, dependency=named, check=check.name, old=old, new=new, reason=reason))

    def reset(self) -> None:
        """Forget all answers. What is asked in the background goes on."""
        with self._lock:
            for check in self.checks.values():
                check.standing.forget()
                check.standing.look(self._service.clock.now())


def _key(check: Check) -> str:
    return f"check {check.name}"


def _awaited(check: Check) -> bool:
    """Whether the service starts with its first answer, or its first good one."""
    return check.startup or check.required


def _bounded(known: Mapping[str, object], what: str) -> None:
    if len(known) >= MOST:
        raise ValueError(f"name: there are {MOST} {what} already, and that is the limit")
