"""Teachers behind an API: OpenAI-compatible endpoints through ``openai``, Claude through ``anthropic``.

The packages bring authentication, addresses and connections. Their own retries are off, as they would pay behind the
cache's back; bodies are read here, leniently, as endpoints differ in what they leave out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from slmops.data.rows import Message
from slmops.errors import MissingExtraError
from slmops.teachers.catalogue import ApiModel, ApiOptions, find_api_model
from slmops.teachers.replies import AskParams, ChatClient, Fault, Reply, estimate_text_tokens, estimate_tokens
from slmops.teachers.verdicts import clean, fault_of_status

T = TypeVar("T")

_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio", "ssl")
_ANTHROPIC_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "content_filter"}
_HOTTEST_CLAUDE = 1.0
_NEWER_LIMIT = "max_completion_tokens"
"""What OpenAI's reasoning models want in place of ``max_tokens``, which all other servers know."""


@dataclass(frozen=True)
class ApiTeacher:
    """A teacher behind an API: its entry of the catalogue and what the recipe says."""

    model: ApiModel
    options: ApiOptions

    @classmethod
    def find(cls, name: str, options: ApiOptions | None = None) -> ApiTeacher:
        """The teacher of that name; raises as :func:`slmops.teachers.catalogue.find_api_model` does."""
        options = options or ApiOptions()
        return cls(find_api_model(name, options), options)

    def connect(self) -> ChatClient:
        """A client of the endpoint; nothing is sent yet.

        Raises:
            MissingExtraError: The provider's package is not installed.
            ConfigError: The API key is not in the environment.
        """
        client = AnthropicClient if self.model.protocol == "anthropic" else OpenAIClient
        return client(self.model, self.model.key(), self.options)


class OpenAIClient:
    """Any endpoint with ``POST /chat/completions``."""

    def __init__(self, model: ApiModel, key: str, options: ApiOptions) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise MissingExtraError("openai", "api") from error
        self._model, self._key, self._options = model, key, options
        self._limit = "max_tokens"
        self._client = openai.AsyncOpenAI(base_url=model.address, api_key=key, max_retries=0, timeout=options.timeout_s)

    @property
    def identity(self) -> Mapping[str, str]:
        """Protocol, model and address."""
        return self._model.identity

    async def ask(self, messages: Sequence[Message], params: AskParams) -> Reply:
        """One answer; raises :class:`Fault`."""
        body: dict[str, Any] = {
            "model": self._model.model,
            "messages": [dict(turn) for turn in messages],
            self._limit: params.max_new_tokens,
            "temperature": params.temperature,
        }
        if params.top_p < 1:
            body["top_p"] = params.top_p
        if params.seed is not None:
            body["seed"] = params.seed
        if params.stop:
            body["stop"] = list(params.stop)
        if params.top_logprobs is not None:
            body |= {"logprobs": True, **({"top_logprobs": params.top_logprobs} if params.top_logprobs else {})}
        ask = self._streamed(body) if self._options.stream else self._whole(body)
        try:
            value = await _guarded(ask, self._options.timeout_s, self._key)
        except Fault as fault:
            if _NEWER_LIMIT not in str(fault) or self._limit == _NEWER_LIMIT:
                raise
            self._limit = _NEWER_LIMIT
            return await self.ask(messages, params)
        return openai_reply(value, messages, self._model.model)

    async def _whole(self, body: Mapping[str, Any]) -> Any:
        raw = await self._client.chat.completions.with_raw_response.create(**body)
        return _json(raw.http_response.content)

    async def _streamed(self, body: Mapping[str, Any]) -> Any:
        """The pieces of a stream put together in the shape of a whole answer."""
        text, model, last, usage = "", "", None, None
        first: float | None = None
        logprobs: list[Any] = []
        started = time.perf_counter()
        stream = await self._client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
        _no_page(stream.response)
        async with stream:
            async for piece in stream:
                chunk = piece.model_dump()
                model, usage = chunk.get("model") or model, chunk.get("usage") or usage
                for choice in (chunk.get("choices") or [])[:1]:
                    text += (choice.get("delta") or {}).get("content") or ""
                    first = time.perf_counter() - started if text and first is None else first
                    logprobs += (choice.get("logprobs") or {}).get("content") or []
                    last = choice.get("finish_reason") or last
        if last is None:
            raise Fault("connection lost", "the stream ended before the answer did", lost=True)
        choice = {"message": {"content": text}, "finish_reason": last, "logprobs": {"content": logprobs} if logprobs else None}
        return {"model": model, "choices": [choice], "usage": usage, "first_seconds": first}

    async def models(self) -> list[str]:
        """Names of the models that the endpoint lists; raises :class:`Fault`."""

        async def names() -> list[str]:
            return [str(model.id) async for model in self._client.models.list()]

        return await _guarded(names(), self._options.timeout_s, self._key)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class AnthropicClient:
    """Claude. It gives no log-probabilities and knows no seed; temperatures end at 1."""

    def __init__(self, model: ApiModel, key: str, options: ApiOptions) -> None:
        try:
            import anthropic
        except ModuleNotFoundError as error:
            raise MissingExtraError("anthropic", "api") from error
        self._model, self._key, self._options = model, key, options
        self._client = anthropic.AsyncAnthropic(base_url=model.address, api_key=key, max_retries=0, timeout=options.timeout_s)

    @property
    def identity(self) -> Mapping[str, str]:
        """Protocol, model and address."""
        return self._model.identity

    async def ask(self, messages: Sequence[Message], params: AskParams) -> Reply:
        """One answer; raises :class:`Fault`."""
        if params.temperature > _HOTTEST_CLAUDE:
            raise Fault("Claude's temperatures end at 1", action="stop", fix="lower sampling_temperature")
        system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
        body: dict[str, Any] = {
            "model": self._model.model,
            "messages": [dict(turn) for turn in messages if turn["role"] != "system"],
            "max_tokens": params.max_new_tokens,
            "extra_body": {"temperature": params.temperature, **({"top_p": params.top_p} if params.top_p < 1 else {})},
        }
        if system:
            body["system"] = system
        if params.stop:
            body["stop_sequences"] = list(params.stop)
        ask = self._streamed(body) if self._options.stream else self._whole(body)
        value = await _guarded(ask, self._options.timeout_s, self._key)
        return _anthropic_reply(value, messages, self._model.model)

    async def _whole(self, body: Mapping[str, Any]) -> Any:
        raw = await self._client.messages.with_raw_response.create(**body)
        return _json(raw.http_response.content)

    async def _streamed(self, body: Mapping[str, Any]) -> Any:
        """The events of a stream put together in the shape of a whole message."""
        whole: dict[str, Any] = {}
        text, ended = "", False
        usage: dict[str, Any] = {}
        stream = await self._client.messages.create(**body, stream=True)
        _no_page(stream.response)
        async with stream:
            async for event in stream:
                piece = event.model_dump()
                delta = piece.get("delta") or {}
                whole |= piece.get("message") or {}
                text += delta.get("text") or ""
                usage |= {name: count for name, count in (piece.get("usage") or {}).items() if count is not None}
                whole |= {"stop_reason": delta["stop_reason"]} if delta.get("stop_reason") else {}
                ended = ended or piece.get("type") == "message_stop"
        if not ended:
            raise Fault("connection lost", "the stream ended before the answer did", lost=True)
        return {**whole, "content": [{"type": "text", "text": text}], "usage": {**(whole.get("usage") or {}), **usage}}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


async def _guarded(ask: Awaitable[T], timeout_s: float, key: str) -> T:
    """Await a call and turn whatever goes wrong into a :class:`Fault`; both packages have the same tree of errors."""
    try:
        async with asyncio.timeout(timeout_s):
            return await ask
    except Fault:
        raise
    except TimeoutError as error:
        raise Fault("timeout", f"no answer in {timeout_s:g} s", overload=True, lost=True) from error
    except Exception as error:
        fault = _fault_of(error)
        if fault is None:
            raise
        fault.args = (str(fault.args[0]).replace(key, "***"),)
        raise fault from error


def _fault_of(error: Exception) -> Fault | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    response = getattr(error, "response", None)
    if "APIStatusError" in names and response is not None and response.status_code >= 400:
        return fault_of_status(response.status_code, response.headers, response.text)
    if "APITimeoutError" in names:
        return Fault("timeout", overload=True, lost=True)
    if isinstance(error, ValueError) and "APIError" not in names:  # JSON or UTF-8 that cannot be read
        return Fault("not JSON", clean(str(error)), lost=True)
    cause = error.__cause__ or error
    if "ConnectError" in {kind.__name__ for kind in type(cause).__mro__}:
        return Fault("no connection", clean(str(cause)), overload=True)
    if "APIConnectionError" in names or isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _TRANSPORTS:
        return Fault("connection lost", clean(str(cause)), lost=True)
    if "APIError" in names:  # an error event inside a stream
        return Fault("server error", clean(str(error)), overload=True, lost=True)
    return None


def _no_page(response: Any) -> None:
    """Refuse a gateway's web page in place of a stream."""
    if "html" in response.headers.get("content-type", ""):
        raise Fault("HTML instead of JSON")


def _json(content: bytes) -> Any:
    try:
        value = json.loads(content)
    except ValueError as error:
        start = content[:200].decode("utf-8", "replace").lstrip()
        html = start.startswith("<")  # a gateway's page; the endpoint itself did not answer
        raise Fault("HTML instead of JSON" if html else "not JSON", clean(start[:80]), lost=not html) from error
    if isinstance(value, dict) and value.get("error"):  # some gateways send errors with status 200
        error_value = value["error"]
        code = error_value.get("code") if isinstance(error_value, dict) else None
        raise fault_of_status(code if isinstance(code, int) and code >= 400 else 500, {}, json.dumps(value))
    return value


def openai_reply(value: Any, messages: Sequence[Message], model: str) -> Reply:
    """The answer in a chat completion to these messages; what the endpoint left out is estimated.

    Raises:
        Fault: It is no chat completion.
    """
    try:
        choice = value["choices"][0]
        message = choice["message"]
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text") or "") for part in content)
        text, reason = str(content or ""), str(choice.get("finish_reason") or "stop")
        usage = value.get("usage") or {}
        tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        logprobs = _logprobs(choice.get("logprobs"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Fault("not a chat completion", clean(json.dumps(value, default=str)[:80]), lost=True) from error
    if message.get("refusal"):
        text, reason = str(message["refusal"]), "content_filter"
    return _reply(text, reason, *tokens, logprobs, value, messages, model)


def _anthropic_reply(value: Any, messages: Sequence[Message], model: str) -> Reply:
    try:
        text = "".join(str(part.get("text") or "") for part in value["content"])
        usage = value.get("usage") or {}
        tokens = usage.get("input_tokens"), usage.get("output_tokens")
        reason = _ANTHROPIC_REASONS.get(str(value.get("stop_reason")), "stop")
    except (KeyError, TypeError, AttributeError) as error:
        raise Fault("not a message", clean(json.dumps(value, default=str)[:80]), lost=True) from error
    return _reply(text, reason, *tokens, None, value, messages, model)


def _reply(
    text: str,
    reason: str,
    prompt_tokens: Any,
    completion_tokens: Any,
    logprobs: tuple[Mapping[str, Any], ...] | None,
    value: Any,
    messages: Sequence[Message],
    model: str,
) -> Reply:
    prompt = int(prompt_tokens) if prompt_tokens is not None else estimate_tokens(messages)
    completion = int(completion_tokens) if completion_tokens is not None else estimate_text_tokens(text)
    name, first = str(value.get("model") or model), value.get("first_seconds")
    return Reply(text.strip(), reason, prompt, completion, logprobs, name, first_seconds=first)


def _logprobs(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    tokens = (value or {}).get("content")
    if not tokens:
        return None
    return tuple(
        {
            "token": token["token"],
            "logprob": token["logprob"],
            "top": [[other["token"], other["logprob"]] for other in token.get("top_logprobs") or ()],
        }
        for token in tokens
    )
