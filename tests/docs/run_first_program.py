"""Runs docs/examples/first_program.py as its reader would, against two services of its own on free ports.

    python tests/docs/run_first_program.py docs/examples/first_program.py

Needs nothing but what the program itself needs, so that it can be run where only the built wheel and FastAPI are. Exits
with 1 at the first thing that is not as promised.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

CATALOG, RECOMMENDATIONS = "http://127.0.0.1:9001", "http://127.0.0.1:9002"
TIMEOUT = 0.3  # seconds, of the program's recommendations


class Service(BaseHTTPRequestHandler):
    """Answers every GET with JSON, or not at all while `hangs` is set."""

    answer: Any
    hangs: threading.Event
    over: threading.Event

    def do_GET(self) -> None:
        if self.hangs.is_set():
            self.over.wait(10)
            return
        content = json.dumps(self.answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Says nothing: the output is this script's."""


@contextmanager
def service(answer: Any) -> Iterator[tuple[str, type[Service]]]:
    """A service on a free port; yields its URL and its switch."""
    kind = type("Running", (Service,), {"answer": answer, "hangs": threading.Event(), "over": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind
    finally:
        kind.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def load(path: str, urls: dict[str, str]) -> dict[str, Any]:
    """The program's names after it was run, with the ports that it assumes replaced by those of `urls`."""
    with open(path, encoding="utf-8") as file:
        source = file.read()
    for written, real in urls.items():
        assert source.count(written) == 2, f"{path} is expected to name {written} twice"
        source = source.replace(written, real)
    # As a module of its own: FastAPI looks annotations up by the module's name.
    program = type(sys)("first_program")
    sys.modules[program.__name__] = program
    exec(compile(source, path, "exec"), vars(program))
    return vars(program)


async def visit(program: dict[str, Any], recommendations: type[Service]) -> None:
    """Ask the app what its users would, while its recommendations are well and while they hang."""
    transport = httpx.ASGITransport(program["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as user, program["client"]:
        well = await user.get("/product/7")
        assert well.status_code == 200, well.text
        assert well.json() == {"name": "lamp", "recommendations": ["shade", "bulb"]}
        assert "degraded" not in well.headers

        recommendations.hangs.set()
        began = time.monotonic()
        degraded = await user.get("/product/7")
        took = time.monotonic() - began
        assert degraded.status_code == 200, degraded.text
        assert degraded.json() == {"name": "lamp", "recommendations": []}
        assert degraded.headers["degraded"] == "recommendations;level=static"
        assert TIMEOUT <= took < TIMEOUT + 2, f"{took:.3f} s"

        page = (await user.get("/metrics")).text
        assert 'resilient_degraded_responses_total{cause="deadline",feature="recommendations",level="static"} 1.0' in page, page
        assert 'resilient_calls_total{dependency="catalog",outcome="success"} 2.0' in page, page

        for _ in range(10):
            if program["recs"].state == "open":
                break
            await user.get("/product/7")
        took = []
        for _ in range(5):
            began = time.monotonic()
            degraded = await user.get("/product/7")
            took.append(time.monotonic() - began)
            assert degraded.headers["degraded"] == "recommendations;level=static"
        # One of five: on a busy machine any may take long, but none that waits can be quick.
        assert min(took) < TIMEOUT / 2, f"{took} s with the circuit {program['recs'].state}"

        ready = await user.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        assert (await user.get("/livez")).status_code == 200


def main() -> None:
    """Run it all."""
    with service({"name": "lamp"}) as (catalog, _), service(["shade", "bulb"]) as (recommendations, switch):
        program = load(sys.argv[1], {CATALOG: catalog, RECOMMENDATIONS: recommendations})
        asyncio.run(visit(program, switch))
    print("the first program does what the README says")


if __name__ == "__main__":
    main()
