"""The API teachers known by name: where they answer, what they cost, and what may be done with their answers.

Everything here can be overridden by a recipe. Prices and terms change, so they carry dates; models go, so an entry says
when its provider took it away, and the last price it had.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from slmops.errors import ConfigError, UsageError, nearest
from slmops.models.catalogue import lookup
from slmops.sections import Section

Protocol = Literal["openai", "anthropic"]
_OWN_KEY, _OWN_URL = "TEACHER_API_KEY", "TEACHER_BASE_URL"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ApiModel(Section):
    """A teacher behind an API.

    Prices are in US dollars for a million tokens; ``None`` where nobody has said what it costs. ``notice`` says what has
    become of the model at its provider; empty while it answers as it did.
    """

    name: str
    provider: str
    protocol: Protocol
    model: str
    base_url: str
    base_url_env: str
    key_env: str
    context_length: int
    price_input: float | None
    price_output: float | None
    price_date: str
    terms: str
    notice: str = ""

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars for so many tokens."""
        if self.price_input is None or self.price_output is None:
            return None
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6

    @property
    def address(self) -> str:
        """The base URL in force: the environment's, else the catalogue's or the recipe's."""
        return (os.environ.get(self.base_url_env) or self.base_url).rstrip("/")

    @property
    def identity(self) -> dict[str, str]:
        """What tells this teacher from another; of the address without user, password and query."""
        parts = urlsplit(self.address)
        host = parts.netloc.rpartition("@")[2]
        return {"protocol": self.protocol, "model": self.model, "base_url": urlunsplit((parts.scheme, host, parts.path, "", ""))}

    def key(self) -> str:
        """The API key from the environment; servers of one's own may do without.

        Raises:
            ConfigError: The provider wants one, and the variable is not set.
        """
        key = os.environ.get(self.key_env, "").strip()
        if not key and self.key_env != _OWN_KEY and urlsplit(self.address).hostname not in _LOOPBACK:
            raise ConfigError(
                f"{self.provider} wants an API key", where=f"teacher {self.name!r}", fix=f"export {self.key_env}=<your key>"
            )
        return key or "none"


class ApiOptions(Section):
    """What a recipe says about an API teacher; whatever is absent comes from the catalogue."""

    protocol: Protocol | None = Field(None, description="How the endpoint is spoken to")
    model: str | None = Field(None, description="Name of the model at the endpoint")
    base_url: str | None = Field(None, description="Address up to and including /v1")
    key_env: str | None = Field(None, description="Environment variable that holds the API key")
    context_length: int | None = Field(None, ge=1, description="Prompt and answer together, in tokens")
    price_input: float | None = Field(None, ge=0, description="US dollars for a million prompt tokens")
    price_output: float | None = Field(None, ge=0, description="US dollars for a million answer tokens")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Ask for the log-probabilities of so many alternatives a token")
    stream: bool = Field(False, description="Take answers as a stream; for endpoints that cut long silent connections")
    timeout_s: float = Field(120, gt=0, description="Longest wait for one whole answer")


def is_api_teacher(name: str, options: ApiOptions) -> bool:
    """Whether a name means an API teacher: with a base URL any, else one of the catalogue; a path never does.

    A base URL in the environment stands for names that are not those of models for this machine.
    """
    if options.base_url:
        return True
    if Path(name).exists():
        return False
    return name.strip().lower() in API_MODELS or (_OWN_URL in os.environ and lookup(name) is None)


def find_api_model(name: str, options: ApiOptions | None = None) -> ApiModel:
    """The API teacher of that name with a recipe's overrides; with ``base_url`` the name may be any model of that endpoint.

    Raises:
        UsageError: Not in the catalogue, and no ``base_url``; the message has the nearest name.
    """
    options = options or ApiOptions()
    known = API_MODELS.get(name.strip().lower())
    address = options.base_url or os.environ.get(_OWN_URL)
    if known is None and not address:
        raise UsageError(
            f"unknown API teacher {name!r}",
            where="teacher",
            fix=f"{nearest(name.lower(), API_MODELS)}; any other model of an OpenAI-compatible endpoint needs --base_url",
        )
    base = known or _own(name, str(address))
    given = options.model_dump(include=set(ApiModel.model_fields), exclude_none=True)
    if options.base_url:  # what is written down goes before the environment
        given["base_url_env"] = ""
    if options.price_input is not None or options.price_output is not None:
        given["price_date"] = "as given"
    if options.base_url or options.model or os.environ.get(base.base_url_env):  # another model, or another's endpoint
        given["notice"] = ""
    return base.model_copy(update=given)


def _own(name: str, address: str) -> ApiModel:
    return ApiModel(
        name=name,
        provider=f"the endpoint {urlsplit(address).netloc.rpartition('@')[2]}",
        protocol="openai",
        model=name,
        base_url=address,
        base_url_env="",
        key_env=_OWN_KEY,
        context_length=8192,
        price_input=None,
        price_output=None,
        price_date="not given",
        terms="Whether its answers may train another model is for you to find out.",
    )


_OPENAI = (
    "OpenAI's terms (read 2026-05) forbid training models that compete with OpenAI's on the output; other uses of it are the "
    "customer's."
)
_INSTEAD = "name another with teacher.model=NAME, or an endpoint that has it with --base_url"
_ENTRIES = (
    ApiModel(
        name="deepseek-v3",
        provider="DeepSeek",
        protocol="openai",
        model="deepseek-chat",
        base_url="https://api.deepseek.com/v1",
        base_url_env="DEEPSEEK_BASE_URL",
        key_env="DEEPSEEK_API_KEY",
        context_length=131_072,
        price_input=0.28,
        price_output=0.42,
        price_date="2025-12",
        terms="DeepSeek's terms for its API (2026-04-29, 4.2) allow training other models on the output.",
        notice=f"DeepSeek took 'deepseek-chat', its last V3, off its API on 2026-07-24; 'deepseek-flash' followed. {_INSTEAD}",
    ),
    ApiModel(
        name="llama-3.1-405b-instruct",
        provider="Together AI",
        protocol="openai",
        model="meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
        base_url="https://api.together.xyz/v1",
        base_url_env="TOGETHER_BASE_URL",
        key_env="TOGETHER_API_KEY",
        context_length=130_815,
        price_input=3.5,
        price_output=3.5,
        price_date="2025-01",
        terms="Llama 3.1 licence (2024-07-23): a model trained on its answers and passed on is named 'Llama…' and says 'Built "
        "with Llama'.",
        notice=f"Together AI did not list it any more on 2026-07-02; {_INSTEAD}",
    ),
    ApiModel(
        name="gpt-4",
        provider="OpenAI",
        protocol="openai",
        model="gpt-4",
        base_url="https://api.openai.com/v1",
        base_url_env="OPENAI_BASE_URL",
        key_env="OPENAI_API_KEY",
        context_length=8192,
        price_input=30.0,
        price_output=60.0,
        price_date="2026-07",
        terms=_OPENAI,
        notice=f"OpenAI took it off its API on 2026-10-23; {_INSTEAD}",
    ),
    ApiModel(
        name="gpt-4o",
        provider="OpenAI",
        protocol="openai",
        model="gpt-4o",
        base_url="https://api.openai.com/v1",
        base_url_env="OPENAI_BASE_URL",
        key_env="OPENAI_API_KEY",
        context_length=128_000,
        price_input=2.5,
        price_output=10.0,
        price_date="2026-07",
        terms=_OPENAI,
        notice="OpenAI takes it off its API on 2027-01-14.",
    ),
    ApiModel(
        name="claude-3.5-sonnet",
        provider="Anthropic",
        protocol="anthropic",
        model="claude-3-5-sonnet-20241022",
        base_url="https://api.anthropic.com",
        base_url_env="ANTHROPIC_BASE_URL",
        key_env="ANTHROPIC_API_KEY",
        context_length=200_000,
        price_input=3.0,
        price_output=15.0,
        price_date="2026-07",
        terms="Anthropic's commercial terms (2025-06-17) forbid training competing models on the output without its approval.",
        notice=f"Anthropic took it off its API on 2025-10-28; {_INSTEAD}",
    ),
)

API_MODELS: Mapping[str, ApiModel] = {entry.name: entry for entry in _ENTRIES}
"""Short name to entry."""
