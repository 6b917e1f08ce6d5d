"""What a policy says of itself: its name, and what was set otherwise than by default."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

__all__ = ["Told", "settings_of", "shown"]

LONGEST = 60  # characters of one setting
MOST = 4  # members of a collection


class Told(str):
    """What a policy says of itself, as text and as values: its constructor would make another such policy of them."""

    __slots__ = ("settings",)

    settings: dict[str, Any]


def shown(policy: object, **settings: Any) -> Told:
    """`Bulkhead(max_concurrent=10)`: the class and those of its settings that are not its constructor's defaults."""
    kind = type(policy)
    told = Told(f"{kind.__name__}({', '.join(_told(_defaults(kind), settings))})")
    told.settings = settings
    return told


def settings_of(policy: object) -> dict[str, Any] | None:
    """The settings of a policy by the names of its constructor, defaults perhaps left out; None if it doesn't tell them."""
    told = type(policy).__repr__(policy)
    return dict(told.settings) if isinstance(told, Told) else None


def _told(defaults: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        default = defaults.get(name, inspect.Parameter.empty)
        if value is not default and not (type(value) is type(default) and value == default):
            yield f"{name}={_brief(value)}"


def _defaults(kind: type) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}


def _brief(value: Any) -> str:
    if isinstance(value, type) or inspect.isroutine(value):
        return str(getattr(value, "__qualname__", value)).replace("<locals>.", "")
    if type(value) in (tuple, list):
        members = ", ".join([*map(_brief, value[:MOST]), *(["..."] if len(value) > MOST else [])])
        return f"({members}{',' if len(value) == 1 else ''})" if type(value) is tuple else f"[{members}]"
    try:
        told = repr(value)
    except Exception as error:  # noqa: BLE001 - a repr that fails must not keep a log record from being written
        told = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return told if len(told) <= LONGEST else told[: LONGEST - 3] + "..."
