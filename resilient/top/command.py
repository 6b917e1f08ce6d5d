"""The command line of `resilient top`."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from .condition import troubled
from .feed import Feed, FeedError, News, dashboard_url
from .keys import keys
from .screen import Screen, event_line
from .view import ORDERS, View, unreachable

__all__ = ["top"]

GAP = 0.25  # seconds between two looks at the keys
SORTS = {"t": "trouble", "n": "name", "c": "calls", "l": "p99"}
MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10}
HINT = "q quit   sort: t trouble, n name, c calls, l latency   up, down"
LOOK = 1.0  # seconds between two looks that make a rate
WIDE = 120  # columns of what is no terminal


def _header(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for value in values:
        name, colon, content = value.partition(":")
        content = content.strip()
        if not colon or not name or any(not letter.isprintable() for letter in value) or not name.isascii() or " " in name:
            raise click.BadParameter("expected a name and a value, such as 'Authorization: Bearer ...'")
        headers[name] = content
    return headers


@click.command()
@click.argument("url", metavar="URL")
@click.option("--once", is_flag=True, help="Print one frame, and say by the exit code how the service is.")
@click.option("--json", "as_json", is_flag=True, help="Write the state as JSON: one with --once, else a line for each.")
@click.option("--strict", is_flag=True, help="With --once: any trouble counts, whatever the service's own level says.")
@click.option("--sort", type=click.Choice(list(ORDERS)), default="trouble", show_default=True, help="Order of the dependencies.")
@click.option("--header", "headers", multiple=True, callback=_header, help="Sent along, as 'Authorization: Bearer ...'; may be repeated.")
def top(*, url: str, once: bool, as_json: bool, strict: bool, sort: str, headers: dict[str, str]) -> None:
    """Show a service at work, as its dashboard tells it.

    URL is the address of a service that has `install(app, dashboard=True)`: http://127.0.0.1:8000, with its prefix if it has
    one. With --once it exits with 0 if the service is healthy and ready, with 1 if it is not; with 2, always, where it can't be
    read.
    """
    stop = threading.Event()
    console = Console(highlight=False)
    try:
        feed = Feed(dashboard_url(url), headers, wait=stop.wait)
        if console.is_terminal and not once and not as_json:
            _live(feed, console, stop, sort)
            return
        with contextlib.closing(feed):
            if once:
                raise SystemExit(_once(feed, stop, sort, as_json=as_json, strict=strict))
            _lines(feed, sort, as_json=as_json)
    except FeedError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None  # Ctrl-C is how one leaves


def _rateless(document: dict[str, Any]) -> bool:
    """Whether nobody has looked for so long that there are no rates: they are of the time between two looks."""
    load = document.get("load")
    return isinstance(load, dict) and load.get("requests") is None


def _once(feed: Feed, stop: threading.Event, sort: str, *, as_json: bool, strict: bool) -> int:
    document = feed.state()
    if _rateless(document):
        stop.wait(LOOK)
        document = feed.state()
    if as_json:
        click.echo(_dumped(document, indent=2))
    else:
        view, now = View(), time.monotonic()
        view.take(News("state", document), now)
        screen = Screen(view, feed.url)
        screen.order = sort
        console = _plain()
        console.print(screen.draw(now, console.width))
    service = document["service"]
    well = service.get("level") == "healthy" and service.get("ready") is not False
    return 0 if well and not (strict and troubled(document)) else 1


def _lines(feed: Feed, sort: str, *, as_json: bool) -> None:
    """For what is no terminal: a frame, and then a line for each thing that happens."""
    view, console = View(), _plain()
    screen = Screen(view, feed.url)
    screen.order, phase = sort, ""
    for news in feed.news():
        first = view.document is None
        events = view.take(news, time.monotonic())
        if news.what == "lost" and unreachable(news.value, view):
            raise news.value
        if as_json:
            if news.what == "state":
                click.echo(_dumped(news.value))
            continue
        if news.what == "state" and first:
            console.print(screen.draw(time.monotonic(), console.width))
        else:
            for event in events:
                console.print(event_line(event), soft_wrap=True)
        if view.phase != phase and view.why:
            console.print(f"{view.phase}: {view.why}", markup=False, soft_wrap=True)
        phase = view.phase


def _live(feed: Feed, console: Console, stop: threading.Event, sort: str) -> None:
    view = View()
    screen = Screen(view, feed.url)
    screen.order = sort
    heard: queue.Queue[News] = queue.Queue(maxsize=1000)
    threading.Thread(target=_listen, args=(feed, heard), daemon=True).start()
    drawn: tuple[Any, ...] = ()
    with _setting(stop), keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            key = pressed(GAP)
            if key == "q":
                return
            screen.order = SORTS.get(key, screen.order)
            screen.offset += MOVES.get(key, 0)
            changed = bool(key) or _take(heard, view)
            now, size = time.monotonic(), console.size
            if changed or drawn != (size, int(now)):
                drawn = (size, int(now))
                live.update(screen.draw(now, size.width, size.height, HINT), refresh=True)


@contextlib.contextmanager
def _setting(stop: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        stop.set()


def _listen(feed: Feed, heard: queue.Queue[News]) -> None:
    """In a thread of its own, which alone touches the feed: it gives it back too, at the next thing that is heard."""
    with contextlib.closing(feed):
        for news in feed.news():
            heard.put(news)


def _take(heard: queue.Queue[News], view: View) -> bool:
    """Whether there was anything.

    Raises:
        FeedError: nothing was ever read, and another try would end the same way.
    """
    taken = False
    while not heard.empty():
        news = heard.get_nowait()
        view.take(news, time.monotonic())
        if news.what == "lost" and unreachable(news.value, view):
            raise news.value
        taken = True
    return taken


def _dumped(document: dict[str, Any], indent: int | None = None) -> str:
    """Without the token that controls need: what is written is kept, and shown to others."""
    return json.dumps({name: value for name, value in document.items() if name != "controls"}, indent=indent)


def _plain() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=console.width if console.width != 80 else WIDE)
