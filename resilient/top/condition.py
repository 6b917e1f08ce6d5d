"""What the numbers mean: how a dependency, a feature, the service is."""

from __future__ import annotations

from typing import Any, NamedTuple

from .words import clean, members, number

__all__ = ["IN_TROUBLE", "Condition", "of_dependency", "of_feature", "of_service", "troubled"]

FAILING = 0.05  # from this share of failures a dependency whose circuit is closed is in trouble all the same
LOW_BUDGET = 0.1
IN_TROUBLE = 2


class Condition(NamedTuple):
    """A word, and beside it a mark and a colour that say the same.

    Attributes:
        rank: orders conditions, the higher the worse; from `IN_TROUBLE` on it is trouble.
    """

    mark: str
    word: str
    style: str
    rank: int


STATES = {
    "closed": Condition("●", "closed", "green", 0),
    "disabled": Condition("○", "disabled", "dim", 1),
    "half-open": Condition("◆", "half-open", "yellow", 4),
    "isolated": Condition("□", "isolated", "bold red", 5),
    "open": Condition("■", "open", "bold red", 6),
}
LEVELS = {
    "full": Condition("●", "full", "green", 0),
    "reduced": Condition("◆", "reduced", "yellow", 2),
    "static": Condition("▲", "static", "yellow", 3),
    "off": Condition("■", "off", "bold red", 4),
}
SERVICE = {
    "healthy": Condition("●", "healthy", "bold green", 0),
    "degraded": Condition("▲", "degraded", "bold yellow", 2),
    "critical": Condition("■", "critical", "bold red", 3),
}


def of_dependency(one: dict[str, Any]) -> Condition:
    """Of a dependency: its circuit's state, or what is wrong with it although that is closed."""
    state = one.get("state")
    known = _known(STATES, state)
    if known.rank and one.get("enforce") is False:
        return Condition(known.mark, f"{known.word} (shadow)", "yellow", min(known.rank, IN_TROUBLE))
    if state != "closed":
        return known
    if (number(one.get("calls")) or 0) > 0 and (number(one.get("failure_ratio")) or 0) >= FAILING:
        return Condition("▲", "failing", "yellow", 3)
    if (number(one.get("rejections")) or 0) > 0:
        return Condition("▲", "rejecting", "yellow", 2)
    budget = number(one.get("budget"))
    if budget is not None and budget < LOW_BUDGET:
        return Condition("▲", "no retries left", "yellow", 2)
    return known


def of_feature(one: dict[str, Any]) -> Condition:
    """Of a feature: its level."""
    return _known(LEVELS, one.get("level"))


def of_service(service: dict[str, Any]) -> Condition:
    """Of the service: its level, and its status where that is another than ready."""
    known = _known(SERVICE, service.get("level"))
    status = service.get("status")
    if status in (None, "ready"):
        return known
    return Condition(known.mark, f"{known.word}, {clean(status, 20)}", "bold yellow" if known.rank < 3 else known.style, max(known.rank, 1))


def troubled(document: dict[str, Any]) -> bool:
    """Whether anything at all is less than it should be, whatever the service's own level says."""
    ill = any(of_dependency(one).rank >= IN_TROUBLE for one in members(document.get("dependencies")))
    return ill or any(one.get("level") != "full" for one in members(document.get("features")))


def _known(table: dict[str, Condition], word: Any) -> Condition:
    known = table.get(word) if isinstance(word, str) else None
    return known or Condition("?", clean(word, 20) or "unknown", "yellow", IN_TROUBLE)
