"""The card of a packaged model: what a server needs to know beside the engine's own files."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError
from slmops.files import write_json

CARD_FILE = "slmops_bundle.json"


class CardSampling(BaseModel):
    """Defaults for requests that do not say: ``temperature`` (0 is greedy) and most tokens of an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.0, ge=0)
    max_new_tokens: int = Field(ge=1)


class BundleCard(BaseModel):
    """What ``slmops_bundle.json`` holds.

    Args:
        name: The model's name for clients.
        task_type: Task it was made for, such as ``classification``.
        chat_template: How messages become its prompt; it wins over the tokenizer's own.
        sampling: Defaults of a request.
        labels: The valid answers of a classification, else empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    task_type: str
    chat_template: ChatTemplate
    sampling: CardSampling
    labels: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write the card into a model's folder and return its path."""
        file = folder / CARD_FILE
        write_json(file, self.model_dump(mode="json"))
        return file

    @classmethod
    def read(cls, folder: Path) -> BundleCard | None:
        """The card of a folder, ``None`` where there is none.

        Raises:
            ModelError: The card is damaged or has another form.
        """
        file = folder / CARD_FILE
        if not file.is_file():
            return None
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(step) for step in problem["loc"])
            raise ModelError(
                f"the card cannot be read: {place}: {problem['msg']}".replace(": : ", ": "),
                where=str(file),
                fix="package the model again",
            ) from error
