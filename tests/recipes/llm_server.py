"""A local fake of two HTTP APIs of language models: OpenAI's chat completions and Anthropic's messages.

It speaks them as far as the official SDKs ask: whole answers, event streams, their errors, and every way of being slow
or broken that a program has to live with.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..http.servers import Peer, Server, answer

__all__ = ["WORDS", "Behaviour", "LlmServer"]

WORDS = ["The ", "lamp ", "is ", "green."]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Behaviour:
    """How one request is answered. Times are in seconds."""

    status: int = 200
    retry_after: str | None = None
    think: float = 0.0
    """Before the headers."""
    first: float = 0.0
    """Between the headers and the first event."""
    pause: float = 0.0
    """Before each further word."""
    repeat: int = 1
    """How often the words are said."""
    stop_after: int | None = None
    """Words, after which nothing more comes ..."""
    cut: bool = True
    """... because the connection breaks; otherwise it stays open in silence."""
    error_after: int | None = None
    """Words, after which an error is told inside the stream."""


class LlmServer(Server):
    """Answers `/v1/chat/completions` and `/v1/messages`; each request takes the next behaviour, and then the plain one."""

    def __init__(self, *script: Behaviour) -> None:
        super().__init__(self._answer)
        self.script: deque[Behaviour] = deque(script)

    async def _answer(self, peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            behaviour = self.script.popleft() if self.script else Behaviour()
            await asyncio.sleep(behaviour.think)
            speaker = ANTHROPIC if asked.target.endswith("/messages") else OPENAI
            if behaviour.status != 200:
                await peer.send(refusal(speaker, behaviour))
            elif json.loads(asked.body).get("stream"):
                await self._stream(peer, speaker, behaviour)
                if behaviour.stop_after is not None:
                    return
            else:
                await peer.send(answer(200, json.dumps(speaker.whole()).encode(), "Content-Type: application/json"))

    async def _stream(self, peer: Peer, speaker: Any, behaviour: Behaviour) -> None:
        await peer.send(STREAM)
        await asyncio.sleep(behaviour.first)
        said = 0
        for event in speaker.events(WORDS * behaviour.repeat):
            if event is speaker.WORD:
                await asyncio.sleep(behaviour.pause if said else 0)
                if said == behaviour.stop_after:
                    if not behaviour.cut:
                        await peer.reader.read()  # the client hangs up
                    return
                if said == behaviour.error_after:
                    await peer.send(chunk(speaker.trouble()))
                    break
                said += 1
            else:
                await peer.send(chunk(event))
        await peer.send(b"0\r\n\r\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data: Any, name: str | None = None) -> bytes:
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def refusal(speaker: Any, behaviour: Behaviour) -> bytes:
    fields = [] if behaviour.retry_after is None else [f"Retry-After: {behaviour.retry_after}"]
    return answer(behaviour.status, json.dumps(speaker.error()).encode(), "Content-Type: application/json", *fields)


class OPENAI:
    """Chat completions: unnamed events, the usage in one of its own, and a last one that says so."""

    WORD = object()

    @staticmethod
    def error() -> Any:
        return {"error": {"message": "not now", "type": "server_error", "code": None, "param": None}}

    @staticmethod
    def whole() -> Any:
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
        return {"id": "c1", "object": "chat.completion", "created": 1, "model": "fake", "choices": [choice], "usage": usage}

    @classmethod
    def events(cls, words: list[str]) -> Iterable[Any]:
        base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
        for word in words:
            yield cls.WORD
            yield event({**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        yield event({**base, "choices": [], "usage": usage})
        yield event("[DONE]")

    @classmethod
    def trouble(cls) -> bytes:
        return event(cls.error())


class ANTHROPIC:
    """Messages: named events; the first one comes before any word, and the usage grows with the last ones."""

    WORD = object()

    @staticmethod
    def error() -> Any:
        return {"type": "error", "error": {"type": "overloaded_error", "message": "not now"}}

    @staticmethod
    def whole(text: str = "".join(WORDS), tokens: int = 4) -> Any:
        content = [{"type": "text", "text": text}] if text else []
        usage = {"input_tokens": 7, "output_tokens": tokens}
        ended = {"stop_reason": "end_turn" if text else None, "stop_sequence": None}
        return {"id": "m1", "type": "message", "role": "assistant", "model": "fake", "content": content, "usage": usage, **ended}

    @classmethod
    def events(cls, words: list[str]) -> Iterable[Any]:
        def named(data: dict[str, Any]) -> bytes:
            return event(data, data["type"])

        yield named({"type": "message_start", "message": cls.whole("", 1)})
        yield named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        for word in words:
            yield cls.WORD
            yield named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
        yield named({"type": "content_block_stop", "index": 0})
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        yield named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": len(words)}})
        yield named({"type": "message_stop"})

    @classmethod
    def trouble(cls) -> bytes:
        return event(cls.error(), "error")
