"""Redirects: who follows them, as what, how far, and what is told of the way."""

from __future__ import annotations

from typing import Any

import pytest

from .twins import Web, failure, seen


def test_the_method_that_a_redirect_makes_of_another(unharmed: Any) -> None:
    cases = [(status, method) for status in (301, 302, 303, 307, 308) for method in ("GET", "HEAD", "POST", "DELETE")]

    async def story(web: Web) -> Any:
        told = []
        async with web.client(follow_redirects=True) as client:
            for status, method in cases:
                content = b"body" if method == "POST" else None
                params = {"to": "/echo", "status": status}
                response = await client.request(method, f"{web.url}/redirect", params=params, content=content)
                told.append((seen(response), response.json() if method != "HEAD" else None))
        return told

    for (status, method), (told, answer) in zip(cases, unharmed(story), strict=True):
        assert [hop[0] for hop in told["history"]] == [status]
        if method != "HEAD":
            changed = status in (302, 303) or (status == 301 and method == "POST")
            assert answer["method"] == ("GET" if changed else method)
            assert answer["text"] == ("body" if method == "POST" and not changed else "")


def test_not_followed_unless_asked_for(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client:
            response = await client.get(f"{web.url}/redirect?to=/echo")
            followed = await client.send(response.next_request)
            forced = await client.get(f"{web.url}/redirect?to=/echo", follow_redirects=True)
            return seen(response), seen(followed), seen(forced)

    response, followed, forced = unharmed(story)
    assert response["status"][0] == 302
    assert response["next"] is not None
    assert followed["status"][0] == forced["status"][0] == 200


def test_a_long_way_and_one_that_is_too_long(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(follow_redirects=True, max_redirects=5) as client:
            response = await client.get(f"{web.url}/redirect?to=/echo&left=5")
            with pytest.raises(web.library.TooManyRedirects) as raised:
                await client.get(f"{web.url}/redirect?to=/echo&left=6")
            return seen(response), failure(web.library, raised.value)

    response, error = unharmed(story)
    assert len(response["history"]) == 5
    assert error[0] == "TooManyRedirects"


def test_a_circle(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(follow_redirects=True) as client:
            with pytest.raises(web.library.TooManyRedirects) as raised:
                await client.get(f"{web.url}/redirect?to=/redirect&status=307&left=1000")
            return failure(web.library, raised.value)

    assert unharmed(story)[0] == "TooManyRedirects"


def test_an_address_that_leads_nowhere(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        errors = []
        async with web.client(follow_redirects=True) as client:
            for target in ("http://", "nowhere://x"):
                with pytest.raises(web.library.TransportError) as raised:
                    await client.post(f"{web.url}/redirect", params={"to": target, "status": 307}, content=b"x")
                errors.append(failure(web.library, raised.value)[0])
        return errors

    assert unharmed(story)[1] == "UnsupportedProtocol"


def test_another_origin_is_not_told_the_password(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(follow_redirects=True, headers={"Authorization": "secret", "X-Own": "1"}) as client:
            same = await client.get(f"{web.url}/redirect?to=/echo")
            other = await client.get(f"{web.url}/redirect", params={"to": f"{web.site.elsewhere}/echo"})
            return same.json()["headers"], other.json()["headers"], str(other.url)

    same, other, url = unharmed(story)
    assert same["authorization"] == "secret"
    assert "authorization" not in other and other["x-own"] == "1"
    assert url.startswith("http://localhost")


def test_a_body_that_is_gone_is_not_sent_again(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(follow_redirects=True) as client:
            with pytest.raises(web.library.StreamConsumed) as raised:
                await client.post(f"{web.url}/redirect?to=/echo&status=307", content=web.pieces(b"a", b"b"))
            dropped = await client.post(f"{web.url}/redirect?to=/echo&status=303", content=web.pieces(b"a", b"b"))
            return failure(web.library, raised.value), dropped.json()

    error, dropped = unharmed(story)
    assert error[0] == "StreamConsumed"
    assert (dropped["method"], dropped["size"]) == ("GET", 0)


def test_a_stream_behind_a_redirect(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(follow_redirects=True) as client:
            async with client.stream("GET", f"{web.url}/redirect?to=/stream&left=2") as response:
                lines = [line async for line in response.aiter_lines()]
                return lines, [(hop.status_code, hop.is_closed) for hop in response.history]

    lines, history = unharmed(story)
    assert lines == ["piece 0 ä", "piece 1 ä", "piece 2 ä"]
    assert history == [(302, True), (302, True)]


def test_a_cookie_of_a_hop_is_sent_to_the_next(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(follow_redirects=True) as client:
            response = await client.get(f"{web.url}/redirect?to=/echo&cookie=baked")
            return response.json()["headers"].get("cookie"), dict(client.cookies)

    assert unharmed(story) == ("hop=baked", {"hop": "baked"})
