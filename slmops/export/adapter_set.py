"""What a package with several adapters says of them: read by engine and server without a training framework."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError, UsageError, nearest
from slmops.files import write_json

ADAPTERS = "adapters"
"""Folder of a package with one ``<name>.onnx_adapter`` an adapter."""

SET_FILE = "adapters.json"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Agreement(BaseModel):
    """Greedy answers of the package beside those of the float32 model that it stands for.

    Args:
        rows: Answers compared.
        equal: Equal ones.
        same_tokens: Whether both get the same prompts and token ids.
        questions: Where these come from: ``validation rows`` of the adapter's training, or ``general questions``.
        different: A few that differ: prompt, the model's answer, the package's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    equal: int
    same_tokens: bool
    questions: str
    different: tuple[tuple[str, str, str], ...] = ()


class AdapterEntry(BaseModel):
    """One adapter of a package.

    Args:
        name: What requests call it.
        source: Where it was, as it was given.
        fingerprint: Of the adapter's files there.
        sha256: Of its file in the package.
        rank: Largest rank of a layer.
        targets: Last parts of the names of the adapted layers.
        parameters: Number of its weights.
        chat_template: How messages become its prompt.
        agreement: With the base into which it alone was merged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    source: str
    fingerprint: str
    sha256: str
    rank: int
    targets: tuple[str, ...]
    parameters: int
    chat_template: ChatTemplate
    agreement: Agreement

    @property
    def file(self) -> str:
        """Path in the package."""
        return f"{ADAPTERS}/{self.name}.onnx_adapter"


class AdapterSet(BaseModel):
    """What ``adapters.json`` holds.

    Args:
        name: Of the model without an adapter, for requests.
        base: What the base model was called.
        scheme: Of the base's weights; the adapters are float32.
        key: Changes when anything does that the package was made of.
        agreement: Of the model without an adapter, with the base.
        adapters: In the order they were given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    base: str
    scheme: str
    key: str
    agreement: Agreement
    adapters: tuple[AdapterEntry, ...]

    def write(self, folder: Path) -> None:
        """Write it into a package."""
        write_json(folder / SET_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> AdapterSet | None:
        """That of a folder, ``None`` where there is none.

        Raises:
            ModelError: It is damaged or has another form.
        """
        file = folder / SET_FILE
        if not file.is_file():
            return None
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise ModelError(f"the list of adapters cannot be read: {error}", where=str(file), fix="generate it again") from error

    @classmethod
    def check(cls, folder: Path, name: str) -> None:
        """Refuse an adapter that a folder does not have.

        Raises:
            UsageError: It has none of that name.
        """
        known = cls.read(folder)
        names = [entry.name for entry in known.adapters] if known is not None else []
        if not names:
            raise UsageError(f"{folder} has no adapters", where="--adapter", fix="slmops generate-adapter makes a model with some")
        if name not in names:
            raise UsageError(f"{folder} has no adapter {name!r}", where="--adapter", fix=nearest(name, names))
