"""The SDKs of OpenAI and Anthropic on our transports, against a local fake of their APIs."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import ModuleType
from typing import Any

import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest

import resilient.httpx
from resilient import CircuitBreaker, CircuitOpen, DeadlineExceeded, Dependency, Outcome, Timeout, standard
from resilient.events import RetryDecided
from resilient.httpx2 import ResilientTransport
from resilient.outbox import Outbox
from resilient.testing import RecordingListener

from .llm_server import WORDS, Behaviour, LlmServer

# Both SDKs leave generators of theirs to the collector, with us or without; trio complains of each.
GENERATORS = r"ignore:Async generator '(openai|anthropic|httpx2|httpcore2)\.:ResourceWarning"
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(GENERATORS)]
Load = Callable[[str], ModuleType]
SDKS = {"openai": openai, "anthropic": anthropic}
HASTE = Timeout(total=5, first_byte=0.25, idle=0.25)


class Provider:
    """One SDK on the recipe's client, and what the tests ask of it."""

    def __init__(self, recipe: ModuleType, name: str) -> None:
        # Nothing is encrypted here, and to read the certificates would take most of a test's time.
        recipe.http_client = functools.partial(recipe.http_client, verify=False)
        self.recipe = recipe
        self.name = name
        self.sdk: Any = SDKS[name]
        self.spent: list[int] = []

    def base(self, server: LlmServer) -> str:
        return server.url + ("/v1" if self.name == "openai" else "")

    @asynccontextmanager
    async def client(self, dependency: Dependency, server: LlmServer, **options: Any) -> AsyncIterator[Any]:
        async with getattr(self.recipe, self.name)(dependency, api_key="secret", base_url=self.base(server), **options) as client:
            yield client

    async def words(self, client: Any) -> AsyncGenerator[str, None]:
        async with aclosing(getattr(self.recipe, f"{self.name}_words")(client, "fake", "Which lamp?", self.spent.append)) as words:
            async for word in words:
                yield word

    async def said(self, client: Any) -> list[str]:
        return [word async for word in self.words(client)]

    def ask(self, client: Any, **options: Any) -> Any:
        """A whole answer: awaited of an async client, at once of a sync one."""
        messages: Any = [{"role": "user", "content": "Which lamp?"}]
        if self.name == "openai":
            return client.chat.completions.create(model="fake", messages=messages, **options)
        return client.messages.create(model="fake", max_tokens=100, messages=messages, **options)

    def text(self, answer: Any) -> str:
        text: str = answer.choices[0].message.content if self.name == "openai" else answer.content[0].text
        return text


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest, example: Load) -> Provider:
    return Provider(example("llm"), request.param)


def counts(dependency: Dependency) -> dict[str, int]:
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0, "every permit is back"
    return {word: count for word, count in dependency.stats.snapshot().counts.items() if count}


async def test_answers_and_what_they_cost(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name)
    with LlmServer() as server:
        async with provider.client(dependency, server) as client:
            answer = await provider.ask(client)
            assert provider.text(answer) == "".join(WORDS)
            assert provider.recipe.tokens(answer.usage) == 11
            assert await provider.said(client) == WORDS
    assert provider.spent == [11]
    assert counts(dependency) == {"success": 2}
    assert server.connections == 1, "the connection of a stream is used again"


async def test_a_refused_request_is_sent_again_when_the_server_says(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name)
    with LlmServer(Behaviour(status=429 if provider.name == "openai" else 529, retry_after="1")) as server:
        async with provider.client(dependency, server) as client:
            began = time.monotonic()
            assert await provider.said(client) == WORDS
            assert time.monotonic() - began >= 1
    assert len(server.requests) == 2
    assert server.requests[0].body == server.requests[1].body
    assert counts(dependency) == {"success": 1}
    assert dependency.breaker is not None
    assert dependency.breaker.fail_counter == 0


async def test_the_sdk_gets_the_refusal_where_waiting_is_of_no_use(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name, HASTE)
    with LlmServer(Behaviour(status=429, retry_after="30")) as server:
        async with provider.client(dependency, server) as client:
            with pytest.raises(provider.sdk.RateLimitError) as raised:
                await provider.ask(client)
            assert raised.value.response.headers["retry-after"] == "30"
    assert len(server.requests) == 1
    assert counts(dependency) == {"ignored": 1}


@pytest.mark.parametrize(("headers", "requests"), [({}, 1), ({"Idempotency-Key": "lamp-1"}, 2)], ids=["unmarked", "marked"])
async def test_what_may_have_been_worked_on_is_repeated_only_where_the_program_says_so(
    provider: Provider, headers: dict[str, str], requests: int
) -> None:
    """Neither SDK sends an Idempotency-Key of its own."""
    listener = RecordingListener()
    dependency = Dependency(provider.name, *standard(timeout=HASTE), outbox=Outbox([listener]))
    with LlmServer(Behaviour(status=503)) as server:
        async with provider.client(dependency, server) as client:
            if headers:
                assert provider.text(await provider.ask(client, extra_headers=headers)) == "".join(WORDS)
            else:
                with pytest.raises(provider.sdk.InternalServerError):
                    await provider.ask(client)
    assert len(server.requests) == requests
    assert [asked.headers.get("idempotency-key") for asked in server.requests] == [headers.get("Idempotency-Key")] * requests
    assert [event.result for event in listener.of(RetryDecided)] == ["retried" if headers else "unrepeatable"]


@pytest.mark.parametrize(
    ("behaviour", "words", "reason"),
    [(Behaviour(first=60), 0, "first_byte"), (Behaviour(stop_after=2, cut=False), 2, "idle"), (Behaviour(think=60), 0, "total")],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_silence_is_cut(provider: Provider, behaviour: Behaviour, words: int, reason: str) -> None:
    timeout = Timeout(total=0.3) if reason == "total" else HASTE
    dependency = provider.recipe.provider(provider.name, timeout)
    seen = []
    with LlmServer(behaviour) as server:
        async with provider.client(dependency, server) as client:
            with anyio.fail_after(5), pytest.raises((provider.sdk.APITimeoutError, DeadlineExceeded)) as raised:
                async for word in provider.words(client):
                    seen.append(word)  # noqa: PERF401  # what came before the error is looked at
    error = raised.value
    # Anthropic's SDK makes its own errors only of what happens before the headers.
    ours = error if provider.name == "anthropic" and reason != "total" else error.__cause__
    assert isinstance(ours, DeadlineExceeded)
    assert isinstance(ours, httpx2.TimeoutException)
    assert ours.reason == reason
    assert seen == WORDS[:words]
    assert counts(dependency) == {"failure": 1}


async def test_a_long_answer_is_not_cut_by_the_total(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name, Timeout(total=0.3, first_byte=0.25, idle=0.25))
    with LlmServer(Behaviour(repeat=4, pause=0.05)) as server:
        async with provider.client(dependency, server) as client:
            began = time.monotonic()
            assert await provider.said(client) == WORDS * 4
            assert time.monotonic() - began > 0.7
    assert counts(dependency) == {"success": 1}


async def test_an_answer_that_breaks_off_is_the_sdks_error_and_a_failure(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name)
    seen = []
    with LlmServer(Behaviour(stop_after=3)) as server:
        async with provider.client(dependency, server) as client:
            with pytest.raises((provider.sdk.APIConnectionError, httpx2.TransportError)) as raised:
                async for word in provider.words(client):
                    seen.append(word)  # noqa: PERF401
    assert type(raised.value) is (openai.APIConnectionError if provider.name == "openai" else httpx2.RemoteProtocolError)
    assert seen == WORDS[:3]
    assert len(server.requests) == 1, "what the caller has begun to read is not written a second time"
    assert counts(dependency) == {"failure": 1}
    assert dependency.breaker is not None
    assert dependency.breaker.fail_counter == 1


async def test_anthropic_without_us_raises_the_same_when_an_answer_breaks_off(example: Load) -> None:
    provider = Provider(example("llm"), "anthropic")
    with LlmServer(Behaviour(stop_after=3)) as server:
        async with anthropic.AsyncAnthropic(
            api_key="secret", base_url=server.url, max_retries=0, http_client=httpx2.AsyncClient(verify=False)
        ) as client:
            with pytest.raises(httpx2.RemoteProtocolError):
                await provider.said(client)


async def test_an_error_told_inside_the_stream_is_seen_by_a_dependency_around_it(provider: Provider) -> None:
    """The transport reads no events: to it the answer has come to its end."""
    transport = provider.recipe.provider(provider.name)
    answers = Dependency("answers", CircuitBreaker(fail_max=1))
    with LlmServer(Behaviour(error_after=2)) as server:
        async with provider.client(transport, server) as client:
            guarded = answers(provider.words)
            with pytest.raises(provider.sdk.APIError, match="not now"):
                async for word in guarded(client):
                    assert word in WORDS
            assert counts(transport) == {"success": 1}
            with pytest.raises(CircuitOpen):
                await anext(guarded(client))
    assert len(server.requests) == 1


async def test_the_first_word_is_awaited_by_a_dependency_around_it(example: Load) -> None:
    """Anthropic's first bytes come long before its first word."""
    provider = Provider(example("llm"), "anthropic")
    answers = Dependency("answers", Timeout(total=0.3, idle=0.3))
    with LlmServer(Behaviour(stop_after=0, cut=False)) as server:
        async with provider.client(provider.recipe.provider("anthropic"), server) as client:
            guarded = answers(provider.words)
            with anyio.fail_after(5), pytest.raises(DeadlineExceeded) as raised:
                await anext(guarded(client))
    assert (raised.value.dependency, raised.value.reason) == ("answers", "total")


async def test_a_reader_who_leaves_gives_everything_back(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name)
    with LlmServer(Behaviour(repeat=100, pause=0.02)) as server:
        async with provider.client(dependency, server) as client:
            words = provider.words(client)
            assert await anext(words) == WORDS[0]
            assert dependency.bulkhead is not None
            assert dependency.bulkhead.in_use == 1
            await words.aclose()
    assert counts(dependency) == {"success": 1}


async def test_an_open_circuit_is_the_sdks_error_with_ours_as_its_cause(provider: Provider) -> None:
    dependency = provider.recipe.provider(provider.name)
    assert isinstance(dependency.breaker, CircuitBreaker)
    dependency.breaker.open()
    with LlmServer() as server:
        async with provider.client(dependency, server) as client:
            with pytest.raises(provider.sdk.APIConnectionError) as raised:
                await provider.ask(client)
    assert isinstance(raised.value.__cause__, CircuitOpen)
    assert server.requests == []


def test_sync_clients(provider: Provider) -> None:
    dependency = Dependency(provider.name, *standard(timeout=HASTE), classify=provider.recipe.busy)
    kind = provider.sdk.OpenAI if provider.name == "openai" else provider.sdk.Anthropic
    http_client = httpx2.Client(transport=ResilientTransport(dependency, verify=False), follow_redirects=True, timeout=None)
    script = [Behaviour(status=529, retry_after="0"), Behaviour(), Behaviour(stop_after=2, cut=False)]
    with LlmServer(*script) as server:
        with kind(http_client=http_client, api_key="secret", base_url=provider.base(server), max_retries=0, timeout=None) as client:
            assert provider.text(provider.ask(client)) == "".join(WORDS)
            with pytest.raises((provider.sdk.APITimeoutError, DeadlineExceeded)) as raised:
                for _ in provider.ask(client, stream=True):
                    pass
    assert isinstance(raised.value if provider.name == "anthropic" else raised.value.__cause__, DeadlineExceeded)
    assert counts(dependency) == {"success": 1, "failure": 1}


async def test_openai_takes_an_httpx_client_too_and_anthropic_says_that_it_does_not() -> None:
    dependency = Dependency("openai")
    transport = resilient.httpx.AsyncResilientTransport(dependency, verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=None) as http_client:
        taken: Any = http_client
        with LlmServer() as server:
            client = openai.AsyncOpenAI(http_client=taken, api_key="secret", base_url=server.url + "/v1", max_retries=0, timeout=None)
            completion = await client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "?"}])
        assert completion.choices[0].message.content == "".join(WORDS)
        assert counts(dependency) == {"success": 1}
        with pytest.raises(TypeError, match="httpx2.AsyncClient"):
            anthropic.AsyncAnthropic(http_client=taken, api_key="secret")


def test_busy_looks_at_nothing_else(example: Load) -> None:
    busy = example("llm").busy
    assert busy(httpx2.Response(529), None) is Outcome.THROTTLED
    assert busy(httpx2.Response(503), None) is None
    assert busy(None, ValueError()) is None
