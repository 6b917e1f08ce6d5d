"""Resilience: the composition root. It knows the dependencies and the features of one service, and nothing is global."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal
from weakref import WeakSet

from .asgi.drainable import Drainable
from .asgi.leaving import Leaving
from .asgi.lifespan import Lifespan
from .asgi.routes import install
from .clock import SYSTEM_CLOCK, Clock
from .core.bounds import flag, whole
from .core.origin import PORTS, name_of
from .dashboard import Dashboard, dashboard_routes
from .dependency import Dependency
from .events import Listener
from .feature import Brownout, Feature, Featured, Registry
from .health import Checkable, Health
from .outbox import Outbox
from .policies.cache import Cache
from .policies.failover import Failover
from .policies.target import TargetPipeline
from .policies.writes import Writes
from .protocols import Policy, Store
from .settings import Settings
from .settings.configuration import Configuration
from .settings.surface import Settable
from .telemetry.logging import TransitionLog
from .telemetry.prometheus import Metrics

__all__ = ["Resilience"]

logger = logging.getLogger("resilient")
OWN = ("clock", "outbox", "variant_of")
SETTINGS = tuple(name for name, one in inspect.signature(Dependency).parameters.items() if one.kind is one.KEYWORD_ONLY and name not in OWN)
"""What `Resilience.dependency` hands on to `Dependency`."""


class Resilience(Featured, Checkable, Drainable, Settable):
    """The dependencies, features and listeners of a service.

    Args:
        enabled: False passes every call through untouched. By default the environment decides: `RESILIENT_ENABLED=0`.
        chaos: whether a `Chaos` may act. By default the environment decides, and says no: `RESILIENT_CHAOS=1`.
        clock: what time is read from.
        listeners: objects with `on_event(event)`.
        store: where the caches of `dependency(cache=True)` keep what they have; by default each in memory of its own.
        brownout: what dims optional features under load; by default nothing does.
        max_origins: how many origins that no dependency claims get policies of their own; beyond, the one that was
            used least recently is forgotten.
        readiness: "local": a dependency never makes /readyz 503; "required": one that is required and whose check is ill does.
        startup_timeout: seconds for the start-up: its tasks, first checks, and checks with `startup=True`.
        start_anyway: whether the service has started when they are over, though something is not done.
        registry: a prometheus_client registry to be scraped through, as well as by `metrics.render`.
        settings: the path of a TOML file, such a file's content as a mapping, or `Settings`. What it says of a dependency or
            a feature stands over what is declared under that name, and the environment (`RESILIENT_CATALOG__TIMEOUT=0.3`)
            over both.

    Raises:
        SettingsError: the file or the environment says something that can't be; it names that, and what is allowed.
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        enabled: bool | None = None,
        chaos: bool | None = None,
        clock: Clock = SYSTEM_CLOCK,
        listeners: Iterable[Listener] = (),
        store: Store | None = None,
        brownout: Brownout | None = None,
        max_origins: int = 100,
        readiness: Literal["local", "required"] = "local",
        startup_timeout: float = 60.0,
        start_anyway: bool = True,
        registry: Any = None,
        settings: str | os.PathLike[str] | Mapping[str, Any] | Settings | None = None,
    ) -> None:
        whole("max_origins", max_origins)
        if not isinstance(clock, Clock):
            raise TypeError(f"clock: expected an object with now(), sleep(seconds) and wait(event, seconds), got {clock!r}")
        if not isinstance(listeners, Iterable):
            raise TypeError(f"listeners: expected them in a list, got {listeners!r}")
        if store is not None and not isinstance(store, Store):
            raise TypeError(f"store: expected an object with load(keys), save(records), remove(keys) and close(), got {store!r}")
        for switch, said in (("enabled", enabled), ("chaos", chaos)):
            if said is not None:
                flag(switch, said)
        self._configuration = Configuration(settings, {"enabled": enabled, "chaos": chaos})
        self._enabled = self._configuration.switch("enabled")
        self._chaos = self._configuration.switch("chaos")
        self.clock = clock
        self.store: Store | None = self._configuration.store(store)
        self.outbox: Outbox = Outbox()
        self._lock = threading.Lock()
        self._declared: dict[str, Dependency] = {}
        self._targets: dict[str, TargetPipeline] = {}
        self._routes: dict[tuple[str, str, int], tuple[Dependency, ...]] = {}
        self._undeclared: OrderedDict[tuple[str, str, int], Dependency] = OrderedDict()
        self._max_origins = self._configuration.value("max_origins", max_origins)
        whole("max_origins", self._max_origins)
        self._around: tuple[Policy, ...] = ()
        self._registry = Registry(self, brownout)
        self.admissions: WeakSet[Any] = WeakSet()
        self._board: Dashboard | None = None
        self.ready = True
        self.lifespan: Lifespan = Lifespan()
        self.health: Health = Health(self, self._configuration, readiness, startup_timeout, start_anyway)
        self.lifespan.add(self.health.running)
        self.leaving: Leaving = Leaving(self, self._configuration.drain())
        self.lifespan.add(self.leaving.life, over=self.leaving.ended)
        self.metrics: Metrics = Metrics(self, registry=registry)
        own: tuple[Listener, ...] = (self._registry, self.metrics, TransitionLog())
        for listener in own:
            self.outbox.add(listener, own=True)
        for listener in listeners:
            self.outbox.add(listener)

    # -- dependencies ---------------------------------------------------------------------------------------------

    def dependency(self, name: str, *policies: Any, **settings: Any) -> Dependency:
        """Declare a dependency; arguments as for `Dependency`, but for `clock` and `outbox`, which are those of this object.

        Raises:
            TypeError: a setting is unknown, or of the wrong kind; the message names it.
            ValueError: there is one of that name, or of that origin, already.
        """
        for given in settings:
            if given in OWN:
                raise TypeError(f"{given}: a dependency that is declared here has that of its Resilience")
            if given not in SETTINGS:
                raise TypeError(f"{given}: a dependency has no such setting; it has {', '.join(SETTINGS)}")
        if settings.get("cache") is True:
            settings["cache"] = Cache(store=self.store)
        policies, settings, kept = self._configuration.dependency(name, policies, settings, self.store)
        made = Dependency(name, *policies, clock=self.clock, outbox=self.outbox, **{"chaos": self._chaos, **settings})
        made._adopt = self._adopt
        for policy in made.policies:
            if isinstance(policy, Writes):
                policy.mode = self._registry.writes
        with self._lock:
            if name in self._declared:
                raise ValueError(f"name: there is a dependency {name!r} already")
            if made.origin is not None:
                siblings = self._routes.get(made.origin.key, ())
                twin = next((other for other in siblings if other.origin is not None and other.origin.path == made.origin.path), None)
                if twin is not None:
                    raise ValueError(f"origin: {made.origin} belongs to {twin.name!r} already")
                # A new tuple: requests are routed without the lock.
                longest_first = sorted((*siblings, made), key=lambda one: -len(one.origin.path) if one.origin else 0)
                self._routes[made.origin.key] = tuple(longest_first)
            made.enabled = self._enabled
            self._watch_calls(made)
            self._declared[name] = made
            self._configuration.keep(name, kept)
            # An origin that has this name without anybody having asked for it gives way; its next request makes another.
            for key in [key for key, one in self._undeclared.items() if one.name == name]:
                del self._undeclared[key]
            targets = [target for policy in made.policies if isinstance(policy, Failover) for target in policy.pipelines]
            for one in (made, *targets):
                one.closing = self.leaving.closing
            self._targets.update({target.name: target for target in targets})
        self.metrics.watch(made)
        for target in targets:
            self.metrics.watch(target)
        return made

    def _adopt(self, variant: Dependency) -> None:
        """Take in what one of the dependencies was varied to."""
        with self._lock:
            if variant.name in self._declared:
                raise ValueError(f"name: there is a dependency {variant.name!r} already")
            variant._adopt = self._adopt
            self._watch_calls(variant)
            self._declared[variant.name] = variant
        self.metrics.watch(variant)

    @property
    def dependencies(self) -> dict[str, Dependency | TargetPipeline]:
        """All dependencies by name, those of origins that nobody declared and the targets of failovers included."""
        with self._lock:
            return {**{one.name: one for one in self._undeclared.values()}, **self._targets, **self._declared}

    def dependency_for(self, url: Any) -> Dependency:
        """The dependency that a request to `url` belongs to: of the longest matching origin, else one for its origin alone."""
        key = (url.scheme, url.host, url.port or PORTS.get(url.scheme, 0))
        for dependency in self._routes.get(key, ()):
            if dependency.origin is not None and dependency.origin.covers(url.path):
                return dependency
        with self._lock:
            known = self._undeclared.get(key)
            if known is not None:
                self._undeclared.move_to_end(key)
                return known
            taken = self._declared.keys() | {one.name for one in self._undeclared.values()}
            name = name_of(key, taken)
            made = self._undeclared[key] = Dependency(name, clock=self.clock, outbox=self.outbox, chaos=self._chaos)
            made.enabled = self._enabled
            self._watch_calls(made)
            made.closing = self.leaving.closing
            if len(self._undeclared) > self._max_origins:
                self._undeclared.popitem(last=False)
        self.metrics.watch(made)
        return made

    def surround(self, policy: Policy) -> None:
        """Put a policy that only watches around all others, in every dependency that there is or will be."""
        with self._lock:
            self._around = (*self._around, policy)
            for dependency in (*self._declared.values(), *self._undeclared.values()):
                dependency.surround(policy)

    def _watch_calls(self, made: Dependency) -> None:
        for policy in self._around:
            made.surround(policy)

    # -- features -------------------------------------------------------------------------------------------------

    def feature(self, name: str, **settings: Any) -> Feature:
        """Declare a feature; the result decorates the functions that make it up. Arguments as for `Feature`.

        Raises:
            TypeError, ValueError: a setting is wrong, which the message names; or there is one of that name already.
        """
        made = Feature(self, name, **self._configuration.feature(name, settings))
        self._registry.declare(made)
        return made

    # -- switches -------------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether policies apply. Setting it takes effect with the next call; calls under way end as they began."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        flag("enabled", value)
        with self._lock:
            self._enabled = value
            for dependency in (*self._declared.values(), *self._undeclared.values()):
                dependency.enabled = value

    @property
    def chaos(self) -> bool:
        """Whether a `Chaos` may act. Setting it takes effect with the next call."""
        return self._chaos

    @chaos.setter
    def chaos(self, value: bool) -> None:
        flag("chaos", value)
        with self._lock:
            self._chaos = value
            for dependency in (*self._declared.values(), *self._undeclared.values()):
                dependency.chaos = value
        logger.warning("chaos is %s from now on", "allowed" if value else "not allowed")

    def add_listener(self, listener: Listener) -> None:
        """Hand every later event to `listener.on_event`."""
        self.outbox.add(listener)

    def reset(self) -> None:
        """Forget all that was learnt, and the origins that nobody declared. Declarations stay, calls under way go on."""
        with self._lock:
            dependencies = [*self._undeclared.values(), *self._declared.values()]
            self._undeclared.clear()
        for dependency in dependencies:
            dependency.reset()
        self._registry.reset()
        self.health.reset()
        self.leaving.reset()
        for door in list(self.admissions):
            door.reset()
        self.outbox.pending.clear()

    # -- the service ----------------------------------------------------------------------------------------------

    def install(
        self, app: Any, *, dashboard: bool = False, metrics: bool = True, health: bool = True, prefix: str = "", **options: Any
    ) -> None:
        """Add the middleware and the routes to a Starlette or FastAPI app.

        Args:
            app: the app.
            dashboard: whether to add `/resilience`: a page that shows the service at work. `authorize`, `dashboard_readers`
                and `dashboard_hosts` guard it, as for `dashboard`.
            metrics: whether to add `/metrics`.
            health: whether to add `/livez`, `/readyz` and `/startupz`.
            prefix: what the paths begin with.
            options: as for `ResilienceMiddleware`.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong.
            RuntimeError: the app has served already, or has the middleware already.
        """
        install(self, app, dashboard=dashboard, metrics=metrics, health=health, prefix=prefix, **options)

    def dashboard(
        self,
        prefix: str = "",
        *,
        authorize: Callable[[Any], Any] | None = None,
        readers: Callable[[Any], Any] | None = None,
        hosts: Iterable[str] | None = None,
    ) -> list[Any]:
        """Routes for Starlette and FastAPI: `/resilience`, its JSON and its stream, as `install(dashboard=True)` adds them.

        Args:
            prefix: what the paths begin with.
            authorize: says who may act: a function of the request, async or not, that returns the operator's name, or None.
                Without it there are no controls.
            readers: likewise, who may read. By default whoever reaches it, as `/metrics`.
            hosts: the names that it is reached by: "ops.example.com", "localhost:8000". By default any.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong.
        """
        with self._lock:
            if self._board is None:
                self._board = Dashboard(self)
        return list(dashboard_routes(self._board, prefix, authorize=authorize, readers=readers, hosts=hosts))
