"""Where a feature stands: what its uses show, what it needs, what was ordered; and what that means for the next use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ..context import RECORD, current_partition
from ..core.degradation import Hysteresis, Level, LevelChange, worse
from ..core.orders import Order, Orders, Verdict, drawn, worst
from ..core.schedule import Schedule
from ..events import CallRejected, FeatureChanged, FeatureDegraded, FeatureOrdered
from ..protocols import Surroundings
from .chain import Chain
from .history import LONGEST_HISTORY, HistoryEntry, moment

__all__ = ["Circuit", "Standing"]


@runtime_checkable
class Circuit(Protocol):
    """What a feature sees of a dependency that it needs."""

    @property
    def name(self) -> str: ...
    @property
    def failing(self) -> bool: ...
    @property
    def refuses(self) -> bool: ...


class Standing:
    """The state of a feature, and its triggers.

    What was measured (its uses, circuits, load) goes through hysteresis: it falls at once, keeps a level for
    `dwell`, and rises after `recover_after` of health. What was ordered (an operator, a schedule, read-only mode), and
    what other features make of it, holds and ends at once. The most severe counts.
    """

    name: str
    required: bool
    _resilience: Surroundings
    _fallback: Chain | None
    _circuits: tuple[Circuit, ...]
    _features: tuple[Standing, ...]
    _schedule: Schedule | None
    _key: Callable[[], str | None] | None
    _tenant: Callable[[], str | None] | None
    _chance: Callable[[], float]
    _wall: Callable[[], float]

    def __init__(self, hysteresis: Hysteresis) -> None:
        self.errors: int = 0
        self._hysteresis = hysteresis
        self._orders = Orders()
        self._ordered: Verdict | None = None
        self._inherited: Verdict | None = None
        self._level = Level.FULL  # as told last
        self._share = 1.0  # of its uses, as the load allows
        self._history: deque[HistoryEntry] = deque(maxlen=LONGEST_HISTORY)
        self._lock = threading.Lock()
        # Both change without telling: a schedule with time, another feature with whose use it is.
        self._unsteady = self._schedule is not None or bool(self._features)
        self._watched = self._unsteady
        """Whether anything but its uses may have a say in the next one."""

    @property
    def level(self) -> Level:
        """The level that everybody has. A change that has become due is told to listeners when somebody looks."""
        if self._watched or not self._hysteresis.steady:
            self._look()
        return self._level

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The last 100 changes and orders, oldest first."""
        with self._lock:
            return tuple(self._history)

    @property
    def orders(self) -> tuple[Order, ...]:
        """What operators have said of it, and is in force."""
        with self._lock:
            return tuple(self._orders.all(self._resilience.clock.now()))

    def reset(self) -> None:
        """Full again, with nothing remembered, orders neither, and nobody told."""
        with self._lock:
            self._hysteresis.reset()
            self._orders = Orders()
            self._ordered = self._inherited = None
            self._level, self._share = Level.FULL, 1.0
            self._history.clear()
            self._watched = self._unsteady
            self.errors = 0

    # -- one use --------------------------------------------------------------------------------------------------

    def _count_error(self) -> None:
        with self._lock:
            self.errors += 1

    def _refusal(self, tenant: str | None = None, key: str | None = None, *, chance: bool = True) -> Verdict | None:
        """Why a use that begins now is not to be full, if it is not. Without `chance`, only what is certain."""
        now = self._resilience.clock.now()
        if self._unsteady or self._share < 1 or not self._hysteresis.steady or now >= self._orders.next_end:
            self._look()
        found: list[Verdict] = []
        if self._orders:
            tenant = self._whose() if tenant is None else tenant
            with self._lock:
                about = self._orders.about(tenant, now)
            found += [order.verdict for order in about if self._meets(order, key, tenant, chance) and self._enforces(order, now)]
        scheduled = self._scheduled()
        if scheduled is not None:
            found.append(scheduled)
        if self._fallback is not None:
            level = self._fallback.level
            found += [Verdict(level, f"dependency:{one.name}", dependency=one.name) for one in self._circuits if one.refuses]
            found += [Verdict(level, f"feature:{one.name}", ordered=True) for one in self._features if one._absent()]
            if self._share < 1 and (self._chance() if chance else 0.0) >= self._share:
                found.append(Verdict(level, "load"))
        return worst(found)

    def _absent(self) -> bool:
        """Whether a use that begins now would be given nothing, because somebody said so."""
        verdict = self._refusal(chance=False) if self._watched else None
        return verdict is not None and verdict.level is Level.OFF

    def _meets(self, order: Order, key: str | None, tenant: str | None, chance: bool) -> bool:
        """Whether an order for some of the uses is for this one."""
        if order.share == 1:
            return True
        key = key or self._asked(order.key or self._key) or tenant
        if key is None:
            return chance and self._chance() < order.share
        return drawn(self.name, key) < order.share

    def _enforces(self, order: Order, now: float) -> bool:
        if not order.enforce:
            event = CallRejected(at=now, policy="feature", reason=order.cause, enforced=False)
            self._resilience.outbox.emit(event)
        return order.enforce

    def _whose(self) -> str | None:
        """Whose use it is: as the program says, else the partition that is in force."""
        return self._asked(self._tenant or current_partition)

    def _asked(self, function: Callable[[], str | None] | None) -> str | None:
        """What the program's own function says; None where it fails, which is logged and counted."""
        said: list[str | None] = [None]
        if function is not None:
            self._resilience.outbox.guard(function, lambda: said.__setitem__(0, function()))
        return None if said[0] is None else str(said[0])

    def _tell(self, level: Level, verdict: Verdict) -> None:
        """One use was served at `level`."""
        record = RECORD.get()
        if record is not None:
            record.add(self.name, level, verdict.cause, dependency=verdict.dependency)
        now = self._resilience.clock.now()
        outbox = self._resilience.outbox
        with self._lock:
            outbox.post(FeatureDegraded(at=now, dependency=verdict.dependency, feature=self.name, level=level, cause=verdict.cause))
            if not verdict.ordered:
                self._settle(self._hysteresis.degraded(level, verdict.cause, now), now)
        if self._circuits and not self._watched:
            self._look()  # perhaps the circuit has just opened
        outbox.flush()

    # -- the level ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See what has become due, and what has become of what it needs."""
        now = self._resilience.clock.now()
        held, self._inherited = self._held(), self._theirs() if self._features else None
        with self._lock:
            for order in self._orders.expire(now):
                self._note("expired", order, now, by=order.by, why=order.why)
            changes = self._hysteresis.hold(held.level, held.cause, now) if held else self._hysteresis.hold(Level.FULL, "", now)
            self._settle(changes, now)
        if self._resilience.outbox.pending:
            self._resilience.outbox.flush()

    def _held(self) -> Verdict | None:
        """What lasts, and was not ordered."""
        if not (self._circuits or self._share < 1):
            return None
        found = [Verdict(self._least, f"dependency:{one.name}") for one in self._circuits if one.failing]
        if self._share == 0:
            found.append(Verdict(self._least, "load"))
        return worst(found)

    def _theirs(self) -> Verdict | None:
        """What the features that it needs make of it. They have hysteresis of their own: it follows at once, both ways."""
        levels = [(one.name, one.level) for one in self._features]
        return worst(
            [
                Verdict(self._least if level is Level.OFF else Level.REDUCED, f"feature:{name}", ordered=True)
                for name, level in levels
                if level is not Level.FULL
            ]
        )

    @property
    def _least(self) -> Level:
        """What is left of it where the function is of no use."""
        return Level.OFF if self._fallback is None else self._fallback.level

    def _scheduled(self) -> Verdict | None:
        if self._schedule is None:
            return None
        level = self._schedule.level(self._wall())
        return None if level is Level.FULL else Verdict(level, "schedule", ordered=True)

    def _settle(self, changes: list[LevelChange], now: float, lifted: Verdict | None = None) -> None:
        # Under the lock, so that listeners are told of changes in the order in which they happened.
        self._watched = self._unsteady or self._hysteresis.held or self._share < 1 or bool(self._orders)
        before = self._ordered
        for change in changes:
            self._move(change.new if before is None else worse(change.new, before.level), Verdict(change.new, change.cause), now)
        if self._watched or self._orders or before is not None:
            general = [order.verdict for order in self._orders.general(now) if order.enforce]
            self._ordered = worst(general + [one for one in (self._scheduled(), self._inherited) if one is not None])
        ordered, measured = self._ordered, self._hysteresis.level
        if ordered is not None and ordered.level.severity >= measured.severity:
            self._move(ordered.level, ordered if lifted is None or ordered.level.severity > self._level.severity else lifted, now)
        else:
            over = before and before._replace(why="its time is over" if before.cause in ("operator", "read_only") else before.why)
            self._move(measured, lifted or over or Verdict(measured, "recovered"), now)

    def _move(self, level: Level, verdict: Verdict, now: float) -> None:
        old = self._level
        if level is old:
            return
        self._level = level
        cause, by, why = verdict.cause, verdict.by, verdict.why
        self._resilience.outbox.post(FeatureChanged(at=now, feature=self.name, old=old, new=level, cause=cause, by=by, why=why))
        self._history.append(HistoryEntry(when=moment(self._wall()), what="changed", level=level, old=old, cause=cause, by=by, why=why))

    # -- what is ordered --------------------------------------------------------------------------------------------

    def _order(self, order: Order) -> None:
        now = self._resilience.clock.now()
        with self._lock:
            self._orders.put(order)
            self._note("ordered", order, now, by=order.by, why=order.why)
            self._settle(self._hysteresis.look(now), now)
        self._resilience.outbox.flush()

    def _lift(self, cause: str, tenant: str | None, *, everyone: bool, by: str, why: str) -> None:
        now = self._resilience.clock.now()
        with self._lock:
            lifted = self._orders.lift(cause, tenant, everyone=everyone)
            for order in lifted:
                self._note("lifted", order, now, by=by, why=why)
            if lifted:
                self._settle(self._hysteresis.look(now), now, Verdict(Level.FULL, cause, by, why, ordered=True))
        self._resilience.outbox.flush()

    def _note(self, what: str, order: Order, now: float, *, by: str, why: str) -> None:
        told: dict[str, Any] = {"level": order.level, "by": by, "why": why, "tenant": order.tenant, "share": order.share}
        self._history.append(HistoryEntry(when=moment(self._wall()), what=what, cause=order.cause, **told))
        self._resilience.outbox.post(FeatureOrdered(at=now, feature=self.name, what=what, **told))

    def _dim(self, share: float) -> None:
        """The load allows this share of its uses. Nothing but assignments: the next use sees to the rest."""
        self._share = share
        if share < 1:
            self._watched = True
