"""What a `Resilience` offers of its settings: which they are, and to read them anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ..clock import Clock
from ..dependency import Dependency
from ..events import SettingChanged
from ..outbox import Outbox
from .configuration import Configuration, on_signal
from .sources import Settings

if TYPE_CHECKING:
    from .configuration import Service

__all__ = ["Settable"]


class Settable:
    """Mixed into `Resilience`; `Configuration` does the work."""

    clock: Clock
    outbox: Outbox
    _configuration: Configuration
    _declared: dict[str, Dependency]
    _lock: threading.Lock

    @property
    def settings(self) -> Settings:
        """The settings in force, from the file and the environment."""
        return self._configuration.settings

    def reload(self) -> list[SettingChanged]:
        """Read the settings anew, and change what they say otherwise, on the living objects: nothing that was learnt is lost.

        All of it is changed or nothing. Each change is logged and told to listeners.

        Returns:
            What was changed, secrets masked.

        Raises:
            SettingsError: naming each setting that is wrong, or that can't change at work. Nothing was changed.
        """
        with self._lock:
            declared = dict(self._declared)
        changes = self._configuration.reload(cast("Service", self), declared)
        told = [change.told(self.clock.now()) for change in changes]
        for event in told:
            self.outbox.emit(event)
        return told

    def reload_if_changed(self) -> list[SettingChanged]:
        """`reload`, if the file has changed since it was read last; to be called every now and then.

        Raises:
            SettingsError: as `reload`; once, and not again until the file changes.
        """
        found = self.settings.look()
        return [] if found is None or found == self.settings.stamp else self.reload()

    def reload_on_signal(self, number: int | None = None) -> Callable[[], None]:
        """`reload` at a signal, SIGHUP by default, from a thread of its own; what was called at it before is called still.

        Settings that are refused are logged as an error, and the ones in force stay. Opt-in, and to be called in the main
        thread.

        Returns:
            A function that undoes it.

        Raises:
            ValueError: the system has no such signal, or this isn't the main thread.
        """
        return on_signal(self.reload, number, self.settings)
