"""What a `Resilience` offers of its health."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..core.bounds import flag

if TYPE_CHECKING:
    from .check import Check, Probed
    from .health import Health

__all__ = ["Checkable"]

F = TypeVar("F", bound=Callable[..., Any])


class Checkable:
    """Mixed into `Resilience`; `health` does the work."""

    health: Health

    @overload
    def check(self, name: str, fn: F, /, **settings: Any) -> F: ...
    @overload
    def check(
        self,
        name: str,
        /,
        *,
        interval: float = ...,
        timeout: float = ...,
        required: bool = ...,
        startup: bool = ...,
        failures: int = ...,
        successes: int = ...,
        dependency: Probed | None = ...,
    ) -> Callable[[F], F]: ...
    def check(self, name: str, fn: Any = None, /, **settings: Any) -> Any:
        """Ask `fn` again and again in the background, and keep how it went; decorates a function too.

        It is well if it returns None or True, and ill if it returns False or raises. It may be async, or plain: then it is called
        in a thread. It is never asked by a probe, and never twice at a time.

        Args:
            name: for logs, metrics and the detail of /readyz.
            fn: a function without arguments.
            settings: `interval` (10 s between two questions, give or take a tenth), `timeout` (2 s), `failures` (3 bad answers in a row
                make it ill), `successes` (1 good one makes it well), `required` (no requests while it is ill: for what this replica
                has for itself, such as its disk), `startup` (the service has not started before it was well once), `dependency` (whose
                check it is: what follows is said by `readiness` of the Resilience, and a circuit that is due for a trial has one in
                every good answer).

        Returns:
            `fn` itself.

        Raises:
            TypeError, ValueError: a setting is wrong, which the message names; there is one of that name; or there are 50 already.
        """
        if fn is not None:
            self.health.declare(name, fn, **settings)
            return fn

        def declared(fn: F) -> F:
            self.check(name, fn, **settings)
            return fn

        return declared

    @property
    def checks(self) -> Mapping[str, Check]:
        """All checks by name, with their `state` (well, ill, unknown), `since`, `age` and `reason`."""
        self.health.look()
        return self.health.checks

    @overload
    def on_startup(self, fn: F, /, *, name: str | None = None) -> F: ...
    @overload
    def on_startup(self, /, *, name: str | None = None) -> Callable[[F], F]: ...
    def on_startup(self, fn: Any = None, /, *, name: str | None = None) -> Any:
        """Call `fn` in the background when the service starts; it has not started before that has returned. Decorates too.

        What raises is tried again after 1 s, 2 s, up to 10 s. It may be async, or plain: then it is called in a thread. It is called
        again where the service is started again.

        Args:
            fn: a function without arguments.
            name: what it is called while it is waited for; by default the function's name.

        Returns:
            `fn` itself.

        Raises:
            TypeError, ValueError: a parameter is wrong, which the message names; or there are 50 already.
        """
        if fn is None:
            return lambda fn: self.on_startup(fn, name=name)
        self.health.on_startup(fn, name)
        return fn

    @property
    def startup_complete(self) -> bool:
        """Whether the service has started: all that it waits for is done, or took too long. To be set by hand too, which then holds."""
        return self.health.started

    @startup_complete.setter
    def startup_complete(self, value: bool) -> None:
        flag("startup_complete", value)
        self.health.by_hand = value
