"""What ``report.json`` holds; the page, the terminal table and every other reader of a report start from here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from slmops.errors import ArtifactError
from slmops.evaluation.origins import Answers, Data, Export, Model, Stage, Training
from slmops.evaluation.parts import (
    ClassScore,
    Confusion,
    Difference,
    Disagreement,
    Headline,
    Judge,
    Leakage,
    Machine,
    Measure,
    Part,
    Reliability,
    Row,
    Slice,
    Verdict,
)

SCHEMA_VERSION = 2
"""Version of what ``report.json`` holds."""

_AGAIN = "run the evaluation again with this version of slmops"


class Report(Part):
    """A report: everything that the page and the terminal table show, and nothing else.

    That of ``slmops evaluate`` compares models without a distillation: it has no data, answers, training or headline.
    """

    schema_version: Literal[2] = Field(description="Version of this schema")
    name: str = Field(description="Of the run, or what was evaluated")
    task_type: str = Field(description="Such as classification")
    created: datetime = Field(description="When, with the time zone")
    code_version: str = Field(description="Of slmops")
    seed: int = Field(description="Of everything that is drawn")
    machine: Machine = Field(description="Where all rows were measured")
    primary_measure: str = Field(description="Key of the measure that quality is judged by")
    reference: Literal["gold", "teacher"] = Field(
        "gold", description="What answers are compared with: gold, or the teacher's own answers where there is none"
    )
    test_rows: int = Field(description="Rows that every row of the comparison answered")
    confidence: float = Field(description="Of all intervals, such as 0.95", gt=0, lt=1)
    verdict: Verdict = Field(description="The answer for a reader in a hurry")
    leakage: Leakage | None = Field(None, description="Test rows that stand in training data; null where nobody looked")
    rows: list[Row] = Field(min_length=1, description="The models that are compared")
    measures: dict[str, Measure] = Field(description="What the measures are, by key")
    differences: list[Difference] = Field([], description="Paired comparisons")
    needed: list[str] = Field([], description="How many more test rows would settle what is INCONCLUSIVE, a sentence each")
    headline: list[Headline] = Field([], description="Targets of the project; empty for an evaluation alone")
    judge: Judge | None = Field(None, description="Null where no judge was asked")
    confusion: Confusion | None = Field(None, description="Null for tasks without labels")
    classes: list[ClassScore] = Field([], description="Precision, recall and F1 by label; empty for tasks without labels")
    slices: list[Slice] = Field([], description="Scores of parts of the test rows; all that were looked at")
    reliability: list[Reliability] = Field([], description="Calibration, of the rows whose confidence is known")
    disagreements: list[Disagreement] = Field([], description="Where two rows answer most differently, the largest first")
    export_measure: str | None = Field(None, description="Key of the measure of the export attempts; null: the primary measure")
    export: list[Export] = Field([], description="Conversions that were tried; empty for an evaluation alone")
    data: Data | None = Field(None, description="What the models saw; null for an evaluation alone")
    answers: Answers | None = Field(None, description="What the teacher answered; null for an evaluation alone")
    training: list[Training] = Field([], description="Training runs; empty for an evaluation alone")
    stages: list[Stage] = Field([], description="Completed stages, in the order they ran")
    models: list[Model] = Field([], description="Outside models that were used")
    decoding: dict[str, str] = Field({}, description="How answers were made: sampling, template, prompts")
    reproduce: list[str] = Field(description="Commands that make this report again")
    notes: list[str] = Field(description="Caveats: how rows were chosen, what was not reached")

    @model_validator(mode="after")
    def _explained(self) -> Report:
        used = {self.primary_measure, self.export_measure or self.primary_measure}
        used |= {item.measure for item in self.differences} | {item.measure for item in self.slices}
        used = used.union(*(row.measures for row in self.rows), *(row.intervals for row in self.rows))
        if missing := sorted(used - self.measures.keys()):
            raise ValueError(f"not explained under measures: {', '.join(missing)}")
        return self

    @property
    def packaged(self) -> Row | None:
        """The row that was packaged."""
        return next((row for row in self.rows if row.packaged), None)

    @property
    def distilled(self) -> bool:
        """Whether this is the report of a distillation, and not of ``slmops evaluate`` alone."""
        return self.answers is not None

    @property
    def shown(self) -> Row | None:
        """The row that is shown by itself: what was packaged, or the only one."""
        return self.packaged or (self.rows[0] if len(self.rows) == 1 else None)

    def row(self, name: str) -> Row | None:
        """The row of that name."""
        return next((row for row in self.rows if row.name == name), None)

    def title(self, name: str) -> str:
        """The title of the row of that name, or the name where there is no such row."""
        row = self.row(name)
        return row.title if row else name


def parse_report(value: Mapping[str, Any]) -> Report:
    """Validate the content of ``report.json``.

    Raises:
        ArtifactError: The report is of another version, a key is unknown or missing, or a value has the wrong type; names
            the first few.
    """
    version = value.get("schema_version")
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise ArtifactError(
            f"this report has version {version}, and this slmops reads version {SCHEMA_VERSION}", where="report.json", fix=_AGAIN
        )
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        shown = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'report'}: {problem['msg']}" for problem in problems[:3])
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ArtifactError(f"this is no report that can be shown: {shown}{more}", where="report.json", fix=_AGAIN) from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``report.json``; ``docs/report.schema.json`` is a copy of it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema()}
