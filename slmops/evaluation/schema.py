"""What ``report.json`` holds; the page, the terminal table and every other reader of a report start from here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from slmops.errors import ArtifactError

Word = Literal["better", "worse", "INCONCLUSIVE"]
Outcome = Literal["passed", "failed", "INCONCLUSIVE"]
Interval = tuple[float, float]


class Part(BaseModel):
    """Base of all parts: an unknown key, NaN or infinity is an error; what is unknown is ``null``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Machine(Part):
    """The machine that every row was measured on."""

    cpu: str = Field(description="Name of the processor")
    cores: int = Field(description="Cores the measurement was allowed to use")
    memory_gib: float = Field(description="Memory of the machine, GiB")
    os: str = Field(description="Operating system and version")
    python: str = Field(description="Python version")


class Verdict(Part):
    """The answer for a reader in a hurry."""

    word: Word = Field(description="What distillation did against the control; without labels, against the untuned student")
    sentence: str = Field(description="The verdict as one sentence")
    packaged: str | None = Field(description="Name of the row that was packaged; null where no candidate passed its gates")
    why: str = Field(description="Why this row is packaged, or why none is")


class Gate(Part):
    """A condition of the recipe and what came of it."""

    gate: str = Field(description="The condition as the recipe has it")
    verdict: Outcome
    detail: str = Field(description="The figures that decided")


class Row(Part):
    """One model, or the same model in another form, measured on the test rows."""

    name: str = Field(description="Unique in the report, such as teacher-quantized")
    title: str = Field(description="The name as people say it")
    note: str = Field(description="What it is, in a few words")
    runtime: str
    precision: str
    measures: dict[str, float | None] = Field(description="Value by measure; null is unknown")
    intervals: dict[str, Interval] = Field(description="Low and high end by measure, at the report's confidence")
    latencies_ms: list[float] = Field(description="Times of single requests; empty where not measured")
    gates: list[Gate] = Field(description="Empty where gates do not apply")
    packaged: bool = Field(description="Whether this is what was packaged")


class Measure(Part):
    """What a column means."""

    title: str
    unit: str = Field(description="Empty for a share or a score")
    better: Literal["higher", "lower"]
    help: str = Field(description="How it is measured, in a sentence or two")


class Difference(Part):
    """A paired comparison of two rows on the same test rows."""

    a: str
    b: str
    measure: str
    difference: float = Field(description="Value of a minus value of b")
    interval: Interval
    word: Word = Field(description="What a is against b")
    method: str = Field(description="Such as: paired bootstrap, 10,000 resamples")


class Headline(Part):
    """A target of the project: what is packaged against the tuned teacher in float32."""

    what: str
    value: float | None = Field(description="Null where it could not be measured")
    target: float = Field(description="The least value that counts as reached")
    unit: Literal["share", "percent less", "times"] = Field(
        description="share: 1.0 is all of it; percent less: 0 to 100; times: a factor"
    )
    reached: bool


class Attempt(Part):
    """One quantization scheme that was tried."""

    scheme: str
    size_mb: float | None
    agreement: float | None = Field(description="Share of greedy answers equal to the model before export")
    measure: float | None = Field(description="The export measure after export")
    reference: float | None = Field(description="The export measure before export, on the same rows")
    passed: bool
    why: str = Field(description="What decided; may be empty where it passed")


class Export(Part):
    """The schemes tried for a model, in the order they were tried."""

    model: str
    attempts: list[Attempt]
    chosen: str | None = Field(description="The scheme that passed; null where none did")


class Judge(Part):
    """Who compared the answers with the references, over all rows of the comparison and all candidates."""

    name: str
    rubric: str = Field(description="What makes an answer the better one")
    wins: int = Field(description="Answers preferred to the reference in both orders")
    losses: int = Field(description="References preferred to the answer, and invalid answers")
    ties: int = Field(description="All others; they count half")
    same: int = Field(description="Ties because the answer is the reference; the judge was not asked")
    invalid: int = Field(description="Losses because the answer is none; the judge was not asked")
    contradicted: int = Field(description="Ties because the two orders gave different verdicts")
    unread: int = Field(description="Ties because a verdict is missing or could not be read")
    masked: dict[str, int] = Field(description="Pieces of personal data masked in what left the machine, by kind")
    calls: int | None = Field(None, description="Verdicts that were paid for")
    tokens: int | None = Field(None, description="Tokens of these, in and out")
    cost: float | None = Field(None, description="US dollars for these")


class LabelCount(Part):
    """Rows with a label."""

    label: str
    train: int
    test: int


class DataQuality(Part):
    """What the look at the data came to; the data report beside the report has all of it."""

    read: int = Field(description="Rows read, usable or not")
    good: int = Field(description="Rows that were used")
    success: float = Field(description="Share of the rows without a fault of their own; duplicates and leaks have none")
    duplicates: int = Field(description="Rows set aside as duplicates or near duplicates")
    leaks: int = Field(description="Rows set aside because a held-out split has them")
    notes: list[str] = Field(description="What a person should look at")


class Data(Part):
    """What the models saw."""

    counts: dict[str, int] = Field(description="Rows by split")
    rejected: dict[str, int] = Field(description="Rows set aside, by reason")
    labels: list[LabelCount] = Field(description="Balance of the labels; empty for tasks without labels")
    overlap: int = Field(description="Test rows that also stand in train, pool or validation")
    quality: DataQuality


class Answers(Part):
    """What the teacher answered."""

    answered: int
    rejected: int
    reasons: dict[str, int] = Field(description="Rejected answers by reason")
    right_where_known: float | None = Field(description="Share of right answers among rows whose label is known")
    right_at_first: float | None = Field(None, description="The same at the first attempt, where rows were asked again")
    disagreement: float | None = Field(None, description="Share of rows on which the members of an ensemble disagree")
    calls: int | None = Field(None, description="Answers that were paid for, those to test rows among them")
    tokens: int | None = Field(None, description="Tokens of these, in and out")
    cost: float | None = Field(None, description="US dollars for these")
    masked: dict[str, int] = Field({}, description="Pieces of personal data masked in what left the machine, by kind")


class CurvePoint(Part):
    """State of a training after a step."""

    step: int
    loss: float = Field(description="Training loss of the step")
    validation: float | None = Field(description="Loss on the validation rows; null where not computed at this step")


class Training(Part):
    """One training run."""

    name: str
    steps: int
    seconds: float
    curve: list[CurvePoint]
    note: str


class Confusion(Part):
    """Counts of answers by expected label."""

    row: str = Field(description="Name of the row the counts belong to")
    labels: list[str]
    matrix: list[list[int]] = Field(description="One list for each expected label, one count for each answered label")

    @model_validator(mode="after")
    def _square(self) -> Confusion:
        lengths = {len(self.matrix), *(len(line) for line in self.matrix)}
        if lengths != {len(self.labels)}:
            raise ValueError(f"the matrix must be {len(self.labels)} × {len(self.labels)}, as many as there are labels")
        return self


class Disagreement(Part):
    """A test row that the teacher and what is packaged answer differently."""

    question: str
    expected: str
    teacher: str
    packaged: str
    teacher_right: bool | None = Field(description="Null where answers are neither right nor wrong")
    packaged_right: bool | None = Field(description="The same")


class Stage(Part):
    """A completed stage of the run."""

    stage: str
    id: str
    seconds: float
    parents: dict[str, str] = Field(description="Role to id of what the stage read")


class Model(Part):
    """An outside model that the run used."""

    role: str
    name: str
    source: str
    license: str
    fingerprint: str


class Report(Part):
    """A report: everything that the page and the terminal table show, and nothing else."""

    schema_version: Literal[1]
    name: str
    task_type: str
    created: datetime
    code_version: str
    seed: int
    machine: Machine
    primary_measure: str = Field(description="Key of the measure that quality is judged by")
    reference: Literal["gold", "teacher"] = Field(
        "gold", description="What answers are compared with: gold, or the teacher's own answers where there is none"
    )
    test_rows: int
    confidence: float = Field(description="Of all intervals, such as 0.95", gt=0, lt=1)
    verdict: Verdict
    rows: list[Row] = Field(min_length=1)
    measures: dict[str, Measure]
    differences: list[Difference]
    headline: list[Headline]
    judge: Judge | None = Field(None, description="Null where no judge was asked")
    export_measure: str | None = Field(None, description="Key of the measure of the export attempts; null: the primary measure")
    export: list[Export]
    data: Data
    answers: Answers
    training: list[Training]
    confusion: Confusion | None = Field(description="Null for tasks without labels")
    disagreements: list[Disagreement]
    stages: list[Stage]
    models: list[Model]
    reproduce: list[str] = Field(description="Commands that make this report again")
    notes: list[str] = Field(description="Caveats: how rows were chosen, what was not reached")

    @model_validator(mode="after")
    def _explained(self) -> Report:
        used = {self.primary_measure, self.export_measure or self.primary_measure, *(item.measure for item in self.differences)}
        used = used.union(*(row.measures for row in self.rows), *(row.intervals for row in self.rows))
        if missing := sorted(used - self.measures.keys()):
            raise ValueError(f"not explained under measures: {', '.join(missing)}")
        return self

    @property
    def packaged(self) -> Row | None:
        """The row that was packaged."""
        return next((row for row in self.rows if row.packaged), None)

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
        ArtifactError: A key is unknown or missing, or a value has the wrong type; names the first few.
    """
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        shown = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'report'}: {problem['msg']}" for problem in problems[:3])
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ArtifactError(
            f"this is no report that can be shown: {shown}{more}",
            where="report.json",
            fix="run the evaluation again with this version of slmops",
        ) from error
