"""What the stages of one run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.config import BaseRecipe, Recipe
from slmops.data.chat import TextTemplate
from slmops.data.rows import Row
from slmops.files import read_json, read_jsonl
from slmops.tasks.base import Task, closed_labels, open_task
from slmops.workspace import StageResult, Workspace

if TYPE_CHECKING:
    from slmops.data.templates import Template

MODEL = "model"
"""Sub-folder of an artifact that holds a model."""


@dataclass(frozen=True)
class ModelAt:
    """A model on disk and the id that stands for it in the ids of later stages."""

    path: Path
    id: str


@dataclass(frozen=True)
class DataContext:
    """What a run says of its rows, and its folder."""

    recipe: BaseRecipe
    workspace: Workspace

    @property
    def template_key(self) -> dict[str, Any]:
        """What of the recipe decides how rows are rendered, for stage keys."""
        choice = self.recipe.chat_template
        content = Path(choice).read_text(encoding="utf-8") if Path(choice).is_file() else None
        return {"chat_template": content or choice, "text_template": self.text_template}

    @property
    def text_template(self) -> str | None:
        """The source's ``text_template``, checked."""
        # Where texts are trained on it is no prompt, and its source fills it.
        text = self.recipe.data.source.get("text_template") if self.recipe.trained_on != "text" else None
        return TextTemplate(text).text if text is not None else None

    def template(self, model: Path) -> Template:
        """The recipe's template with the tokenizer of a model."""
        from slmops.data.templates import choose_template
        from slmops.models.load import load_tokenizer

        add = self.recipe.data.special_tokens == "add"
        tokenizer, choice, trained_on = load_tokenizer(model), self.recipe.chat_template, self.recipe.trained_on
        return choose_template(tokenizer, choice, self.text_template, trained_on, add_tokens=add)

    def task_options(self, data: StageResult) -> Mapping[str, Any]:
        """The task's options, completed from the data."""
        options: Mapping[str, Any] = read_json(data.path / "task.json")
        return options

    def has_labels(self, data: StageResult) -> bool:
        """Whether answers are chosen from labels; while planning without the data, that is taken for granted."""
        if not (data.path / "task.json").is_file():
            return True
        return closed_labels(self.task(data)) is not None

    def task(self, data: StageResult) -> Task:
        """The recipe's task."""
        return open_task(self.recipe.task_type, self.task_options(data))


@dataclass(frozen=True)
class Context(DataContext):
    """The recipe and the folder of a run with a teacher."""

    recipe: Recipe


def rows_of(artifact: StageResult, name: str) -> list[Row]:
    """Rows of a file of an artifact, such as ``train``."""
    return [Row.from_dict(value) for value in read_jsonl(artifact.path / f"{name}.jsonl")]
