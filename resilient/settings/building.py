"""Policies from settings: made anew, or those of the program with some of their settings replaced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pybreaker

from ..asgi.drain import Drain
from ..dependency import composed
from ..policies.breaker import CircuitBreaker
from ..policies.cache import Cache
from ..policies.fallback import Fallback
from ..policies.order import place_of, replaced
from ..policies.pipeline import flatten
from ..policies.shown import settings_of
from ..policies.target import Target
from .schema import BACKOFFS, KINDS, STORES, word
from .sources import Table
from .values import MASK, Given, Path, SettingsError, concealed, masked

__all__ = ["SCALARS", "Kept", "built", "declared", "drain_of", "store_of", "template"]

TAKEN_OUT = {"cache": Cache, "fallback": Fallback}
SCALARS = ("origin", "required", "writes", "propagate", "chaos")


@dataclass(slots=True)
class Kept:
    """What was settled when a dependency was declared, so that settings can be taken back later.

    Attributes:
        table: what its settings said, as they are in force.
        code: the settings that the program itself gave to each of its policies.
        made: the policies that only settings speak of.
        own: what the program itself gave beside policies.
    """

    table: Table
    code: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    own: dict[str, Any] = field(default_factory=dict)


def by_kind(table: Table) -> dict[str, dict[Path, Given]]:
    """The settings of each policy, by their paths below it."""
    kinds: dict[str, dict[Path, Given]] = {}
    for path, given in table.items():
        if len(path) > 1:
            kinds.setdefault(path[0], {})[path[1:]] = given
    return kinds


def declared(name: str, policies: tuple[Any, ...], own: dict[str, Any], table: Table, store: Any) -> tuple[tuple[Any, ...], Kept]:
    """The policies of a dependency whose settings stand over what the program gave.

    A policy of the program stays the same object where its settings can change at work, so that those who share it go on
    sharing it. Where they can't, another one stands in its place.

    Raises:
        SettingsError: naming the setting; nothing was changed then.
        TypeError, ValueError: what the program gave is wrong.
    """
    given = {key: own[key] for key in ("timeout", "cache", "fallback") if key in own}
    chosen = tuple(flatten(composed(policies, **given)))
    kept = Kept(table, own=own)
    if not table:
        return chosen, kept
    key = f"dependencies.{name}"
    for switch, policy in (("cache", Cache), ("fallback", Fallback)):
        one = table.get((switch,))
        if one is not None:
            chosen = tuple(existing for existing in chosen if one.value is True or not isinstance(existing, policy))
            if switch == "fallback":
                chosen = (Fallback(one.value), *chosen)
            elif one.value and not any(isinstance(existing, Cache) for existing in chosen):
                chosen = replaced(chosen, [Cache(store=store)])
    acts: list[Callable[[], None]] = []
    kinds = by_kind(table)
    for kind, settings in kinds.items():
        present = living(chosen, kind, f"{key}.{kind}", settings)
        if present is None:
            made = template(kind, {"store": store} if kind == "cache" else {}, settings, f"{key}.{kind}")
            if kind == "failover" and not policies and "circuit_breaker" not in kinds:
                # As in standard(): each target has a breaker of its own, and nobody has asked for one around them all.
                chosen = tuple(one for one in chosen if not isinstance(one, CircuitBreaker))
            chosen = replaced(chosen, [made])
            kept.made.add(kind)
            continue
        kept.code[kind] = settings_of(present) or {}
        made = template(kind, kept.code[kind], settings, f"{key}.{kind}")
        names = {path[0] for path in settings}
        if hasattr(present, "taking") and names <= present.changeable:
            acts.append(taking(present, made, names, f"{key}.{kind}", settings))
        else:
            chosen = tuple(made if policy is present else policy for policy in chosen)
    for act in acts:
        act()
    return chosen, kept


def living(policies: tuple[Any, ...], kind: str, key: str, settings: Mapping[Path, Given]) -> Any:
    """The policy that a table speaks of; None if there is none.

    Raises:
        SettingsError: there are several, or one that is not ours.
    """
    first = next(iter(settings.values()), Given(None, "code"))
    exact = [policy for policy in policies if type(policy) is KINDS[kind]]
    if len(exact) > 1:
        raise first.refused(key, f"there are {len(exact)} of them in the program, and a table can't say which one it means")
    if exact:
        return exact[0]
    sibling = [policy for policy in policies if place_of(policy) is not None and _stands_for(policy, KINDS[kind])]
    if sibling and type(sibling[0]) not in KINDS.values():
        raise first.refused(key, f"the program has a {type(sibling[0]).__name__} of its own there, whose settings are its own affair")
    return None


def _stands_for(policy: Any, kind: type) -> bool:
    if kind.__mro__ and issubclass(kind, pybreaker.CircuitBreaker) and "Breaker" in type(policy).__name__:
        return True
    return isinstance(policy, kind) or issubclass(kind, type(policy))


def taking(policy: Any, other: Any, names: set[str], key: str, settings: Mapping[Path, Given]) -> Callable[[], None]:
    try:
        act: Callable[[], None] = policy.taking(other, names)
    except (TypeError, ValueError) as error:
        raise _wrong(key, error, settings) from None
    return act


def template(kind: str, code: Mapping[str, Any], settings: Mapping[Path, Given], key: str) -> Any:
    """A policy of a kind: the program's settings, and those of a table over them.

    Raises:
        SettingsError: naming the setting that is wrong, or missing.
    """
    values = dict(code)
    parts: dict[str, dict[Path, Given]] = {}
    for path, given in settings.items():
        if len(path) == 1:
            values[path[0]] = given.value
        else:
            parts.setdefault(path[0], {})[path[1:]] = given
    for name, part in parts.items():
        values[name] = _part(name, values.get(name), part, f"{key}.{name}")
    return built(KINDS[kind], values, key, settings)


def _part(name: str, code: Any, settings: Mapping[Path, Given], key: str) -> Any:
    """A budget or a backoff: that of the program with other settings, or a new one."""
    values: dict[str, Any] = {path[0]: given.value for path, given in settings.items()}
    if name == "budget":
        from ..policies.budget import RetryBudget

        return built(RetryBudget, {**(settings_of(code) or {} if code is not None else {}), **values}, key, settings)
    kind = values.pop("kind", None if code is None else word(type(code))) or "exponential"
    if kind not in BACKOFFS:
        given = settings.get(("kind",)) or next(iter(settings.values()))
        raise given.refused(f"{key}.kind", f"expected one of {', '.join(BACKOFFS)}, got {kind!r}")
    same = code is not None and type(code) is BACKOFFS[kind]
    before = (
        {one: getattr(code, "seconds" if one == "delay" else one) for one in inspect.signature(BACKOFFS[kind]).parameters} if same else {}
    )
    return built(BACKOFFS[kind], {**before, **values}, key, settings)


def built(kind: type, values: Mapping[str, Any], key: str, settings: Mapping[Path, Given]) -> Any:
    """An object of `kind`.

    Raises:
        SettingsError: the constructor refuses a setting, or wants one that is missing.
    """
    signature = inspect.signature(kind)
    for name, one in signature.parameters.items():
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and name not in values:
            given = next(iter(settings.values()))
            raise given.refused(f"{key}.{name}", f"is missing; a {kind.__name__} can't be made without it")
    for name in values:
        if name not in signature.parameters and not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
            given = settings.get((name,)) or next(iter(settings.values()))
            raise given.refused(f"{key}.{name}", f"a {kind.__name__} has no such setting; it has {', '.join(signature.parameters)}")
    try:
        if "targets" in values:
            return kind(*_targets(values["targets"]), **{name: value for name, value in values.items() if name != "targets"})
        return kind(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _wrong(key, error, settings) from None


def _targets(said: Any) -> tuple[Any, ...]:
    """The targets of a `Failover`: URLs, or those that the program or a table has given a name."""
    try:
        return tuple(Target(name, url=url) for name, url in said.items()) if isinstance(said, Mapping) else tuple(map(Target.of, said))
    except (TypeError, ValueError) as error:
        raise type(error)(f"targets: {error}") from None


def _wrong(key: str, error: Exception, settings: Mapping[Path, Given]) -> SettingsError:
    """The refusal of a constructor, with the setting that it names and where that came from."""
    told = str(error)
    named = next((path for path in settings if told.startswith(path[-1])), None)
    given = settings[named] if named is not None else next(iter(settings.values()))
    for path, secret in settings.items():
        # A constructor says what it got, and knows nothing of secrets.
        shown = concealed(".".join(path), secret.value)
        if shown == MASK and secret.value:
            told = told.replace(repr(secret.value), shown).replace(str(secret.value), shown)
    return given.refused(".".join((key, *(named or ()))), masked(told))


def store_of(table: Table) -> Any:
    """The store that settings speak of; None if they don't."""
    if not table:
        return None
    values = {path[0]: given.value for path, given in table.items()}
    return built(STORES[values.pop("kind")], values, "store", {path: given for path, given in table.items() if path != ("kind",)} or table)


def drain_of(table: Table) -> dict[str, Any]:
    """What settings say of how the service takes leave, over what the program does."""
    values = {path[0]: given.value for path, given in table.items()}
    if values:
        built(Drain, values, "drain", table)  # which knows what can't be
    return values
