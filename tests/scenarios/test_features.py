"""A shop whose dependencies die in turn and in pairs, under load, in virtual time: only what needs them degrades."""

from __future__ import annotations

import itertools
import re
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resilient import Level, Resilience, chain
from resilient.events import FeatureChanged
from resilient.testing import FakeClock, RecordingListener

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

RATE = 6  # requests a second
BEGUN, HEALED, ENDED = 3.0, 12.0, 36.0
NEEDS = {
    "recommendations": {"recs"},
    "reviews": {"reviews"},
    "offers": {"prices", "recs"},
    "search": {"search"},
    "bundles": {"prices", "recs"},  # by way of another feature
}
LEVELS = {"recommendations": "static", "reviews": "static", "offers": "reduced", "search": "static"}
DEPENDENCIES = ("recs", "reviews", "prices", "search")
CASES = [(name,) for name in DEPENDENCIES] + list(itertools.combinations(DEPENDENCIES, 2))


class World:
    """The dependencies, as they are: well, or dead in one of three ways."""

    def __init__(self, library: Any, clock: FakeClock) -> None:
        self.library = library
        self.clock = clock
        self.dead: dict[str, str] = {}

    async def handle_async_request(self, request: Any) -> Any:
        await anyio.sleep(0.02)
        how = self.dead.get(request.url.host)
        if how == "hangs":
            await anyio.sleep_forever()
        if how == "refuses":
            raise self.library.ConnectError("refused")
        return self.library.Response(503 if how == "fails" else 200, json="own")

    async def aclose(self) -> None:
        """Nothing is open."""


def shop(world: World, listener: RecordingListener) -> tuple[Resilience, Any, Any]:
    """The app, and the client that its features use."""
    library = world.library
    resilience = Resilience(clock=world.clock, listeners=[listener])
    needs = {name: resilience.dependency(name, origin=f"http://{name}", timeout=0.3) for name in DEPENDENCIES}
    client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience, world))

    async def ask(*names: str) -> str:
        for name in names:
            (await client.get(f"http://{name}/")).raise_for_status()
        return "own"

    def stored() -> str:
        raise KeyError("nothing is")

    @resilience.feature("recommendations", needs=[needs["recs"]], fallback="default")
    async def recommendations() -> str:
        return await ask("recs")

    @resilience.feature("reviews", needs=[needs["reviews"]], fallback=chain(stored, "default"))
    async def reviews() -> str:
        return await ask("reviews")

    offers_feature = resilience.feature("offers", needs=[needs["prices"], needs["recs"]], fallback=lambda: "default")

    @offers_feature
    async def offers() -> str:
        return await ask("prices", "recs")

    @resilience.feature("search", needs=[needs["search"]], fallback="default", critical=True)
    async def search() -> str:
        return await ask("search")

    resilience.feature("bundles", needs=[offers_feature], fallback="default")

    async def page(request: Request) -> Response:
        answers: dict[str, str] = {}

        async def put(name: str, use: Any) -> None:
            answers[name] = await use()

        async with anyio.create_task_group() as group:
            for name, use in (("recommendations", recommendations), ("reviews", reviews), ("offers", offers), ("search", search)):
                group.start_soon(put, name, use)
        return JSONResponse(answers)

    app = Starlette(routes=[Route("/", page)])
    resilience.install(app, trusted=lambda scope: True)
    return resilience, app, client


class Watched:
    """What users and the orchestrator saw, and when."""

    def __init__(self) -> None:
        self.pages: list[tuple[float, float, dict[str, str], dict[str, str]]] = []  # asked, answered, body, Degraded
        self.ready: list[tuple[float, int, dict[str, Any]]] = []


async def watch(world: World, app: Any, plan: list[tuple[float, dict[str, str]]], until: float) -> Watched:
    """Users come at a steady rate while `plan` says what is dead from when on."""
    library, clock, seen, start = world.library, world.clock, Watched(), world.clock.now()

    async def user(user_client: Any, at: float) -> None:
        await anyio.sleep(at)
        asked = clock.now() - start
        answer = await user_client.get("/")
        assert answer.status_code == 200
        degraded = dict(re.findall(r"([a-z]+);level=(\w+)", answer.headers.get("degraded", "")))
        seen.pages.append((asked, clock.now() - start, answer.json(), degraded))

    async def orchestrator(user_client: Any, at: float) -> None:
        await anyio.sleep(at)
        answer = await user_client.get("/readyz?verbose")
        seen.ready.append((at, answer.status_code, answer.json()))

    async def fate(at: float, dead: dict[str, str]) -> None:
        await anyio.sleep(at)
        world.dead = dead

    async with (
        library.AsyncClient(transport=library.ASGITransport(app), base_url="http://shop") as user_client,
        anyio.create_task_group() as group,
    ):
        for at, dead in plan:
            group.start_soon(fate, at, dead)
        for number in range(int(until * RATE)):
            group.start_soon(user, user_client, number / RATE)
        for number in range(int(until * 2)):
            group.start_soon(orchestrator, user_client, number / 2 + 0.001)
    return seen


# Clients and loops differ in nothing that these look at: each is met with each, rather than all of them with every case.
WORLDS = list(itertools.product(["asyncio", "trio"], ["httpx", "httpx2"]))


@pytest.mark.parametrize(
    ("dead", "anyio_backend", "library"),
    [
        pytest.param(dead, *world, id="-".join(["+".join(dead), *world]))
        for dead, world in zip(CASES, itertools.cycle(WORLDS), strict=False)
    ],
    indirect=["anyio_backend", "library"],
)
async def test_only_what_needs_the_dead_degrades_and_all_of_it_recovers(
    dead: tuple[str, ...], anyio_backend: Any, library: Any, clock: FakeClock, listener: RecordingListener
) -> None:
    how = itertools.islice(itertools.cycle(["refuses", "hangs", "fails"]), CASES.index(dead), None)
    world = World(library, clock)
    resilience, app, client = shop(world, listener)
    start = clock.now()
    seen = await watch(world, app, [(BEGUN, {name: next(how) for name in dead}), (HEALED, {})], ENDED)
    ill = {feature for feature, needs in NEEDS.items() if needs & set(dead)}
    shown = ill & LEVELS.keys()

    for asked, answered, body, degraded in seen.pages:
        assert set(degraded) <= shown, "nothing else is ever touched"
        assert {feature for feature, value in body.items() if value == "default"} == set(degraded), "each response says so, and exactly so"
        assert degraded == {feature: LEVELS[feature] for feature in degraded}
        assert answered - asked < 0.7
        if BEGUN + 0.02 < asked < HEALED - 0.3:
            assert set(degraded) == shown
        if not BEGUN - 0.3 < asked < HEALED + 6:
            assert not degraded, f"asked at {asked}"

    falls = {event.feature: event for event in listener.of(FeatureChanged) if event.old == "full"}
    assert set(falls) == ill
    assert all(event.at - start - BEGUN <= 1.0 for event in falls.values())
    for name in ill:
        steps = [event for event in listener.of(FeatureChanged) if event.feature == name]
        severities = [Level(event.new).severity for event in steps]
        worst = severities.index(max(severities))
        assert severities[: worst + 1] == sorted(severities[: worst + 1]), "it falls,"
        assert severities[worst:] == sorted(severities[worst:], reverse=True), "and then it rises, and that is all"
        assert all(later.at - earlier.at > 1 - 1e-6 for earlier, later in itertools.pairwise(steps))
        assert steps[-1].at - start >= HEALED + 10 - 0.5

    for at, status, document in seen.ready:
        assert (status, document["status"]) == (200, "ready"), "all replicas share the dependency"
        if BEGUN + 3 < at < HEALED:
            assert {one["dependency"] for one in document["down"]} == set(dead)
            assert {name for name, level in document["features"].items() if level != "full"} == ill
            assert document["service"] == ("degraded" if "search" in dead else "healthy")
    assert seen.ready[-1][2]["down"] == []
    assert set(seen.ready[-1][2]["features"].values()) == {"full"}
    assert resilience.level == "healthy"
    await client.aclose()


@pytest.mark.parametrize(
    ("period", "anyio_backend", "library"),
    [(0.4, "asyncio", "httpx"), (1.6, "trio", "httpx2"), (5.0, "trio", "httpx")],
    indirect=["anyio_backend", "library"],
)
async def test_faults_that_come_and_go_do_not_make_a_feature_flap(
    period: float, anyio_backend: Any, library: Any, clock: FakeClock, listener: RecordingListener
) -> None:
    world = World(library, clock)
    resilience, app, client = shop(world, listener)
    times = [number * period / 2 for number in range(2 * int(20 / period))]
    plan: list[tuple[float, dict[str, str]]] = [(at, {"recs": "refuses"} if number % 2 else {}) for number, at in enumerate(times)]
    await watch(world, app, [*plan, (20.0, {})], 45.0)
    changed: dict[str, list[str]] = {}
    for event in listener.of(FeatureChanged):
        changed.setdefault(event.feature, []).append(event.new)
    assert changed == {"recommendations": ["static", "full"], "offers": ["reduced", "full"], "bundles": ["reduced", "full"]}
    assert {feature.level for feature in resilience.features.values()} == {"full"}
    await client.aclose()
