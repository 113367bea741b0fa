"""What is asked of a teacher behind an API, what comes back, and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

from slmops.data.rows import Message
from slmops.runtimes.base import Sampling

CHARACTERS_A_TOKEN = 4.0
_TOKENS_A_TURN = 4


@dataclass(frozen=True)
class AskParams(Sampling):
    """How an API samples; all of it is part of a request's identity.

    Args:
        top_logprobs: Alternatives a token whose log-probabilities are asked for (0: of the chosen token alone); ``None``: none.
        draw: Number of the answer where one question is asked several times; each is a request of its own.
    """

    top_logprobs: int | None = None
    draw: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer as it came.

    Args:
        text: The answer.
        finish_reason: ``stop``, or ``length`` where it was cut.
        prompt_tokens: As the endpoint counts them; estimated where it does not say.
        completion_tokens: The same.
        logprobs: One ``{"token", "logprob", "top"}`` a token of the answer, ``top`` a list of ``[token, logprob]``; in nats.
        model: Name of the model that the endpoint says has answered.
        seconds: From the request to the whole answer; ``None`` where nobody took the time.
        first_seconds: From the request to the first text of a stream.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[Mapping[str, Any], ...] | None
    model: str
    seconds: float | None = None
    first_seconds: float | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Reply:
        """Read what :meth:`as_dict` wrote."""
        given = {one.name: value[one.name] for one in fields(cls) if one.name in value}
        return cls(**{**given, "logprobs": None if given["logprobs"] is None else tuple(given["logprobs"])})


Action = Literal["retry", "reject", "stop"]


class Fault(Exception):
    """A request that brought no answer.

    Args:
        kind: What happened, in a few words; faults are counted by it.
        detail: What the endpoint said; never a secret.
        action: ``retry`` the request, ``reject`` the row, or ``stop`` everything.
        overload: Whether the endpoint is asked for too much.
        retry_after: Seconds that the endpoint wants to be left alone.
        lost: Whether an answer may have been made, and will be billed, that did not arrive.
        fix: What the user can do about it.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        action: Action = "retry",
        overload: bool = False,
        retry_after: float | None = None,
        lost: bool = False,
        fix: str | None = None,
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.action, self.overload, self.retry_after = kind, action, overload, retry_after
        self.lost, self.fix = lost, fix


class ChatClient(Protocol):
    """One face over all endpoints."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What determines the answers besides messages and parameters; no secret is in it."""

    async def ask(self, messages: Sequence[Message], params: AskParams) -> Reply:
        """One answer; raises :class:`Fault`. Nothing is retried here."""

    async def close(self) -> None:
        """Close the connections."""


def estimate_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a prompt has: four ASCII characters a token, other characters one each."""
    return sum(_TOKENS_A_TURN + estimate_text_tokens(turn["content"]) for turn in messages)


def estimate_text_tokens(text: str) -> int:
    """The same for a text by itself."""
    plain = len(text) if text.isascii() else sum(character < "\x80" for character in text)
    return round(plain / CHARACTERS_A_TOKEN) + len(text) - plain
