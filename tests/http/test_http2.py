"""HTTP/2, over plain TCP with prior knowledge: what the server says it has not processed may be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from resilient import Retry, Timeout
from resilient.testing import FakeClock, FaultyTransport

from .conftest import Declare
from .servers import Asked, Peer, Server

pytestmark = pytest.mark.anyio


def speaking_h2(*script: str) -> Any:
    """One step a request: "answer", "refuse" and "cancel" (RST_STREAM), "goaway" (with no stream processed), "goaway later"."""
    steps: Iterator[str] = iter(script)

    async def handle(peer: Peer) -> None:
        session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        session.initiate_connection()
        await peer.send(session.data_to_send())
        while data := await peer.reader.read(65536):
            for event in session.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id is not None
                    peer.server.requests.append(Asked("", "", {}))
                    if act(session, event.stream_id, next(steps, "answer")):
                        await peer.send(session.data_to_send())
                        return
            await peer.send(session.data_to_send())

    def act(session: h2.connection.H2Connection, stream: int, step: str) -> bool:
        codes = h2.errors.ErrorCodes
        if step == "refuse":
            session.reset_stream(stream, codes.REFUSED_STREAM)
        elif step == "cancel":
            session.reset_stream(stream, codes.CANCEL)
        elif step.startswith("goaway"):
            session.close_connection(codes.NO_ERROR, last_stream_id=0 if step == "goaway" else stream)
            return True
        else:
            session.send_headers(stream, [(":status", "200")])
            session.send_data(stream, b"fine", end_stream=True)
        return False

    return handle


@pytest.mark.parametrize("library", ["httpx", "httpx2"], indirect=True)
@pytest.mark.parametrize(
    ("script", "answered"),
    [
        (("refuse",), True),
        (("goaway",), True),
        (("refuse", "goaway", "refuse"), False),  # three attempts are all there are
        (("cancel",), False),
        (("goaway later",), False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_ground_16_post_is_sent_again_where_it_was_not_processed(
    library: Any, declare: Declare, script: tuple[str, ...], answered: bool
) -> None:
    with Server(speaking_h2(*script)) as server:
        transport = library.ours.AsyncResilientTransport(
            declare(Timeout(total=5), Retry(random=lambda: 0.0)), http1=False, http2=True, verify=False
        )
        async with library.AsyncClient(transport=transport) as client:
            if answered:
                response = await client.post(server.url, content=b"x")
                assert (response.http_version, response.content) == ("HTTP/2", b"fine")
                assert len(server.requests) == len(script) + 1
            else:
                with pytest.raises(library.RemoteProtocolError):
                    await client.post(server.url, content=b"x")
                assert len(server.requests) == len(script)


def test_ground_16_sync(library: Any, declare: Declare) -> None:
    with Server(speaking_h2("refuse", "goaway")) as server:
        dependency = declare(Timeout(total=5), Retry(random=lambda: 0.0))
        with library.Client(transport=library.ours.ResilientTransport(dependency, http1=False, http2=True, verify=False)) as client:
            assert client.post(server.url, content=b"x").content == b"fine"
    assert len(server.requests) == 3


async def test_many_streams_share_a_connection(library: Any, declare: Declare) -> None:
    """A gate of one place a connection would let one request run at a time."""
    dependency = declare(timeout=5)
    with Server(speaking_h2()) as server:
        transport = library.ours.AsyncResilientTransport(
            dependency, http1=False, http2=True, verify=False, limits=library.Limits(max_connections=1)
        )
        async with library.AsyncClient(transport=transport) as client:
            responses = []

            async def get() -> None:
                responses.append(await client.send(client.build_request("GET", server.url), stream=True))

            with anyio.fail_after(5):
                async with anyio.create_task_group() as group:
                    for _ in range(50):
                        group.start_soon(get)
            assert len(responses) == 50, "all of them open at the same time"
            for response in responses:
                await response.aclose()
        assert server.connections == 1
    assert dependency.bulkhead.in_use == 0


async def test_events_are_read_with_care(library: Any, clock: FakeClock, declare: Declare) -> None:
    """The libraries do not document where they keep the event: nothing else is taken for it."""

    def broken(request: Any) -> Any:
        error = library.RemoteProtocolError("x")
        error.__cause__ = ValueError(object())
        raise error

    inner = FaultyTransport([broken])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(Retry()), inner)) as client:
        with pytest.raises(library.RemoteProtocolError):
            await client.post("http://dep/")
    assert len(inner.requests) == 1
