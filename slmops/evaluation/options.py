"""What ``slmops evaluate`` and :func:`slmops.evaluate` are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from slmops.data.sources import FilesSource
from slmops.evaluation.gates import Gate
from slmops.evaluation.measures import measure_name
from slmops.sections import ComparisonSection, Section
from slmops.tasks.base import names_file

Asked = Literal["row", "task"]


class EvaluateOptions(Section):
    """An evaluation: models, test rows, and what must hold.

    Args:
        models: The models; the first is the one that gates are about, the others it is compared with.
        ask: How models are asked: with the ``row`` as it stands, or as the ``task`` says it, instruction and labels included;
            absent: API teachers as the task says, all others the row.
    """

    models: tuple[str, ...] = Field(min_length=1, description="Models; each a reference or NAME=REFERENCE")
    test_data: Path = Field(description="Test rows with answers")
    output_path: Path = Field(description="Where everything of this evaluation lies")
    task_type: str | None = Field(None, description="Kind of work; absent: what the models or the data say")
    task: dict[str, Any] = Field(default_factory=dict, description="Options of the task type")
    text_template: str | None = Field(None, description='Text with slots, such as "{phrase} => {tone}"')
    input_field: str | None = Field(None, description="Column of the question")
    answer_field: str | None = Field(None, description="Column of the answer")
    tags_field: str | None = Field(None, description="Column of one tag a word, for extraction")
    column_names: tuple[str, ...] = Field((), description="Columns of a file without a header")
    chat_template: str | None = Field(None, description="own, compact, plain or a .jinja file; absent: each model's own")
    ask: Asked | None = Field(None, description="row: the row as it stands; task: as the task says it to a teacher")
    metrics: tuple[str, ...] = Field((), description="Measures, or files with one's own; absent: all that fit the task")
    gates: tuple[str, ...] = Field((), description="What must hold for the first model")
    slices: tuple[str, ...] = Field((), description="Columns of the test data whose values are looked at by themselves")
    train_data: tuple[Path, ...] = Field((), description="Files the models learned from; test rows in them are flagged")
    embeddings: str | None = Field(None, description="Model whose embeddings the measure similarity compares")
    max_new_tokens: int | None = Field(None, ge=1, description="Longest answer in tokens; absent: by the task")
    max_cost: float | None = Field(None, gt=0, description="US dollars at which an API stops")
    evaluation: ComparisonSection = ComparisonSection()

    @field_validator("gates")
    @classmethod
    def _gates_are_gates(cls, gates: tuple[str, ...]) -> tuple[str, ...]:
        for gate in gates:
            Gate.parse(gate)
        return gates

    @field_validator("metrics")
    @classmethod
    def _metrics_are_known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for metric in metrics:
            if not names_file(metric):
                measure_name(metric)
        return metrics

    @property
    def source(self) -> FilesSource:
        """The test file with the columns that the options name."""
        return FilesSource(
            train=self.test_data,
            text_template=self.text_template,
            input_field=self.input_field,
            answer_field=self.answer_field,
            tags_field=self.tags_field,
            column_names=self.column_names,
        )
