"""Authentication: flows that ask once, twice, or look at the answer, and where credentials come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .twins import Web, seen
from .website import PASSWORD, USER


def test_basic(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        pair, url = (USER, PASSWORD), f"{web.url}/basic"
        named = url.replace("http://", f"http://{USER}:{PASSWORD.replace(':', '%3A')}@")
        async with web.client(auth=pair) as client:
            known = [await client.get(url), await client.get(url, auth=None), await client.get(url, auth=(USER, "no"))]
        async with web.client() as client:
            new = [await client.get(url), await client.get(url, auth=pair), await client.get(named)]
            new.append(await client.post(url, content=b"x", auth=web.library.BasicAuth(*pair)))
        return [seen(response) for response in known + new]

    assert [told["status"][0] for told in unharmed(story)] == [200, 401, 401, 401, 200, 200, 200]


@pytest.mark.parametrize("content", [None, b"x" * 100_000], ids=["", "body"])
def test_digest(unharmed: Any, content: bytes | None) -> None:
    """Two requests for the first answer, one for each that follows; `nc` counts them."""

    async def story(web: Web) -> Any:
        auth = web.library.DigestAuth(USER, PASSWORD)
        async with web.client(auth=auth) as client:
            answers = [await client.post(f"{web.url}/digest?x=1", content=content) for _ in range(3)]
            return [(answer.status_code, answer.json(), [hop.status_code for hop in answer.history]) for answer in answers]

    told = unharmed(story)
    size = len(content or b"")
    assert [answer["nc"] for _, answer, _ in told] == ["00000001", "00000002", "00000003"]
    assert all((status, answer["size"]) == (200, size) for status, answer, _ in told)


def test_digest_with_the_wrong_password(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(auth=web.library.DigestAuth(USER, "no")) as client:
            response = await client.get(f"{web.url}/digest")
            return response.status_code, response.text, len(response.history)

    assert unharmed(story)[0] == 401


def test_digest_of_a_body_that_is_gone(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(auth=web.library.DigestAuth(USER, PASSWORD)) as client:
            with pytest.raises(web.library.StreamConsumed):
                await client.post(f"{web.url}/digest", content=web.pieces(b"a"))
            return True

    assert unharmed(story)


@pytest.mark.parametrize("reads", [True, False], ids=["reads the answer", "looks at the status"])
def test_a_flow_of_ones_own(unharmed: Any, reads: bool) -> None:
    async def story(web: Web) -> Any:
        class Token(web.library.Auth):  # type: ignore[misc, name-defined]
            requires_response_body = reads
            requires_request_body = reads

            def auth_flow(self, request: Any) -> Any:
                response = yield request
                if response.status_code == 401:
                    request.headers["x-token"] = response.json()["token"] if reads else "t-1"
                    yield request

        async with web.client(auth=Token(), follow_redirects=True) as client:
            direct = await client.post(f"{web.url}/token", content=b"data")
            behind = await client.get(f"{web.url}/redirect?to=/token")
            async with client.stream("GET", f"{web.url}/token") as response:
                await response.aread()
                return seen(direct), seen(behind), seen(response)

    for told in unharmed(story):
        assert told["status"][0] == 200
        assert told["request"][2]


def test_a_function_as_a_flow(unharmed: Any) -> None:
    def sign(request: Any) -> Any:
        request.headers["x-signed"] = str(len(request.content))
        return request

    async def story(web: Web) -> Any:
        async with web.client(auth=sign) as client:
            return (await client.post(f"{web.url}/echo", content=b"four")).json()["headers"]["x-signed"]

    assert unharmed(story) == "4"


def test_netrc(unharmed: Any, tmp_path: Path) -> None:
    secrets = tmp_path / "netrc"
    secrets.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")

    async def story(web: Web) -> Any:
        async with web.client(auth=web.library.NetRCAuth(str(secrets))) as client:
            return [(await client.get(f"{origin}/basic")).status_code for origin in (web.url, web.site.elsewhere)]

    assert unharmed(story) == [200, 401]
