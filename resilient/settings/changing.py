"""What changes while the service is at work: all that settings ask for, or nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..dependency import Dependency
from ..events import SettingChanged
from ..feature import Feature
from ..policies.shown import settings_of
from .building import Kept, by_kind, living, taking, template
from .sources import Table
from .values import Given, Path, SettingsError, concealed

__all__ = ["Change", "changes_of_dependency", "changes_of_feature", "refusal"]

FROM_CODE = Given(None, "code")
UNSET: Any = type("UNSET", (), {"__repr__": lambda self: "default"})()


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is to change, and what changes it; that can't fail any more."""

    key: str
    old: Any
    new: Any
    source: str
    dependency: str = ""
    act: Callable[[], None] | None = None

    def told(self, at: float) -> SettingChanged:
        old, new = concealed(self.key, self.old), concealed(self.key, self.new)
        return SettingChanged(at=at, dependency=self.dependency, key=self.key, old=old, new=new, source=self.source)


def refusal(refused: list[SettingsError]) -> SettingsError:
    """One error for all that was refused; nothing was changed."""
    if len(refused) == 1:
        return refused[0]
    return SettingsError("; ".join(map(str, refused)), key=refused[0].key, source=refused[0].source)


def differing(old: Table, new: Table) -> Iterator[tuple[Path, Given]]:
    """The paths at which settings differ, each with what says so now."""
    for path in {**old, **new}:
        before, after = old.get(path), new.get(path)
        if after is None or not after.same(before):
            yield path, after or FROM_CODE


def changes_of_dependency(
    dependency: Dependency, kept: Kept, table: Table, family: list[Dependency], refused: list[SettingsError]
) -> list[Change]:
    """What makes a dependency's settings those of `table`. What can't be done is added to `refused`.

    Args:
        dependency: whose settings they are.
        kept: what was settled when it was declared.
        table: what its settings are to be.
        family: all dependencies, of which some share policies with this one.
        refused: is added to.
    """
    key = f"dependencies.{dependency.name}"
    changed = dict(differing(kept.table, table))
    found: list[Change] = []
    for path, given in changed.items():
        if len(path) == 1:
            try:
                found.append(_of_dependency(dependency, kept, path[0], given, f"{key}.{path[0]}"))
            except SettingsError as error:
                refused.append(error)
    for kind, settings in by_kind(changed).items():
        try:
            found += _of_policy(dependency, kept, kind, settings, by_kind(table).get(kind, {}), family)
        except SettingsError as error:
            refused.append(error)
    return found


def _of_dependency(dependency: Dependency, kept: Kept, name: str, given: Given, key: str) -> Change:
    if name not in ("required", "chaos"):
        raise given.refused(key, "can't be changed while the service is at work; it takes a restart")
    value = kept.own.get(name, False if name == "required" else kept.own.get("chaos")) if given is FROM_CODE else given.value
    return Change(
        key,
        getattr(dependency, name),
        value,
        given.source,
        dependency.name,
        lambda: setattr(dependency, name, bool(value)),
    )


def _of_policy(
    dependency: Dependency, kept: Kept, kind: str, changed: Mapping[Path, Given], settings: Mapping[Path, Given], family: list[Dependency]
) -> list[Change]:
    key = f"dependencies.{dependency.name}.{kind}"
    first = next(iter(changed.values()))
    policy = living(dependency.policies, kind, key, changed)
    if policy is None:
        raise first.refused(key, "the dependency has no such policy, and is given none while it is at work; it takes a restart")
    if kind not in kept.made:
        kept.code.setdefault(kind, settings_of(policy) or {})
    elif not settings:
        raise first.refused(key, "a policy can't be taken out while the dependency is at work; it takes a restart")
    names = {path[0] for path in changed}
    swapped = not hasattr(policy, "taking")
    fixed = set() if swapped else names - policy.changeable
    if fixed:
        told = ", ".join(f"{key}.{name}" for name in sorted(fixed))
        raise first.refused(told, "can't be changed without losing what was learnt; it takes a restart")
    other = template(kind, kept.code.get(kind, {}), settings, key)
    act = _swapping(policy, other, family) if swapped else taking(policy, other, names, key, changed)
    before, after = settings_of(policy) or {}, settings_of(other) or {}
    made = []
    for index, (name, given) in enumerate({path[0]: given for path, given in changed.items()}.items()):
        old, new = before.get(name, UNSET), after.get(name, UNSET)
        made.append(Change(f"{key}.{name}", old, new, given.source, dependency.name, None if index else act))
    return made


def _swapping(old: Any, new: Any, family: list[Dependency]) -> Callable[[], None]:
    def swap() -> None:
        for one in family:
            if any(policy is old for policy in one.policies):
                one.swap(old, new)

    return swap


def changes_of_feature(feature: Feature, old: Table, new: Table, code: Mapping[str, Any], refused: list[SettingsError]) -> list[Change]:
    """What makes a feature's settings those of `new`; what can't be done is added to `refused`."""
    found: list[Change] = []
    for (name,), given in differing(old, new):
        key = f"features.{feature.name}.{name}"
        if name != "critical":
            refused.append(given.refused(key, "can't be changed while the service is at work; it takes a restart"))
            continue
        value = bool(code.get("critical", False)) if given is FROM_CODE else given.value
        found.append(Change(key, feature.critical, value, given.source, act=lambda value=value: setattr(feature, "critical", value)))  # type: ignore[misc]
    return found
