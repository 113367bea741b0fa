"""Data: rows read, looked at, split; what cannot be used lies beside them with its reason, and a report on all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.artifact import StageKey
from slmops.data.given import open_named
from slmops.data.prepare import write
from slmops.data.quality.check import check_source, check_success
from slmops.data.rows import Row
from slmops.data.sources import Source
from slmops.errors import ConfigError, DataError
from slmops.files import digest, file_digest, write_json
from slmops.progress import say
from slmops.stages.context import DataContext, ModelAt, rows_of
from slmops.tasks.base import open_task, task_class, task_key
from slmops.workspace import Made, StageResult

if TYPE_CHECKING:
    from slmops.data.templates import Template

_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")
_TURN_TOKENS = 8
_TEMPLATE_BYTES = 200


def open_source(context: DataContext) -> Source:
    """The recipe's source of rows.

    Raises:
        UsageError: No such source.
        ConfigError: An option it does not know.
    """
    source: Source = open_named(context.recipe.data.source)
    return source


@dataclass(frozen=True)
class Gold:
    """Whether the rows of training, validation and test have gold answers."""

    training: bool
    validation: bool
    test: bool


def gold_of(context: DataContext, data: StageResult) -> Gold:
    """What of a run's data is labelled; while planning without the data, what its source says."""
    if (data.path / "task.json").is_file():
        splits = {name: rows_of(data, name) for name in ("train", "validation", "test")}
        return Gold(bool(splits["train"]), *(_labelled(splits[name]) for name in ("validation", "test")))
    raw = open_source(context).read()
    drawn = bool(raw.labelled)
    return Gold(drawn, *(_labelled(rows) if rows else drawn for rows in (raw.validation, raw.test)))


def _labelled(rows: Sequence[Row]) -> bool:
    return all(row.answer is not None for row in rows)


def prepare_data(context: DataContext, student: ModelAt) -> StageResult:
    """The rows of a run in four files, those set aside, a report on both, and the task's options completed from the rows.

    Args:
        context: Of the run.
        student: The model whose context questions must fit into.
    """
    recipe = context.recipe
    section = recipe.data
    source = open_source(context)
    config = {
        **section.model_dump(mode="json", exclude={"source", "train_on"}),
        "task_type": task_key(recipe.task_type),
        "task": recipe.task,
        "seed": recipe.seed,
        "max_length": recipe.room[0],
        "max_new_tokens": recipe.room[1],
        **context.template_key,
    }
    key = StageKey("data", "dataset", 4, config, {"source": source.fingerprint(), "tokenizer": _tokenizer_id(student)})

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.data_page import PAGE, write_pages

        _check_marks(context, student)
        model = task_class(recipe.task_type)
        raw = source.read()
        given = [row.answer for rows in (raw.labelled, raw.validation, raw.test) for row in rows if row.answer is not None]
        task = open_task(recipe.task_type, model.complete(recipe.task, given))

        prepared, report = check_source(
            raw,
            section.quality,
            name=recipe.name,
            task=task,
            unfit=_Room(context, student).problem,
            seed=recipe.seed,
            max_bad_share=section.max_bad_share,
            validation_share=section.validation_share,
            test_share=section.test_share,
        )
        if raw.labelled and not prepared.train:
            raise DataError(
                "no labelled row is left for training",
                where="data.source",
                fix="look why they were set aside: slmops check-data; or give rows without answers alone",
            )
        splits = [prepared.split(name) for name in ("train", "validation", "test")]
        options = model.complete(recipe.task, [row.answer for rows in splits for row in rows if row.answer is not None])
        open_task(recipe.task_type, options)
        write(prepared, folder)
        write_pages(report, folder)
        write_json(folder / "task.json", options)
        check_success(report, section.quality.min_success, where=str(folder / PAGE))
        facts = {**prepared.facts(), "quality": report.summary()}
        say("  rows: " + ", ".join(f"{name} {count}" for name, count in facts["rows"].items()))
        return Made(facts, seed=recipe.seed)

    return context.workspace.stage(key, make)


def _tokenizer_id(student: ModelAt) -> str:
    """What stands for a model's tokenizer, so that another student with the same one gets the same rows."""
    files = [file for name in _TOKENIZER if (file := student.path / name).is_file()]
    return digest([file_digest(file) for file in files]) if files else student.id


def _check_marks(context: DataContext, student: ModelAt) -> None:
    """Refuse a text template in the format of another model, or say that it is taken as plain text."""
    if context.text_template is None:
        return
    from slmops.data.templates import foreign_tokens
    from slmops.models.load import load_tokenizer

    tokenizer = load_tokenizer(student.path)
    marks = foreign_tokens(context.text_template, tokenizer)
    if not marks:
        return
    named, own = ", ".join(marks), ", ".join(tokenizer.all_special_tokens)
    chosen = context.recipe.data.special_tokens
    if chosen == "error":
        raise ConfigError(
            f"{named}: no tokens of this model, whose own are {own}",
            where="text_template",
            fix="write the template with these, or take data.special_tokens=text, which trains on them as plain text",
        )
    if chosen == "add":
        say(f"  {named}: new tokens of this model, trained from the mean of its embeddings; its own are {own}")
    else:
        say(f"  {named}: no tokens of this model, taken as plain text; its own are {own}")


class _Room:
    """Whether a question and its answer fit into a model; the tokenizer is loaded when the first doubt comes."""

    def __init__(self, context: DataContext, student: ModelAt) -> None:
        self._context, self._student = context, student

    def problem(self, row: Row) -> str | None:
        """Why a row does not fit, or ``None``."""
        length, answer = self._context.recipe.room
        most = length - answer
        # No tokenizer makes more tokens than bytes; the template's own words are few.
        if sum(len(turn["content"].encode()) + _TURN_TOKENS for turn in row.messages) + _TEMPLATE_BYTES <= most:
            return None
        length = len(self._template.prompt_ids(row))
        return f"too long: the question has {length:,} tokens, and {most:,} fit beside an answer" if length > most else None

    @cached_property
    def _template(self) -> Template:
        return self._context.template(self._student.path)
