"""From the bytes of a request to a :class:`ChatRequest`, or to the error that names what cannot be served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from slmops.errors import SlmopsError, nearest
from slmops.serving.schemas import ChatRequest, ErrorBody, ErrorDetail

# Parameters of the API that have no effect here, with the values that ask for nothing else; an empty tuple allows any value
# because it is about accounts and caches, not about the answer. ``null`` always passes.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": (),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "user": (),
    "verbosity": ("medium",),
}
_REFUSED = ("audio", "prediction", "web_search_options")


class ApiError(SlmopsError):
    """A request that gets an answer other than 200, or a stream that ends early.

    Args:
        status: HTTP status.
        message: For the person who wrote the client.
        param: The parameter at fault, such as ``messages[0].role``.
        code: Short word for programs, such as ``context_length_exceeded``.
        kind: ``type`` of the error object.
        headers: Extra response headers, such as ``retry-after``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.headers = status, dict(headers or {})
        self.body = ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))
        super().__init__(message, where=param)


def read_request(body: bytes) -> ChatRequest:
    """Parse and check the body of ``POST /v1/chat/completions``.

    Raises:
        ApiError: Not JSON, a missing field, a wrong type or range, or a parameter that would have no effect (400).
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None
    _refuse_unserved(request.model_extra or {}, "")
    for number, message in enumerate(request.messages):
        _refuse_unserved(message.model_extra or {}, f"messages[{number}].")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise ApiError(
            400, "give max_tokens or max_completion_tokens, not both", param="max_completion_tokens", code="invalid_value"
        )
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options only goes with stream=true", param="stream_options", code="invalid_value")
    return request


def _refuse_unserved(extra: Mapping[str, Any], place: str) -> None:
    """Answering 200 to a parameter without effect would be a lie; a message's fields may only be empty."""
    neutral: Mapping[str, tuple[Any, ...]] = {} if place else _NEUTRAL
    for name, value in extra.items():
        if value is None or (place and value in ("", [])):
            continue
        param = place + name
        if name in neutral:
            if neutral[name] and value not in neutral[name]:
                only = " or ".join(repr(item) for item in neutral[name])
                raise ApiError(
                    400, f"{param!r} is not supported here (only {only} is accepted)", param=param, code="unsupported_parameter"
                )
        elif place or name in _REFUSED:
            raise ApiError(400, f"{param!r} is not supported here", param=param, code="unsupported_parameter")
        else:
            hint = nearest(name, ChatRequest.model_fields)
            raise ApiError(400, f"unknown parameter {param!r}; {hint}", param=param, code="unknown_parameter")


def _invalid(error: ValidationError) -> ApiError:
    """The first problem pydantic found, without the value, which may be a message's text."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    param = ""
    for step in first["loc"]:
        param += f"[{step}]" if isinstance(step, int) else f".{step}" if param else step
    if not param:
        return ApiError(400, "the body is not a JSON object", code="invalid_type")
    if first["type"] == "missing":
        return ApiError(400, f"missing parameter {param!r}", param=param, code="missing_required_parameter")
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}", param=param, code="invalid_value")
