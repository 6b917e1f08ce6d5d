"""The official OpenAI and Anthropic SDKs on `resilient.httpx2`: retries, time limits and the breaker are this library's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from resilient import Dependency, Failover, Outcome, RateLimit, Target, Timeout, standard
from resilient.httpx2 import AsyncResilientTransport

PATIENCE = Timeout(
    total=120,  # up to the headers: of an answer that is not streamed, the time to write all of it
    first_byte=30,  # of a stream, counted from its headers
    idle=15,  # between two chunks of a stream; event streams have no such limit unless it is given
)


def busy(response: httpx2.Response | None, error: BaseException | None) -> Outcome | None:
    """529 is Anthropic's "overloaded": refused before any work was done, as a 429 is, so that a POST may be sent again."""
    return Outcome.THROTTLED if response is not None and response.status_code == 529 else None


def provider(name: str, timeout: Timeout = PATIENCE) -> Dependency:
    """A provider of language models, with the policies that all requests to it share."""
    return Dependency(name, *standard(timeout=timeout), classify=busy)


def http_client(dependency: Dependency, **transport: Any) -> httpx2.AsyncClient:
    """What an SDK sends its requests with. Proxies, TLS and the size of the pool are options of the transport."""
    return httpx2.AsyncClient(transport=AsyncResilientTransport(dependency, **transport), follow_redirects=True, timeout=None)


def openai(dependency: Dependency, **options: Any) -> AsyncOpenAI:
    """OpenAI's client, which repeats nothing and limits no time itself."""
    return AsyncOpenAI(http_client=http_client(dependency), max_retries=0, timeout=None, **options)


def anthropic(dependency: Dependency, **options: Any) -> AsyncAnthropic:
    """Anthropic's client, likewise."""
    return AsyncAnthropic(http_client=http_client(dependency), max_retries=0, timeout=None, **options)


def tokens(usage: Any) -> int:
    """What an answer cost: `usage` of a chat completion or of a message."""
    if hasattr(usage, "total_tokens"):
        return usage.total_tokens
    return usage.input_tokens + usage.output_tokens


def nobody(tokens: int) -> None:
    """Told what an answer cost, where nobody wants to know."""


async def openai_words(client: AsyncOpenAI, model: str, question: str, spent: Callable[[int], None] = nobody) -> AsyncIterator[str]:
    """The answer as it is written; at its end `spent` is told what it cost."""
    messages: Any = [{"role": "user", "content": question}]
    stream = await client.chat.completions.create(model=model, messages=messages, stream=True, stream_options={"include_usage": True})
    async with stream:
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield choice.delta.content
            if chunk.usage is not None:
                spent(tokens(chunk.usage))


async def anthropic_words(client: AsyncAnthropic, model: str, question: str, spent: Callable[[int], None] = nobody) -> AsyncIterator[str]:
    """The same from Anthropic."""
    messages: Any = [{"role": "user", "content": question}]
    async with client.messages.stream(model=model, max_tokens=1000, messages=messages) as stream:
        async for word in stream.text_stream:
            yield word
        spent(tokens((await stream.get_final_message()).usage))


# -- what answers may cost --------------------------------------------------------------------------------------------


def at_most(request: httpx2.Request) -> float:
    """Tokens that a request may cost: its answer as long as it may be, and a token for each four bytes of the question."""
    return json.loads(request.content).get("max_tokens", 1000) + len(request.content) / 4


def metered(name: str, a_minute: float, a_day: float) -> tuple[Dependency, list[RateLimit]]:
    """A provider that is sent no more tokens a minute than it wants, and no more a day than are paid for."""
    limits = [
        RateLimit(a_day, per=86_400, hard=True, cost=at_most),  # over it SpendExceeded, never a wait
        RateLimit(a_minute, per=60, max_wait=10, cost=at_most),
    ]
    return Dependency(name, *standard(timeout=PATIENCE, rate_limit=limits), classify=busy), limits


def settle(limits: list[RateLimit], response: Any, usage: Any) -> None:
    """Charge what an answer really cost, in place of what it might have."""
    for limit in limits:
        limit.charge(response).settle(tokens(usage))


async def metered_answer(client: AsyncOpenAI, limits: list[RateLimit], model: str, question: str) -> str:
    """A whole answer, charged. Of a stream, `stream.response` is the response to settle."""
    messages: Any = [{"role": "user", "content": question}]
    raw = await client.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=500)
    answer = raw.parse()
    settle(limits, raw.http_response, answer.usage)
    return answer.choices[0].message.content or ""


# -- another provider -------------------------------------------------------------------------------------------------


def replaceable(url: str, other: str, key: str, model: str) -> Dependency:
    """OpenAI at `url`, and in its place, while it fails, another provider that speaks the same API."""
    second = Target("other", url=other, headers={"authorization": f"Bearer {key}"}, json={"model": model})
    failover = Failover(Target("openai"), second, repeat=True)  # a second completion costs money and changes nothing
    return Dependency("llm", *standard(timeout=PATIENCE, failover=failover), origin=url, classify=busy)


def either(first: Callable[..., Any], second: Callable[..., Any]) -> Dependency:
    """Two functions that ask, one through each SDK: for providers that speak different APIs."""
    return Dependency("answers", *standard(timeout=PATIENCE, failover=Failover(first, second)))
