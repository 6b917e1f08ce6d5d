"""The settings of one service: put over what it declares, and changed while it is at work."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..dependency import Dependency
from ..feature import Feature
from ..policies.switch import chaos_allowed, switched_on
from .building import SCALARS, Kept, declared, drain_of, store_of
from .changing import FROM_CODE, Change, changes_of_dependency, changes_of_feature, differing, refusal
from .sources import Settings, Table
from .values import SettingsError

__all__ = ["Configuration", "on_signal"]

logger = logging.getLogger("resilient")
SWITCHES: dict[str, Callable[..., bool]] = {"enabled": switched_on, "chaos": chaos_allowed}


class Service(Protocol):
    """What is changed."""

    enabled: bool
    chaos: bool

    @property
    def features(self) -> Mapping[str, Feature]: ...
    @property
    def checks(self) -> Mapping[str, object]: ...


class Configuration:
    """Keeps what is in force, so that only differences are applied: what was changed by hand meanwhile stays.

    Args:
        given: a path, a mapping, `Settings`, or None for the environment alone.
        switches: `enabled` and `chaos` as the program gave them; None leaves them to the environment and the file.

    Raises:
        SettingsError: naming the setting.
    """

    def __init__(self, given: Any, switches: Mapping[str, bool | None]) -> None:
        self.settings: Settings = given if isinstance(given, Settings) else Settings(given)
        self._switches = dict(switches)
        self._dependencies: dict[str, Kept] = {}
        self._features: dict[str, tuple[Table, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def switch(self, name: str, settings: Settings | None = None) -> bool:
        """`enabled` or `chaos`: the program's word, else the environment's, else the file's."""
        one = (settings or self.settings).root.get((name,))
        given = self._switches[name]
        return SWITCHES[name](given) if one is None else SWITCHES[name](given, default=one.value)

    def value(self, name: str, code: Any) -> Any:
        """Another setting of the service, or the program's."""
        one = self.settings.root.get((name,))
        return code if one is None else one.value

    def store(self, code: Any) -> Any:
        """The store that settings speak of, or the program's."""
        made = store_of(self.settings.store)
        return code if made is None else made

    def drain(self) -> dict[str, Any]:
        """What settings say of how the service takes leave."""
        return drain_of(self.settings.drain)

    # -- declaring ------------------------------------------------------------------------------------------------

    def dependency(
        self, name: str, policies: tuple[Any, ...], own: dict[str, Any], store: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any], Kept]:
        """A dependency's policies and other arguments, with its settings over them; what to `keep` once it is declared."""
        table = self.settings.dependency(name)
        if not table:
            return policies, own, Kept({}, own=dict(own))
        chosen, kept = declared(name, policies, own, table, store)
        rest = {key: value for key, value in own.items() if key not in ("timeout", "cache", "fallback")}
        rest |= {key: table[key,].value for key in SCALARS if (key,) in table}
        return chosen, rest, kept

    def keep(self, name: str, kept: Kept) -> None:
        """Remember a dependency that is declared, so that it can be changed."""
        self._dependencies[name] = kept

    def feature(self, name: str, own: dict[str, Any]) -> dict[str, Any]:
        """A feature's arguments, with its settings over them."""
        table = self.settings.feature(name)
        self._features[name] = table, own
        return {**own, **{path[0]: given.value for path, given in table.items()}}

    def check(self, name: str, own: dict[str, Any]) -> dict[str, Any]:
        """A check's settings, with what is said over them."""
        return {**own, **{path[0]: given.value for path, given in self.settings.check(name).items()}}

    # -- changing -------------------------------------------------------------------------------------------------

    def reload(self, service: Service, dependencies: Mapping[str, Dependency]) -> list[Change]:
        """Read the sources anew and change what they say otherwise: all of it, or nothing.

        Raises:
            SettingsError: naming each setting that is wrong, or that can't change at work. Nothing was changed.
        """
        with self._lock:
            # Whatever becomes of it: a file that is wrong is refused once, and not each time that somebody looks.
            self.settings.stamp = self.settings.look()
            new = self.settings.again()
            refused: list[SettingsError] = []
            changes = self._of_service(service, new, refused)
            tables = {name: new.dependency(name) for name in dependencies}
            family = list(dependencies.values())
            for name, dependency in dependencies.items():
                kept = self._dependencies.get(name)
                if kept is not None:
                    changes += changes_of_dependency(dependency, kept, tables[name], family, refused)
            for name, feature in service.features.items():
                table, own = self._features.get(name, ({}, {}))
                changes += changes_of_feature(feature, table, new.feature(name), own, refused)
            if refused:
                raise refusal(refused)
            for change in changes:
                if change.act is not None:
                    change.act()
            self._take(new, tables)
            return changes

    def _take(self, new: Settings, tables: dict[str, Table]) -> None:
        self.settings = new
        for name, table in tables.items():
            if name in self._dependencies:
                self._dependencies[name].table = table
        self._features = {name: (new.feature(name), own) for name, (_, own) in self._features.items()}

    def _of_service(self, service: Service, new: Settings, refused: list[SettingsError]) -> list[Change]:
        changes = []
        for name in SWITCHES:
            try:
                before, after = self.switch(name), self.switch(name, new)
            except ValueError as error:
                refused.append(SettingsError(str(error), key=name))
                continue
            given = new.root.get((name,), FROM_CODE)
            if before != after:
                act = _setting(service, name, after)
                changes.append(Change(name, getattr(service, name), after, given.source, act=act))
        now = self.settings
        tables = [(now.root, new.root, ""), (now.store, new.store, "store."), (now.drain, new.drain, "drain.")]
        tables += [(now.check(name), new.check(name), f"checks.{name}.") for name in service.checks]
        for table, other, prefix in tables:
            for (name,), given in differing(table, other):
                if name not in SWITCHES:
                    refused.append(given.refused(f"{prefix}{name}", "can't be changed while the service is at work; it takes a restart"))
        return changes


def _setting(service: Service, name: str, value: bool) -> Callable[[], None]:
    return lambda: setattr(service, name, value)


def on_signal(reload: Callable[[], object], number: int | None, settings: Settings) -> Callable[[], None]:
    """Call `reload`, which reads `settings` anew, at a signal, and whoever was called before. Returns what undoes that.

    The handler runs wherever the main thread happens to be, perhaps while that holds one of our locks: it only starts a
    thread, which reloads.

    Raises:
        ValueError: the system has no SIGHUP, or this isn't the main thread.
    """
    if number is None:
        number = getattr(signal, "SIGHUP", None)
        if number is None:
            raise ValueError("number: this system has no SIGHUP; name another signal")
    before = signal.getsignal(number)

    def work() -> None:
        try:
            reload()
        except Exception as error:
            # Of several services in one process, each with settings of its own, only some may refuse.
            told = error if isinstance(error, SettingsError) else type(error).__name__
            whose = settings.origin
            logger.error("settings from %s were not reloaded, and nothing was changed: %s", whose, told, exc_info=told is not error)

    def handle(received: int, frame: Any) -> None:
        threading.Thread(target=work, name="resilient-reload", daemon=True).start()
        if callable(before):
            before(received, frame)

    signal.signal(number, handle)

    def undo() -> None:
        if signal.getsignal(number) is handle:
            signal.signal(number, signal.SIG_DFL if before is None else before)

    return undo
