"""What answers may cost, and who answers in another provider's place: the recipe with the real SDKs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import openai
import pytest

from resilient import RateLimited, SpendExceeded

from .llm_server import WORDS, Behaviour, LlmServer
from .test_llm import GENERATORS

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(GENERATORS)]
Load = Callable[[str], ModuleType]
TEXT = "".join(WORDS)


@pytest.fixture
def recipe(example: Load) -> Any:
    recipe: Any = example("llm")
    recipe.http_client = functools.partial(recipe.http_client, verify=False)
    return recipe


def of_openai(recipe: Any, dependency: Any, server: LlmServer) -> Any:
    return recipe.openai(dependency, api_key="own", base_url=server.url + "/v1")


async def test_an_answer_is_charged_what_it_cost(recipe: Any) -> None:
    dependency, limits = recipe.metered("openai", 10_000, 1_000)
    with LlmServer() as server:
        async with of_openai(recipe, dependency, server) as client:
            # Each may cost more than 500 at most, so that two at a time are all; each does cost 11.
            for _ in range(20):
                assert await recipe.metered_answer(client, limits, "fake", "Which lamp?") == TEXT
    assert len(server.requests) == 20


async def test_over_the_budget_of_a_day_nothing_is_sent(recipe: Any) -> None:
    dependency, limits = recipe.metered("openai", 10_000, 400)
    with LlmServer() as server:
        async with of_openai(recipe, dependency, server) as client:
            with pytest.raises(openai.APIConnectionError) as raised:
                await recipe.metered_answer(client, limits, "fake", "Which lamp?")
    assert isinstance(raised.value.__cause__, SpendExceeded)
    assert not server.requests


async def test_over_the_rate_of_a_minute_one_waits_or_is_told_when_to_come_back(recipe: Any) -> None:
    dependency, _ = recipe.metered("openai", 600, 1_000_000)
    with LlmServer() as server:
        async with of_openai(recipe, dependency, server) as client:
            messages: Any = [{"role": "user", "content": "Which lamp?"}]
            await client.chat.completions.create(model="fake", messages=messages, max_tokens=500)  # and is never settled
            with pytest.raises(openai.APIConnectionError) as raised:
                await client.chat.completions.create(model="fake", messages=messages, max_tokens=500)
    cause = raised.value.__cause__
    assert isinstance(cause, RateLimited) and not isinstance(cause, SpendExceeded)
    assert cause.retry_after is not None and cause.retry_after > 10
    assert len(server.requests) == 1


async def test_another_provider_answers_under_its_own_key_and_model(recipe: Any) -> None:
    with LlmServer(*[Behaviour(status=503)] * 9) as first, LlmServer() as second:
        dependency = recipe.replaceable(first.url + "/v1", second.url + "/v1", "theirs", "their-model")
        async with of_openai(recipe, dependency, first) as client:
            messages: Any = [{"role": "user", "content": "Which lamp?"}]
            for _ in range(3):
                raw = await client.chat.completions.with_raw_response.create(model="fake", messages=messages)
                assert raw.parse().choices[0].message.content == TEXT
                assert raw.http_response.extensions["target"] == "other"
            words = [word async for word in recipe.openai_words(client, "fake", "Which lamp?")]
            assert words == WORDS
    asked = second.requests[0]
    assert asked.headers["authorization"] == "Bearer theirs"
    assert json.loads(asked.body)["model"] == "their-model"
    assert {request.headers["authorization"] for request in first.requests} == {"Bearer own"}
    assert {json.loads(request.body)["model"] for request in first.requests} == {"fake"}


async def test_providers_of_different_apis_stand_in_for_each_other(recipe: Any) -> None:
    with LlmServer(Behaviour(status=503)) as first, LlmServer() as second:
        async with (
            of_openai(recipe, recipe.provider("openai"), first) as ours,
            recipe.anthropic(recipe.provider("anthropic"), api_key="theirs", base_url=second.url) as theirs,
        ):
            messages: Any = [{"role": "user", "content": "Which lamp?"}]

            async def ask_openai(question: str) -> Any:
                answer = await ours.chat.completions.create(model="fake", messages=messages)
                return answer.choices[0].message.content

            async def ask_anthropic(question: str) -> Any:
                answer = await theirs.messages.create(model="fake", max_tokens=100, messages=messages)
                return answer.content[0].text

            answers = recipe.either(ask_openai, ask_anthropic)
            assert await answers.call(ask_openai, "Which lamp?") == TEXT
    assert (len(first.requests), len(second.requests)) == (1, 1)
