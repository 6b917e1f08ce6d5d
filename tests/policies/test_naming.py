"""What a call is known by: never the same word for two calls that are not the same, and a TypeError where that is not sure."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import random
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import CachedFallback, Dependency, Fallback
from resilient.context import carry, partition
from resilient.policies.naming import Names, opened, own_name, said, word

from ..thorough import often


class Colour(Enum):
    RED = 1


class Size(IntEnum):
    RED = 1


class Word(str):
    """Text that does not show what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'word'"


class Shop:
    def __init__(self, name: str = "") -> None:
        self.name = name

    def price(self, product: int) -> str:
        return f"{self.name} {product}"

    @classmethod
    def of_all(cls, product: int) -> str:
        return f"{cls.__name__} {product}"

    @staticmethod
    def tax(product: int) -> int:
        return product

    def __call__(self, product: int) -> str:
        return f"called {self.name} {product}"


class Other(Shop):
    pass


def load(product: Any = None, *others: Any, currency: Any = "EUR", **more: Any) -> Any:
    return product


def passed_through(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


wrapped = passed_through(load)  # which calls itself test_naming.load, and is not
twice = passed_through(passed_through(Shop.tax))


@passed_through
def decorated(product: int) -> int:
    return product


def dependency(**given: Any) -> Dependency:
    return Dependency("shop", Fallback.cached(**{"ttl": 60, **given}))


def key_of(fn: Any, *args: Any, **kwargs: Any) -> str | None:
    """The word for a call, of a cache that has met no other."""
    made = dependency()
    assert made.cached is not None
    return made.cached.key_of(made.begin(fn, args, kwargs))[0]


# -- arguments --------------------------------------------------------------------------------------------------------

ATOMS = [None, True, 1, 1.0, 1j, "1", b"1", 0, False, 0.0, "", "None", "a#b", "a#c", "a/b", "a?b", "\ud800", -1, 2**80]
ATOMS += [date(2026, 1, 2), datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, fold=1), timedelta(1)]  # noqa: DTZ001
ATOMS += [Decimal(1), Decimal("1.0"), UUID(int=1), Colour.RED, Size.RED, Shop, Other]
SHAPES = [
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    {1},
    frozenset({1}),
    {1: 1},
    {"1": 1},
    {1: "1"},
    [[1], 2],
    [1, [2]],
    [1, 2],
    ["list", 1],
]
SHAPES += [{"a": 1, "b": 2}, {"a": [1], "b": ()}, ["Decimal", "Decimal('1')"], ("a", ("b",)), [{"a": {1}}], {(1, 2): 3}, {None: 0}]


def test_what_is_not_the_same_has_not_the_same_word() -> None:
    values = [*ATOMS, *SHAPES]
    words = [key_of(load, value) for value in values]
    assert len(set(words)) == len(values)


def test_what_is_equal_has_the_same_word() -> None:
    assert key_of(load, {"a": 1, "b": {1, 2, "x"}}) == key_of(load, {"b": {"x", 2, 1}, "a": 1})
    assert key_of(load, 7) == key_of(load, product=7)
    assert key_of(load, 7, currency="USD", x=1, a=2) == key_of(load, a=2, x=1, currency="USD", product=7)


def test_how_arguments_are_spread_makes_a_difference() -> None:
    calls = [
        ((1, 2), {}),
        (((1, 2),), {}),
        ((1,), {"x": 2}),
        ((), {"x": 1, "y": 2}),
        ((), {"x": "1, y=2"}),
        (([1, 2],), {}),
        ((1, 2, None), {}),
    ]
    assert len({key_of(load, *args, **kwargs) for args, kwargs in calls}) == len(calls)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def exactly(value: Any) -> Any:
    """Equal for the same values of the same types alone."""
    if isinstance(value, dict):
        return dict, frozenset((key, exactly(item)) for key, item in value.items())
    return type(value), tuple(map(exactly, value)) if isinstance(value, list | tuple) else repr(value)


@pytest.mark.slow
@given(values, values)
@settings(max_examples=often(500))
def test_words_are_the_same_for_the_same_values_alone(one: Any, other: Any) -> None:
    assert (word("f", said(one)) == word("f", said(other))) == (exactly(one) == exactly(other))


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Shop(),
        Word("secret"),
        Fraction(1, 2),
        bytearray(b"x"),
        [1, (2, {"a": object()})],
        {1: Shop()},
        lambda: 1,
        load,
        threading,
        type("X", (), {}),
    ],
)
def test_what_does_not_show_all_that_it_is_is_no_key(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^Fallback\.cached: \w+ among the arguments of .*load.* is no key; give key=, a function of"):
        key_of(load, value)


def test_what_holds_itself_is_no_key() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="nested more than 32 deep"):
        key_of(load, endless)


def test_a_member_of_a_local_enum_is_no_key() -> None:
    class Local(Enum):
        A = 1

    with pytest.raises(TypeError, match="Local among"):
        key_of(load, Local.A)


def test_a_mistake_is_the_programs_and_no_failure_of_the_dependency() -> None:
    made = Dependency("shop", Fallback("hidden"), Fallback.cached(ttl=60))
    with pytest.raises(TypeError, match="give key="):
        made.call_sync(load, object())
    assert made.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1}


def test_wrong_arguments_are_for_the_function_to_refuse() -> None:
    def strict(product: int) -> int:
        return product

    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        dependency().call_sync(strict, 1, colour=2)


def test_a_function_that_does_not_tell_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    made = dependency()
    assert made.call_sync(max, 1, 2) == made.call_sync(max, 1, 2) == 2
    assert made.call_sync(max, 1, 2, key=None) == 2
    assert made.stats.snapshot().counts["cached"] == 1


# -- functions --------------------------------------------------------------------------------------------------------


def test_functions_have_the_name_by_which_they_are_found() -> None:
    here = __name__
    assert own_name(load) == f"{here}.load"
    assert own_name(Shop) == f"{here}.Shop"
    assert own_name(Shop.price) == f"{here}.Shop.price" == own_name(Other.price)
    assert own_name(Shop.tax) == f"{here}.Shop.tax"
    assert own_name(Shop.of_all.__func__) == f"{here}.Shop.of_all"  # type: ignore[attr-defined]
    assert own_name(decorated) == own_name(decorated.__wrapped__) == f"{here}.decorated"  # type: ignore[attr-defined]
    assert own_name(len) == "builtins.len"


def test_what_only_says_that_it_is_called_so_has_no_name() -> None:
    def local() -> None: ...

    liar = types.FunctionType(load.__code__, globals())
    liar.__qualname__, liar.__module__ = "load", __name__
    for fn in (local, lambda: 1, liar, wrapped, twice, functools.partial(load), {}.get):
        assert own_name(fn) is None


def test_two_wrappers_of_one_function_are_two() -> None:
    """Each may be for another region, and both say that they are called as the function that they wrap."""
    made = dependency()
    assert made.cached is not None
    words = {made.cached.key_of(made.begin(fn, (1,), {}))[0] for fn in (load, wrapped, passed_through(load), passed_through(load))}
    assert len(words) == 4


def test_a_program_is_known_by_its_file_or_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec("def load(): ...", main.__dict__)
    assert own_name(main.load) is None  # typed in
    main.__file__ = "/srv/app.py"
    assert own_name(main.load) == "/srv/app.py.load"
    main.__spec__ = types.SimpleNamespace(name="app.main")  # type: ignore[assignment]
    assert own_name(main.load) == "app.main.load"


def test_functions_without_a_name_are_told_apart_by_what_they_are() -> None:
    made = dependency()
    assert [made.call_sync(lambda n=n: n) for n in range(100)] == list(range(100))
    again = lambda: object.__name__  # noqa: E731
    assert made.call_sync(again) == made.call_sync(again) == "object"
    assert made.stats.snapshot().counts["cached"] == 1


def test_the_place_of_a_function_that_is_gone_is_not_its_name() -> None:
    names, seen, places = Names(), set(), set()
    for _ in range(1000):
        fn = eval("lambda: 0")
        places.add(id(fn))
        seen.add(names.of(fn)[0])
        del fn
    gc.collect()
    assert len(seen) == 1000 > len(places)
    assert len(names._known) == 0


def test_a_name_that_was_there_before_its_function_went_is_not_taken_for_another() -> None:
    names = Names()
    fn = eval("lambda: 0")
    first = names.of(fn)[0]
    other = eval("lambda: 1")
    names._known[id(other)] = names._known[id(fn)]  # as if it had gone unseen, and this one had come in its place
    assert names.of(other)[0] != first


def test_many_threads_give_one_name() -> None:
    for _ in range(50):
        names, fn, begin = Names(), (lambda: 0), threading.Barrier(8)

        def name(_: int, names: Names = names, fn: Any = fn, begin: threading.Barrier = begin) -> str:
            begin.wait(10)
            return names.of(fn)[0]

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(name, range(8)))) == 1


def test_what_cannot_be_followed_has_no_name() -> None:
    with pytest.raises(TypeError, match="wrap it into a function"):
        dependency().call_sync((5).__add__, 1)


def test_what_a_partial_holds_is_an_argument() -> None:
    assert opened(functools.partial(functools.partial(load, 1), 2, x=3), (4,), {"x": 5}) == (load, (1, 2, 4), {"x": 5})
    assert key_of(functools.partial(load, 1)) == key_of(load, 1) != key_of(functools.partial(load, 2))
    made = dependency()
    assert [made.call_sync(functools.partial(load, n % 2)) for n in range(4)] == [0, 1, 0, 1]
    assert made.stats.snapshot().counts["cached"] == 2


# -- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Shop("a").price, Shop("a"), functools.partial(Shop("a").price)])
def test_a_method_needs_a_key(method: Any) -> None:
    with pytest.raises(TypeError, match=r"Shop among the arguments of .* is no key; give key="):
        dependency().call_sync(method, 7)


def test_a_key_is_told_the_object_of_a_method_first() -> None:
    made = dependency(key=lambda shop, product: (shop.name, product))
    ours, theirs = Shop("ours"), Shop("theirs")
    for _ in range(2):
        assert [made.call_sync(shop.price, 7) for shop in (ours, theirs)] == ["ours 7", "theirs 7"]
        assert [made.call_sync(shop, 7) for shop in (ours, theirs)] == ["called ours 7", "called theirs 7"]
    assert made.stats.snapshot().counts["cached"] == 4


def test_methods_of_classes() -> None:
    made = dependency()
    for _ in range(2):
        assert [made.call_sync(kind.of_all, 7) for kind in (Shop, Other)] == ["Shop 7", "Other 7"]
        assert made.call_sync(Shop.tax, 7) == 7
    assert made.stats.snapshot().counts["cached"] == 3


# -- keys of the program's own ----------------------------------------------------------------------------------------


def test_a_key_says_what_counts() -> None:
    made = dependency(key=lambda product, session: product)
    calls: list[int] = []

    def price(product: int, session: object) -> int:
        calls.append(product)
        return product

    assert [made.call_sync(price, n % 2, object()) for n in range(6)] == [0, 1] * 3 and calls == [0, 1]


def test_a_key_tells_no_functions_apart_that_are_told_apart_anyway() -> None:
    made = dependency(key=lambda: "same")
    assert made.call_sync(lambda: 1) == 1 and made.call_sync(lambda: 2) == 2


def test_none_is_no_key() -> None:
    made = dependency(key=lambda product: None if product == 0 else product)
    calls: list[int] = []
    price = made(calls.append)
    for product in (0, 1, 0, 1):
        price(product)
    assert calls == [0, 1, 0]
    assert made.cached is not None
    made.cached.forget_sync(price, 0)


def test_a_key_that_is_none_of_the_kinds_is_named() -> None:
    with pytest.raises(TypeError, match="object was returned by key for"):
        dependency(key=object).call_sync(lambda: 1)


@pytest.mark.parametrize("which", ["key", "partition"])
def test_what_a_function_of_the_program_raises_is_raised(which: str) -> None:
    made = dependency(**{which: lambda *args: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        made.call_sync(load, 1)
    assert made.stats.snapshot().counts["ignored"] == 1


def test_a_key_may_be_the_partition_alone() -> None:
    made = dependency(key="partition")
    calls: list[Any] = []
    price = made(lambda product: calls.append(product) or product)
    for tenant in ("a", "b", "a"):
        with partition(tenant):
            price(object())
    price(1)  # of nobody: not kept
    price(1)
    assert len(calls) == 4


# -- partitions -------------------------------------------------------------------------------------------------------


def whoami(made: Dependency, person: contextvars.ContextVar[str]) -> Any:
    def ask() -> str:
        return person.get()

    return made(ask)


def test_nobody_gets_what_was_made_for_another() -> None:
    person: contextvars.ContextVar[str] = contextvars.ContextVar("person", default="nobody")
    ask = whoami(dependency(), person)

    def as_one(name: str) -> Any:
        with partition(name):
            person.set(name)
            return ask()

    assert ask() == "nobody"
    for _ in range(2):
        assert [contextvars.copy_context().run(as_one, name) for name in ("a", "b", "p")] == ["a", "b", "p"]
    assert ask() == "nobody"


def test_what_was_made_in_a_partition_is_for_no_one_outside() -> None:
    person: contextvars.ContextVar[str] = contextvars.ContextVar("person", default="nobody")
    ask = whoami(dependency(), person)
    with partition("a"):
        token = person.set("a")
        assert ask() == "a"
        person.reset(token)
    assert ask() == "nobody"


def test_a_function_may_say_whose_it_is() -> None:
    made = dependency(partition=lambda user: user["tenant"], key=lambda user: "me")
    me = made(lambda user: user["name"])
    users = [{"tenant": "a", "name": "Ann"}, {"tenant": "b", "name": "Bob"}, {"tenant": "a", "name": "Abe"}]
    assert [me(user) for user in users] == ["Ann", "Bob", "Ann"]
    with pytest.raises(TypeError, match="^partition: expected a function that returns a word or None, got 7"):
        me({"tenant": 7, "name": "Eve"})


def test_it_goes_along_with_carried_work() -> None:
    ask = dependency()(threading.get_ident)
    with partition("a"), ThreadPoolExecutor(1) as pool:
        mine = ask()
        assert pool.submit(carry(ask)).result() == mine != pool.submit(ask).result()


# -- all of it at random: what no cache may ever do -------------------------------------------------------------------

TENANT: contextvars.ContextVar[str | None] = contextvars.ContextVar("tenant", default=None)


async def orders(*args: Any, **kwargs: Any) -> Any:
    await anyio.sleep(0)
    return "orders", args, tuple(kwargs.items()), TENANT.get()


async def invoices(*args: Any, **kwargs: Any) -> Any:
    await anyio.sleep(0)
    return "invoices", args, tuple(kwargs.items()), TENANT.get()


def maker(name: str) -> Any:
    async def made(*args: Any, **kwargs: Any) -> Any:
        await anyio.sleep(0)
        return name, args, tuple(kwargs.items()), TENANT.get()

    return made


FUNCTIONS = {"orders": orders, "invoices": invoices, **{name: maker(name) for name in ("made", "made too")}}
ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    *(((value,), {}) for value in (1, "1", True, [1], (1,), "a#1", "a#2")),
    ((), {}),
    ((), {"a": 1}),
    ((1,), {"a": 1}),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(often(40)))
def test_pitfall_05_keys_with_the_function_and_the_user(seed: int) -> None:
    """Whatever is asked by whom, together and cancelled and forgotten: it is the answer to that question of that person."""
    chance = random.Random(seed)
    made = dependency(ttl=chance.choice([0, 60]), stale_while_revalidate=chance.choice([0, 60]), stale_if_error=60)
    policy: CachedFallback | None = made.cached
    assert policy is not None
    checked = 0

    async def ask() -> None:
        nonlocal checked
        name, (args, kwargs) = chance.choice(list(FUNCTIONS)), chance.choice(ARGUMENTS)
        tenant = chance.choice([None, "a", "b", "pa", "ia"])
        TENANT.set(tenant)
        with partition(tenant), anyio.CancelScope() as scope:
            if chance.random() < 0.1:
                scope.cancel()
            for _ in range(chance.randrange(3)):
                await anyio.sleep(0)
            if chance.random() < 0.05:
                await policy.forget(FUNCTIONS[name], *args, **kwargs)
            answer = await made.call(FUNCTIONS[name], *args, **kwargs)
            assert repr(answer) == repr((name, args, tuple(kwargs.items()), tenant))
            checked += 1

    async def main() -> None:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(30):
                    group.start_soon(ask)

    asyncio.run(main())
    counts = made.stats.snapshot().counts
    assert checked > 200 and counts["failure"] == 0
    assert policy.ttl == 0 or counts["cached"] > 50
