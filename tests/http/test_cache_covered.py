"""Whoever was given a good answer is covered by it when the origin fails, whatever it says to others meanwhile."""

from __future__ import annotations

import itertools
import random
from typing import Any

import anyio
import pytest

from resilient import Cache, Timeout
from resilient.testing import FakeClock, FaultyTransport

from .conftest import Declare

pytestmark = pytest.mark.anyio

WINDOW = 10_000.0
LANGUAGES = ("de", "en", "fr")
USERS = (None, "u1", "u2")
FAILURES = (500, 502, 503, 504)


class Origin:
    """Answers well or badly, by chance; each good answer is told from all others by its body."""

    def __init__(self, library: Any, chance: random.Random) -> None:
        self.library, self.chance = library, chance
        self.numbers = itertools.count()
        self.good = True
        self.public = chance.random() < 0.3
        self.asked = 0

    def __call__(self, request: Any) -> Any:
        chance, library = self.chance, self.library
        self.asked += 1
        public = "public, " if self.public else ""
        if self.good:
            headers = {"cache-control": f"{public}max-age=10", "vary": "Accept-Language"}
            return library.Response(200, headers=headers, content=b"%d" % next(self.numbers))
        if chance.random() < 0.2:
            raise library.ConnectError("by chance")
        headers = {"cache-control": chance.choice(("no-store", "max-age=1000", "public, max-age=1000", "max-age=1000, must-revalidate"))}
        if chance.random() < 0.3:
            headers["vary"] = "Accept-Language"
        return library.Response(chance.choice(FAILURES), headers=headers, content=b"failed")


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(12), range(12, 24)], ids=["shared", "apart"])
async def test_who_had_a_good_answer_never_gets_a_failure(library: Any, clock: FakeClock, declare: Declare, seeds: range) -> None:
    share_anonymous = seeds.start == 0
    covered = 0
    for seed in seeds:
        chance = random.Random(seed)
        origin = Origin(library, chance)
        dependency = declare(Cache(stale_if_error=WINDOW, max_stale=WINDOW, share_anonymous=share_anonymous), Timeout(), name=f"dep{seed}")
        transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([origin]))
        copies: dict[tuple[str | None, str], str] = {}
        async with library.AsyncClient(transport=transport, base_url="http://dep") as http:
            for _ in range(40):
                await anyio.sleep(chance.choice((0, 5, 30)))
                origin.good = chance.random() < 0.3
                user, language = chance.choice(USERS), chance.choice(LANGUAGES)
                headers = {"accept-language": language} | ({"x-api-key": user} if user else {})
                asked = origin.asked
                try:
                    response = await http.get("/a", headers=headers)
                except library.ConnectError:
                    response = library.Response(502)
                owners = {user, "everybody"} | ({None} if share_anonymous else set())
                his = {copies[owner, language] for owner in owners if (owner, language) in copies}
                if response.status_code == 200 and response.text not in his:
                    assert origin.good and origin.asked > asked, (seed, response.text, copies)
                    copies["everybody" if origin.public else user, language] = response.text
                elif response.status_code != 200:
                    assert not his, (seed, user, language, copies)
                elif "degraded" in response.extensions:
                    covered += 1
    assert covered > 90
