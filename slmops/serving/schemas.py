"""Request and response bodies of the OpenAI API parts we serve (chat completions and models)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def _text_of(content: Any) -> Any:
    """``content`` as one string: ``None`` is empty, an array of text parts is joined by line breaks."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    for number, part in enumerate(content):
        if (
            not isinstance(part, dict)
            or set(part) != {"type", "text"}
            or part["type"] != "text"
            or not isinstance(part["text"], str)
        ):
            raise ValueError(f'part {number} is not {{"type": "text", "text": "…"}}; this model reads text only')
    return "\n".join(part["text"] for part in content)


def _list_of(stop: Any) -> Any:
    """``stop`` as a list, whether it came as one string, a list or ``null``."""
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else stop


class Message(BaseModel):
    """One turn. Fields of the API that we do not serve land in ``model_extra`` (see ``checks``)."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of)]

    def turn(self) -> dict[str, str]:
        """The turn as chat templates know it; ``developer`` is the API's newer word for ``system``."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class StreamOptions(BaseModel):
    """What a streamed answer carries beyond the text."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ChatRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``: the fields that have an effect; all others land in ``model_extra``."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], BeforeValidator(_list_of), Field(max_length=4)] = []

    @property
    def token_limit(self) -> int | None:
        """Most tokens of the answer, under its newer or its older name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed answer ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


class Usage(BaseModel):
    """Tokens of prompt and answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class LogProb(BaseModel):
    """The logarithm of a label's probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class LabelLogProb(LogProb):
    """That of the label which is the answer, and those of all."""

    top_logprobs: list[LogProb]


class LabelLogProbs(BaseModel):
    """How sure a classification head is, in the form of tokens' log-probabilities."""

    content: list[LabelLogProb]
    refusal: None = None


class Choice(BaseModel):
    """The one answer of a completion."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: LabelLogProbs | None = None
    finish_reason: str


class ChatCompletion(BaseModel):
    """Whole answer of ``POST /v1/chat/completions``; ``created`` is in Unix seconds."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ChunkChoice(BaseModel):
    """What one frame adds; ``delta`` holds ``role``, ``content`` or, in the finish frame, nothing."""

    index: Literal[0] = 0
    delta: dict[str, str]
    logprobs: None = None
    finish_reason: str | None = None


class ChatChunk(BaseModel):
    """One frame of a streamed answer; ``usage`` is only there when the client asked for it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    """An entry of ``GET /v1/models``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "slmops"


class ModelList(BaseModel):
    """Body of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Body of ``GET /health``; ``uptime`` is in seconds since the model was loaded."""

    status: Literal["ok"] = "ok"
    model: str
    runtime: str
    precision: str
    uptime: float


class ErrorDetail(BaseModel):
    """What went wrong, in the words OpenAI clients know."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every answer that is not a success."""

    error: ErrorDetail
