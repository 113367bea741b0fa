"""Recipes: what a run does, as frozen models that refuse unknown keys.

Order of precedence: defaults < recipe < ``key=value`` on the command line. Every plug-in owns its options model; a
recipe names the plug-in with ``name:`` and gives its options beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from slmops.errors import ConfigError, nearest
from slmops.files import atomic
from slmops.sections import (
    AnswersSection,
    DataSection,
    EvaluationSection,
    ExportSection,
    SearchSection,
    Section,
    SignalsSection,
    StudentSection,
    TeacherSection,
    TrainingSection,
)
from slmops.values import read_values

TEXT = "text"
"""The task type of texts without answers."""

_SEARCH_KEYS = ("search_strategy", "search_space")


class BaseRecipe(Section, ABC):
    """What every run says, whatever it makes: its rows, what they ask for, and where everything lies."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Name of the run and of the packaged model")
    task_type: str = Field(description="Kind of work")
    task: dict[str, Any] = Field(default_factory=dict, description="Options of the task type; labels come from the data if absent")
    output_path: Path = Field(description="Where everything of this run lies")
    seed: int = Field(0, ge=0, description="Seed of splits, batches and initial weights")
    chat_template: str = Field("own", description="own, compact, plain or the path of a .jinja file")
    data: DataSection
    search: SearchSection | None = Field(None, description="What slmops search varies; a run does not read it")

    @model_validator(mode="before")
    @classmethod
    def _search_at_the_top(cls, values: Any) -> Any:
        """``search_strategy`` and ``search_space`` may stand beside the sections of the recipe."""
        if not isinstance(values, dict) or not any(key in values for key in _SEARCH_KEYS):
            return values
        moved = {key: values[key] for key in _SEARCH_KEYS if key in values}
        rest = {key: value for key, value in values.items() if key not in _SEARCH_KEYS}
        return {**rest, "search": {**(values.get("search") or {}), **moved}}

    @property
    def trained_on(self) -> Literal["answer", "all", "text"]:
        """What of a row is trained on."""
        return "answer"

    @property
    @abstractmethod
    def room(self) -> tuple[int, int]:
        """Tokens that question and answer may have together, and those that are kept for the answer."""


class Recipe(BaseRecipe):
    """A whole run: data → teacher → answers and signals → training → export → evaluation → package."""

    teacher: TeacherSection
    answers: AnswersSection = AnswersSection()
    signals: SignalsSection = SignalsSection()
    student: StudentSection = StudentSection()
    training: TrainingSection = TrainingSection()
    export: ExportSection = ExportSection()
    evaluation: EvaluationSection = EvaluationSection()
    gates: tuple[str, ...] = Field(
        (), description="What must hold for a model to be packaged; a mapping non_inferior: {to, margin, measure} is read too"
    )

    @model_validator(mode="after")
    def _something_is_measured(self) -> Recipe:
        if not self.data.test_share:
            raise ValueError("data.test_share must be more than 0: without test rows nothing can be said of the models")
        return self

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Recipe:
        if self.data.special_tokens == "add":
            raise ValueError("data.special_tokens: add is for fine-tuning; teacher and student would differ in their tokens")
        return self

    @model_validator(mode="after")
    def _what_is_trained_is_exported(self) -> Recipe:
        if self.training.bottleneck is not None or (self.teacher.tune is not None and self.teacher.tune.bottleneck is not None):
            raise ValueError("bottleneck adapters cannot be merged into weights, which are exported here: take lora")
        return self

    @model_validator(mode="after")
    def _sampled_at_one_temperature(self) -> Recipe:
        softened = [str(spec.get("name")) for spec in self.training.objectives if spec.get("kd_temperature", 1) != 1]
        if self.signals.form == "sampled" and softened:
            raise ValueError(
                f"{' and '.join(softened)} with a kd_temperature needs signals.form: topk; tokens are drawn at temperature 1"
            )
        return self

    @property
    def room(self) -> tuple[int, int]:
        """What the export makes room for, and the longest answer."""
        return self.export.max_length, self.answers.max_new_tokens

    @field_validator("gates", mode="before")
    @classmethod
    def _gates_in_words(cls, gates: Any) -> Any:
        return [_gate_in_words(gate) for gate in gates] if isinstance(gates, (list, tuple)) else gates


class FinetuneTraining(TrainingSection):
    """A training that nothing is compared with update by update, so it may end when it is no longer of use."""

    keep: Literal["last", "best"] = Field(
        "best", description="Weights that are saved: those with the lowest validation loss, or those after the last update"
    )
    patience: int | None = Field(
        3, ge=1, description="Looks at the validation loss without a new lowest after which it stops; absent: never"
    )


class FinetuneData(DataSection):
    """The rows of a fine-tuning, which may be learned as a whole."""

    train_on: Literal["answer", "all"] = Field(
        "answer", description="What of a row is trained on: its answer and an end token, or all that the template makes of it"
    )


class FinetuneRecipe(BaseRecipe):
    """A model trained on labelled rows: data → training. It names a ``model`` where a distillation names a ``teacher``."""

    data: FinetuneData
    model: str = Field(description="What is trained: catalogue name, folder, adapter, .gguf file or hub id")
    training: FinetuneTraining = FinetuneTraining()
    head: bool = Field(
        False, description="Classification by a linear layer on the last token's state, in place of an answer in words"
    )
    merge: bool = Field(False, description="Write the weights with the adapter merged into them too")
    trust_remote_code: bool = Field(False, description="Run Python code that lies in the model's folder, where it needs such")
    score: bool = Field(True, description="Have the model answer validation rows before and after, where the task has a score")
    continue_adapter: bool = Field(
        False,
        description="The model is an adapter: train it further on its own base, with its own settings; "
        "else it is merged into that, and a new one trained",
    )

    @model_validator(mode="after")
    def _nobody_teaches(self) -> FinetuneRecipe:
        if self.training.on_policy is not None:
            raise ValueError("training.on_policy needs a teacher, and fine-tuning has none")
        lora = self.training.lora
        if self.head and self.task_type != "classification":
            raise ValueError(f"head is about labels, and the task is {self.task_type}: take task_type classification")
        if self.head and (self.training.bottleneck is not None or (lora is not None and lora.bits is not None)):
            raise ValueError("head: train it with all weights, LoRA or DoRA")
        if self.head and (self.merge or self.continue_adapter):
            raise ValueError("head: an adapter trained with it is always merged, and none is continued")
        if self.merge and self.training.bottleneck is not None:
            raise ValueError("merge: bottleneck adapters cannot be merged into weights; leave it out, or train lora instead")
        if self.merge and self.training.lora is None and not self.continue_adapter:
            raise ValueError("merge is about an adapter, and without training.lora none is trained")
        if self.data.special_tokens == "add" and self.training.freeze_embeddings:
            raise ValueError(
                "data.special_tokens: add gives the model new embeddings to train, and training.freeze_embeddings none"
            )
        return self

    @property
    def trained_on(self) -> Literal["answer", "all", "text"]:
        """What of a row is trained on; of texts without answers all."""
        return "text" if self.task_type == TEXT else self.data.train_on

    @property
    def room(self) -> tuple[int, int]:
        """The longest row, and a token that is its end; longer ones are set aside when it is known how long their answers are."""
        return self.training.max_length, 1


def _gate_in_words(gate: Any) -> Any:
    """``{name: {key: value}}`` as the text ``name(key=value)``, which is what gates are read from."""
    if not isinstance(gate, dict):
        return gate
    if len(gate) != 1 or not all(isinstance(options, dict) for options in gate.values()):
        raise ValueError(f"{gate} is no gate; write {{non_inferior: {{to: <row>, margin: 0.03}}}}, or a text")
    ((name, options),) = gate.items()
    return f"{name}({', '.join(f'{key}={value}' for key, value in options.items() if value is not None)})"


_M = TypeVar("_M", bound=BaseModel)


def build(model: type[_M], values: Mapping[str, Any], *, where: str) -> _M:
    """Validate values against a model.

    Raises:
        ConfigError: Names the key, what is wrong with it and, for an unknown key, the nearest known one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_problems(model, error), where=where) from error


def plugin(spec: Mapping[str, Any], *, where: str) -> tuple[str, dict[str, Any]]:
    """Split a plug-in of a recipe into its name and its options.

    Raises:
        ConfigError: There is no ``name``.
    """
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("a plug-in needs a name", where=where, fix="write {name: ..., <options>}")
    return name, options


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides (values are YAML).

    Raises:
        ConfigError: The file is not valid YAML, or a value is wrong.
    """
    return build(Recipe, read_values(path, overrides), where=str(path))


def is_finetuning(values: Mapping[str, Any]) -> bool:
    """Whether the values of a recipe are those of a :class:`FinetuneRecipe`, which names a model and no teacher."""
    return "model" in values and "teacher" not in values


def load_any_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe | FinetuneRecipe:
    """:func:`load_recipe`, or the same for a fine-tuning."""
    values = read_values(path, overrides)
    if is_finetuning(values):
        return build(FinetuneRecipe, values, where=str(path))
    return build(Recipe, values, where=str(path))


def save_recipe(path: Path, recipe: BaseRecipe) -> None:
    """Write a recipe with the values that differ from the defaults."""
    with atomic(path) as file:
        yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True), file, sort_keys=False, allow_unicode=True)


def _problems(model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; {nearest(str(problem['loc'][-1]), _known(model, problem['loc'][:-1]))}")
        else:
            lines.append(f"{key}: {problem['msg']}" if key else problem["msg"])
    return "; ".join(lines)


def _known(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in location:
        field = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        if field is None:
            continue
        candidates = getattr(field.annotation, "__args__", (field.annotation,))
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return [field.alias or name for name, field in current.model_fields.items()]
