"""Parts of a report: what was measured. What it was made of is in ``origins``, the whole in ``schema``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Outcome = Literal["passed", "failed", "INCONCLUSIVE"]
Word = Literal["better", "worse", "INCONCLUSIVE"]
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

    word: Word | Outcome | Literal["measured"] = Field(
        description="Of a distillation: better, worse or INCONCLUSIVE against the control, or without labels against the "
        "untuned student. Of an evaluation alone: passed, failed or INCONCLUSIVE, of all gates together; measured "
        "where there are none"
    )
    sentence: str = Field(description="The verdict as one sentence")
    packaged: str | None = Field(None, description="Name of the row that was packaged; null where none was")
    why: str = Field(description="What decided: why this row is packaged, or why none is")


class Gate(Part):
    """A condition that must hold and what came of it."""

    gate: str = Field(description="The condition as it was given")
    verdict: Outcome = Field(description="Told by the bound of the interval, not by the point")
    detail: str = Field(description="The figures that decided")
    needed: int | None = Field(None, description="More test rows, or requests, that would settle an open one")


class Throughput(Part):
    """A load that a row was put under."""

    concurrency: int = Field(description="Requests under way at once", ge=1)
    requests_per_s: float = Field(description="Requests answered a second")
    p50_ms: float = Field(description="Median time of a request under this load, ms")
    p95_ms: float = Field(description="Time that 95 % of the requests stay below under this load, ms")


class Row(Part):
    """One model, or the same model in another form, measured on the test rows."""

    name: str = Field(description="Unique in the report, such as teacher-quantized")
    title: str = Field(description="The name as people say it")
    note: str = Field(description="What it is, in a few words")
    runtime: str = Field(description="Engine it ran on")
    precision: str = Field(description="Of its weights")
    measures: dict[str, float | None] = Field(description="Value by measure; null is unknown")
    intervals: dict[str, Interval] = Field(description="Low and high end by measure, at the report's confidence")
    latencies_ms: list[float] = Field(description="Times of single requests, ms; empty where not measured")
    throughput: list[Throughput] = Field([], description="By concurrency, ascending; empty where not measured")
    batch_dependent: bool | None = Field(
        None, description="Whether its engine's answers depend on what else is in the batch; null where nobody tried"
    )
    gates: list[Gate] = Field(description="Empty where gates do not apply")
    packaged: bool = Field(description="Whether this is what was packaged")


class Measure(Part):
    """What a column means."""

    title: str = Field(description="Heading in tables")
    unit: str = Field(description="Empty for a share or a score")
    better: Literal["higher", "lower"] = Field(description="Which way is better")
    help: str = Field(description="How it is measured, in a sentence or two")


class Difference(Part):
    """A paired comparison of two rows on the same test rows."""

    a: str = Field(description="Name of a row")
    b: str = Field(description="Name of the row it is compared with")
    measure: str = Field(description="Key of the measure")
    difference: float = Field(description="Value of a minus value of b")
    interval: Interval = Field(description="Low and high end, at the report's confidence")
    word: Word = Field(description="What a is against b")
    method: str = Field(description="Such as: paired bootstrap, 10,000 resamples")
    p_value: float | None = Field(None, description="Of no difference at all, two-sided; null where it was not tested", ge=0, le=1)
    adjusted: float | None = Field(
        None, description="The p-value after Holm's correction for all comparisons of the report", ge=0, le=1
    )
    margin: float | None = Field(None, description="What a may be worse by and still count as not inferior; null: not asked")


class Headline(Part):
    """A target of the project: what is packaged against the tuned teacher in float32."""

    what: str = Field(description="What is compared")
    value: float | None = Field(description="Null where it could not be measured")
    target: float = Field(description="The least value that counts as reached")
    unit: Literal["share", "percent less", "times"] = Field(
        description="share: 1.0 is all of it; percent less: 0 to 100; times: a factor"
    )
    reached: bool = Field(description="Whether the value is at least the target")


class Judge(Part):
    """Who compared the answers with the references, over all rows of the comparison and all candidates."""

    name: str = Field(description="The judging model")
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


class Confusion(Part):
    """Counts of answers by expected label."""

    row: str = Field(description="Name of the row the counts belong to")
    labels: list[str] = Field(description="In the order of lines and columns")
    matrix: list[list[int]] = Field(description="One list for each expected label, one count for each answered label")

    @model_validator(mode="after")
    def _square(self) -> Confusion:
        lengths = {len(self.matrix), *(len(line) for line in self.matrix)}
        if lengths != {len(self.labels)}:
            raise ValueError(f"the matrix must be {len(self.labels)} × {len(self.labels)}, as many as there are labels")
        return self


class ClassScore(Part):
    """How well a row answers one label; shares from 0 to 1."""

    row: str = Field(description="Name of the row")
    label: str = Field(description="The label")
    precision: float = Field(description="Share of the answers with this label that are right")
    recall: float = Field(description="Share of the test rows with this label that are answered so")
    f1: float = Field(description="Harmonic mean of both")
    rows: int = Field(description="Test rows with this label")


class Slice(Part):
    """A part of the test rows, against all other test rows."""

    row: str = Field(description="Name of the row of the comparison")
    column: str = Field(description="What the test rows are parted by, such as label or length")
    value: str = Field(description="What these test rows have in common")
    rows: int = Field(description="How many test rows these are")
    measure: str = Field(description="Key of the measure")
    score: float = Field(description="The measure on these test rows")
    interval: Interval = Field(description="Of the score")
    difference: float = Field(description="The score less that of the other test rows")
    word: Word = Field(description="What these test rows are against the others")


class Bin(Part):
    """Answers that a model was about as sure of."""

    confidence: float = Field(description="Mean probability that the model gave these answers", ge=0, le=1)
    accuracy: float = Field(description="Share of them that are right", ge=0, le=1)
    rows: int = Field(description="How many answers these are")


class Reliability(Part):
    """Whether a row is right as often as it is sure."""

    row: str = Field(description="Name of the row")
    ece: float = Field(description="Expected calibration error, 0 to 1: the mean gap of the bins, weighted by their rows")
    bins: list[Bin] = Field(description="By confidence, ascending; empty bins are left out")


class Disagreement(Part):
    """A test row that two rows of the comparison answer differently."""

    question: str = Field(description="What was asked")
    expected: str = Field(description="The reference")
    a: str = Field(description="Name of a row, the teacher where there is one")
    b: str = Field(description="Name of the other row, what is packaged where something is")
    a_answer: str = Field(description="What a answered")
    b_answer: str = Field(description="What b answered")
    a_right: bool | None = Field(description="Null where answers are neither right nor wrong")
    b_right: bool | None = Field(description="The same")
    a_score: float | None = Field(None, description="The primary measure of this answer by itself; null where it has none")
    b_score: float | None = Field(None, description="The same")


class Leakage(Part):
    """Test rows that stand in training data, by which scores are flattered."""

    rows: int = Field(description="How many test rows", ge=0)
    share: float = Field(description="Share of the test rows", ge=0, le=1)
    against: str = Field(description="The training data that was looked into")
    examples: list[str] = Field(description="Some of these questions")
