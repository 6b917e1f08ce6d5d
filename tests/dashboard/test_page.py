"""The page in a real browser: of a real app in a real outage, and of staged documents for what is rare."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from . import audits
from .outage import load, shop, upstream
from .staged import Staged, dependency, document, feature, served

pytestmark = [pytest.mark.slow]

MISSING = "the page is looked at with playwright and a Chromium of the system"
api = pytest.importorskip("playwright.sync_api", reason=MISSING)
expect = api.expect
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
PATIENT = 20_000  # milliseconds, on a busy machine

EVERY = ["isolate", "half_open", "close", "set_level", "clear", "read_only", "read_write", "drain"]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(f"{MISSING}: there is none")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens a page; none may have said anything on the console, but for a server that a test has taken away."""
    said: list[str] = []
    contexts = []

    def go(url: str, *, width: int = 1280, height: int = 800, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENT)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(audits.VIOLATIONS)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(f"{url}/resilience")
        return page

    expect.set_options(timeout=PATIENT)
    yield go
    for context in contexts:
        for page in context.pages:
            said += page.evaluate("window.violations")
        context.close()
    assert [line for line in said if "Failed to load resource" not in line] == []


def row(page: Any, name: str) -> Any:
    return page.locator("#dependencies-table tbody").filter(has=page.get_by_role("button", name=name, exact=True))


def item(page: Any, name: str) -> Any:
    return page.locator("#features-list > li").filter(has=page.locator("strong", has_text=re.compile(f"^{re.escape(name)}$")))


def ill() -> dict[str, Any]:
    now = time.time()
    changed = {"at": now - 40, "old": "closed", "new": "open", "reason": "outage"}
    return document(
        service={"level": "degraded", "ready": True, "status": "ready", "draining": False, "enabled": True, "read_only": None},
        dependencies=[
            dependency("catalog", required=True),
            dependency("reviews", failures=8.0, failure_ratio=0.2),
            dependency("recommendations", state="open", reason="outage", retry_after=90.0, failure_ratio=1.0, last_change=changed),
            dependency("search", state="half-open", reason="stall"),
            dependency("mail", state="isolated", reason="forced"),
        ],
        features=[feature("checkout", critical=True, level="reduced", cause="timeout", needs=["catalog"]), feature("search")],
        controls={"token": "secret", "who": "ada", "actions": EVERY},
    )


def event(number: int, name: str, text: str, severity: str = "info", *, ago: float = 0.0) -> dict[str, Any]:
    about = f"dependency:{name}"
    return {"id": number, "at": time.time() - ago, "kind": "CircuitChanged", "about": about, "text": text, "severity": severity}


# -- a real app ---------------------------------------------------------------------------------------------------------


def test_an_outage_and_its_end_are_seen_live(visit: Visit) -> None:
    with ExitStack() as stack, served(upstream()) as catalog:
        reviews = stack.enter_context(served(upstream()))
        app, _ = shop(catalog, reviews)
        with served(app) as url, load(f"{url}/product"):
            page = visit(url)
            expect(page.locator("#connection")).to_have_text(re.compile("Live"))
            expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Healthy"))
            expect(row(page, "reviews").locator(".word")).to_have_text("Closed")
            expect(row(page, "reviews").locator("td").first).not_to_have_text(re.compile("^[0–]"))  # it is called
            expect(page.locator("#worker")).to_have_text(re.compile(r"worker \S+:\d+, up "))
            assert page.get_by_role("button", name="Isolate").count() == 0  # no controls unless somebody is authorized

            stack.close()
            expect(row(page, "reviews").locator(".word")).to_have_text(re.compile("Open|Half-open"))
            expect(row(page, "catalog").locator(".word")).to_have_text("Closed")
            expect(page.locator("#dependencies-table tbody").first).to_have_attribute("data-name", "reviews")
            expect(page.locator("#reasons")).to_contain_text(re.compile("reviews is (open|half-open)"))
            expect(item(page, "reviews").locator(".word")).to_have_text("Static")
            expect(page.locator("#events-list")).to_contain_text("closed -> open")

            with served(upstream(), int(reviews.rpartition(":")[2])):
                expect(row(page, "reviews").locator(".word")).to_have_text("Closed")
                expect(page.locator("#events-list")).to_contain_text("half-open -> closed")


def test_another_life_of_the_server_is_found_and_told(visit: Visit) -> None:
    with served(upstream()) as catalog:
        with served(shop(catalog, "http://127.0.0.1:9")[0]) as url:
            page = visit(url)
            expect(page.locator("#connection")).to_have_text(re.compile("Live"))
        expect(page.locator("#connection")).to_have_text(re.compile("Reconnecting"))
        with served(shop(catalog, "http://127.0.0.1:9")[0], int(url.rpartition(":")[2])):
            expect(page.locator("#connection")).to_have_text(re.compile("Live"))
            expect(page.locator("#events-list")).to_contain_text("this page shows worker")


def test_every_control_is_used_and_told(visit: Visit) -> None:
    asked: list[str] = []

    async def authorize(request: Request) -> str | None:
        asked.append(request.method)
        return None if "stranger" in request.headers.get("cookie", "") and request.method == "POST" else "ada"

    with served(upstream()) as catalog, served(upstream()) as reviews:
        app, resilience = shop(catalog, reviews, authorize=authorize, prefix="/internal")
        with served(app) as url:
            page = visit(f"{url}/internal")

            def order(place: Any, button: str, confirm: str, why: str = "an exercise", **fields: str) -> None:
                place.get_by_role("button", name=button).click()
                dialog = page.get_by_role("dialog")
                for field, value in fields.items():
                    dialog.get_by_label(field).select_option(value)
                dialog.get_by_label("Reason").fill(why)
                dialog.get_by_role("button", name=confirm).click()
                expect(dialog).to_be_hidden()

            reviews_row = row(page, "reviews")
            reviews_row.get_by_role("button", name="reviews", exact=True).click()
            order(reviews_row, "Isolate", "Isolate")
            expect(reviews_row.locator(".word")).to_have_text("Isolated")
            expect(page.locator("#outcome")).to_contain_text("isolate reviews: done")
            expect(page.locator("#events-list")).to_contain_text("ada: an exercise")
            order(reviews_row, "Half-open", "Half-open")
            expect(reviews_row.locator(".word")).to_have_text("Half-open")
            order(reviews_row, "Close", "Close the circuit")
            expect(reviews_row.locator(".word")).to_have_text("Closed")
            order(item(page, "reviews"), "Set level", "Set the level", Level="off", **{"For how long": "15 minutes"})
            expect(item(page, "reviews").locator(".word")).to_have_text("Off")
            expect(item(page, "reviews").locator(".orders")).to_have_text(re.compile("ordered off, ada: an exercise, until "))
            order(item(page, "reviews"), "Clear", "Take it back")
            expect(item(page, "reviews").locator(".orders li")).to_have_count(0)
            order(page.locator("#headline"), "Read-only", "Refuse writes")
            expect(page.locator("#reasons")).to_contain_text("read-only: writes are refused, ada: an exercise")
            order(page.locator("#headline"), "Take writes again", "Take writes")
            expect(page.locator("#reasons")).not_to_contain_text("read-only")
            assert resilience.writes.stop is None and resilience.dependencies["reviews"].state == "closed"

            page.context.add_cookies([{"name": "who", "value": "stranger", "url": url}])
            reviews_row.get_by_role("button", name="Isolate").click()
            page.get_by_label("Reason").fill("let me")
            page.get_by_role("dialog").get_by_role("button", name="Isolate").click()
            expect(page.get_by_role("alert")).to_contain_text("Refused (403)")
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_be_hidden()
            assert resilience.dependencies["reviews"].state == "closed" and "POST" in asked


# -- staged documents ---------------------------------------------------------------------------------------------------


def test_numbers_that_are_old_are_never_shown_as_live(visit: Visit) -> None:
    staged = Staged(ill())
    with served(staged.app("")) as url:
        page = visit(url)
        expect(page.locator("#connection")).to_have_text(re.compile("Live"))
        expect(page.locator("html")).to_have_attribute("data-stale", "false")
    page.clock.install()
    page.clock.fast_forward(7_000)
    expect(page.locator("html")).to_have_attribute("data-stale", "true")
    expect(page.locator("#connection")).to_have_text(re.compile(r"Stale since \d\d:\d\d:\d\d"))
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Degraded \d+ s ago"))
    assert page.title().startswith("Stale")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(audits.FAINT)["faint"] == []


def test_without_a_stream_the_state_is_polled_until_there_is_one(visit: Visit) -> None:
    staged = Staged(ill())
    staged.streaming = False
    with served(Starlette(routes=[Mount("/proxied", staged.app("/internal"))])) as url:  # under whatever path
        page = visit(f"{url}/proxied/internal")
        expect(page.locator("#connection")).to_have_text(re.compile("Polling"))
        staged.state["dependencies"][1]["calls"] = 777.0
        expect(row(page, "reviews")).to_contain_text("777")
        # Workers that answer in turn: the page stays with the one that it shows.
        first, staged.state["worker"] = staged.state["worker"], {**staged.state["worker"], "pid": 18, "id": "shop:18"}
        with page.expect_response(re.compile("/state$")):
            pass
        staged.state["worker"] = first
        staged.streaming = True
        expect(page.locator("#connection")).to_contain_text("Live")
        expect(page.locator("#events-list")).not_to_contain_text("this page shows worker")
        staged.status = 403
        staged.streaming = False
        expect(page.locator("#connection")).to_contain_text("you may not read this (403)")


def test_rows_are_changed_in_place_and_only_where_something_changed(visit: Visit) -> None:
    many = [dependency(f"d{number:03}") for number in range(300)]
    staged = Staged(document(dependencies=many, features=[feature("search")]))
    with served(staged.app("")) as url:
        page = visit(url)
        expect(page.locator("#dependencies-count")).to_have_text("300")
        page.evaluate(audits.WATCH)
        page.evaluate("window.first = document.querySelector('tbody[data-name=d007]')")
        for calls in (501.0, 502.0, 503.0):
            many[7]["calls"] = calls
            expect(row(page, "d007")).to_contain_text(f"{calls:.0f}")
        assert page.evaluate("window.first.isConnected && [window.made, window.spoken].join()") == "0,0"  # numbers are no news
        many[150].update(state="open", reason="outage")
        expect(page.locator("#announcer")).to_have_text("d150 Open.")
        expect(page.locator("#dependencies-table tbody").first).to_have_attribute("data-name", "d150")
        assert page.evaluate("window.made") < 10  # one row was moved, and its words were written


def test_dependencies_and_events_are_filtered(visit: Visit) -> None:
    staged = Staged(ill())
    kinds = [("catalog", "info", "open -> closed"), ("reviews", "bad", "closed -> open"), ("search", "warning", "open -> half-open")]
    staged.events = [event(number, name, text, how, ago=900 - number) for number, (name, how, text) in enumerate(kinds * 200, 1)]
    with served(staged.app("")) as url:
        page = visit(url)
        shown = page.locator("#dependencies-table tbody:visible")
        expect(shown).to_have_count(5)
        assert [one.get_attribute("data-name") for one in shown.all()] == ["recommendations", "mail", "search", "reviews", "catalog"]
        page.get_by_label("In trouble only").check()
        expect(shown).to_have_count(4)
        page.get_by_label("Find a dependency").fill("RE")
        expect(shown).to_have_count(2)
        expect(page.locator("#dependencies-count")).to_have_text("2 of 5")
        page.get_by_label("Find a dependency").fill("nobody")
        expect(page.locator("#dependencies-none")).to_have_text("No dependency has such a name.")
        page.locator("#headline").get_by_role("button", name="search").click()  # what it leads to is shown, whatever is filtered
        expect(row(page, "search").get_by_text("Last change")).to_be_visible()
        page.get_by_label("Order of the dependencies").select_option("By name")
        expect(shown.first).to_have_attribute("data-name", "catalog")

        lines = page.locator("#events-list li:visible")
        expect(page.locator("#events-count")).to_have_text("300")  # of 600: they are bounded
        page.get_by_label("Which events").select_option("Bad only")
        expect(lines).to_have_count(100)
        page.get_by_label("Which events").select_option("All")
        row(page, "search").get_by_role("button", name="Its events").click()
        expect(lines).to_have_count(100)
        expect(lines.first).to_contain_text("search open -> half-open")
        staged.events.append(event(601, "search", "half-open -> closed"))
        expect(lines.first).to_contain_text("search half-open -> closed")


def test_names_from_outside_are_text_wherever_they_are_shown(visit: Visit) -> None:
    level = {"level": HOSTILE, "by": HOSTILE, "why": HOSTILE, "until": None, "tenant": HOSTILE, "share": 0.5}
    change = {"at": time.time(), "old": HOSTILE, "new": HOSTILE, "reason": HOSTILE}
    facts = {"reason": HOSTILE, "origin": HOSTILE, "last_change": change, "policies": [HOSTILE], "state": HOSTILE}
    names = [HOSTILE, "'\"></script><script>alert(2)</script>", "__proto__", "javascript:alert(3)"]
    staged = Staged(
        document(
            worker={"host": HOSTILE, "pid": HOSTILE, "started": 0, "id": HOSTILE},
            dependencies=[dependency(name, **facts) for name in names],
            features=[feature(HOSTILE, level=HOSTILE, cause=HOSTILE, by=HOSTILE, why=HOSTILE, needs=[HOSTILE], orders=[level])],
            checks=[{"name": HOSTILE, "state": "ill", "reason": HOSTILE, "age": 1.0, "required": True, "dependency": HOSTILE}],
            controls={"token": "t", "who": HOSTILE, "actions": EVERY},
        )
    )
    staged.state["service"].update(level=HOSTILE, status=HOSTILE, read_only={"by": HOSTILE, "why": HOSTILE, "until": None, "enforce": True})
    staged.state["load"].update(shed=3.0, shed_by={HOSTILE: 3.0})
    staged.events = [{**event(1, HOSTILE, HOSTILE, HOSTILE), "kind": HOSTILE}]
    staged.answer = (409, {"detail": HOSTILE})
    with served(staged.app("")) as url:
        page = visit(url)
        expect(page.locator("#events-list li")).to_contain_text(HOSTILE)
        expect(page.locator("#reasons")).to_contain_text(f"check {HOSTILE} is ill (required, of {HOSTILE}, {HOSTILE})")
        for name in names:
            row(page, name).get_by_role("button", name=name, exact=True).click()
        row(page, HOSTILE).get_by_role("button", name="Isolate").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"Isolate {HOSTILE}?")
        page.get_by_label("Reason").fill(HOSTILE)
        page.get_by_role("dialog").get_by_role("button", name="Isolate").click()
        expect(page.get_by_role("alert")).to_contain_text(HOSTILE)
        assert page.locator("img, iframe, object, body script, [onerror], [onclick], a[href^=javascript]").count() == 0
        assert page.locator("script").count() == 1
    (order, headers), *_ = staged.orders
    assert order == {"action": "isolate", "name": HOSTILE, "why": HOSTILE} and headers["x-resilient-token"] == "t"


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    staged = Staged(ill())
    with served(staged.app("")) as url:
        page = visit(url)
        expect(row(page, "mail")).to_be_visible()

        def focused() -> str:
            return str(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))

        def tab_to(text: str) -> None:
            for _ in range(40):
                if focused() == text:
                    return
                page.keyboard.press("Tab")
                assert page.evaluate(audits.OUTLINE) >= 2, f"the focus is not seen on {focused()}"
            raise AssertionError(f"Tab does not lead to {text}")

        page.keyboard.press("Tab")
        assert focused() == "Skip to the dependencies"
        page.keyboard.press("Enter")
        tab_to("recommendations")  # the worst one first
        page.keyboard.press("Enter")
        expect(page.locator(":focus")).to_have_attribute("aria-expanded", "true")
        tab_to("Close…")
        page.keyboard.press("Enter")
        assert focused() == "dialog-why"
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert focused() == "Close…"  # where it was before
        page.keyboard.press("Enter")
        tab_to("Close the circuit")
        page.keyboard.press("Enter")  # without a reason nothing is sent
        expect(page.get_by_role("dialog")).to_be_visible()
        assert staged.orders == [] and focused() == "dialog-why"
        page.keyboard.type("it is back")
        tab_to("Close the circuit")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        # The row that has the focus keeps it while others move around it.
        staged.state["dependencies"][0].update(state="open", reason="outage")
        expect(page.locator("#dependencies-table tbody").first).to_have_attribute("data-name", "catalog")
        assert focused() == "Close…"
        page.locator("#headline").get_by_role("button", name="Drain").focus()
        page.keyboard.press("Enter")
        page.keyboard.type("a new release")
        tab_to("Drain this worker")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
    assert [order for order, _ in staged.orders] == [
        {"action": "close", "name": "recommendations", "why": "it is back"},
        {"action": "drain", "why": "a new release"},
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_heard_in_both_colour_schemes(visit: Visit, scheme: str) -> None:
    staged = Staged(ill())
    staged.state["load"].update(shed=3.0, shed_by={"sheddable": 3.0}, lag=0.4)
    staged.events = [event(number, "mail", "so", severity) for number, severity in enumerate(("info", "warning", "bad"))]
    with served(staged.app("")) as url:
        page = visit(url, color_scheme=scheme, reduced_motion="reduce")
        expect(page.locator("#events-list li")).to_have_count(3)
        row(page, "recommendations").get_by_role("button", name="recommendations").click()
        looked = page.evaluate(audits.FAINT)
        assert looked["faint"] == [] and looked["seen"] > 100
        assert page.evaluate(audits.NAMELESS) == []
        levels = page.evaluate(audits.HEADINGS)
        assert levels[0] == 1 and levels.count(1) == 1 and all(later - level <= 1 for level, later in pairwise(levels))
        assert [page.locator(name).count() for name in ("main", "header", "[aria-live=polite]")] == [1, 1, 1]
        assert page.get_by_role("columnheader").count() == 9 and page.get_by_role("rowheader").count() == 5
        expect(page.get_by_role("img", name="Calls per second to catalog, last 5 minutes: now 40")).to_be_visible()
        moving = "[...document.querySelectorAll('*')].some((one) => getComputedStyle(one).animationName !== 'none')"
        assert page.evaluate(moving) is False
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for _ in range(1 if scheme == "light" else 2):  # auto, dark, light
            page.get_by_role("button", name="Theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert page.evaluate(audits.FAINT)["faint"] == []
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before  # the choice is kept


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(visit: Visit, width: int) -> None:
    staged = Staged(ill())
    long = "a-dependency-whose-name-is-as-long-as-a-name-may-be-" * 2
    staged.state["dependencies"].append(dependency(long, state="open", policies=["Timeout(" + "total=1," * 30 + ")"]))
    staged.state["features"].append(feature("f" * 64, level="off", needs=[long], by="b" * 200, why="w" * 200))
    staged.events = [event(1, long, "t" * 300, "bad")]
    with served(staged.app("")) as url:
        page = visit(url, width=width, height=740)
        row(page, long).get_by_role("button", name=long).click()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(audits.WIDE) == []
        expect(row(page, "catalog").get_by_role("cell").first).to_be_attached()  # a table still, for those who hear it
        item(page, "search").get_by_role("button", name="Set level").click()
        box = page.get_by_role("dialog").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 740


def test_the_page_is_small_and_needs_nobody_else() -> None:
    page = [file for file in (files("resilient.dashboard") / "page").iterdir() if file.is_file()]
    assert sum(len(file.read_bytes()) for file in page) < 100_000
    text = "".join(file.read_text() for file in page)
    assert set(re.findall(r"https?://[^\s'\"]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches
    assert [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=") if word in text] == []
