"""Parts of a report: what the measured models were made of."""

from __future__ import annotations

from pydantic import Field

from slmops.evaluation.parts import Part


class Attempt(Part):
    """One quantization scheme that was tried."""

    scheme: str = Field(description="How weights are stored")
    size_mb: float | None = Field(description="Files that are needed to run the model, in millions of bytes")
    agreement: float | None = Field(description="Share of greedy answers equal to the model before export")
    measure: float | None = Field(description="The export measure after export")
    reference: float | None = Field(description="The export measure before export, on the same rows")
    passed: bool = Field(description="Whether the answers were kept")
    why: str = Field(description="What decided; may be empty where it passed")


class Export(Part):
    """The schemes tried for a model, in the order they were tried."""

    model: str = Field(description="Name of the row that was converted")
    attempts: list[Attempt] = Field(description="Smallest first")
    chosen: str | None = Field(description="The scheme that passed; null where none did")


class LabelCount(Part):
    """Rows with a label."""

    label: str = Field(description="The label")
    train: int = Field(description="Training rows with it")
    test: int = Field(description="Test rows with it")


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
    quality: DataQuality = Field(description="What the look at the data came to")


class Answers(Part):
    """What the teacher answered."""

    answered: int = Field(description="Questions with a valid answer")
    rejected: int = Field(description="Answers set aside")
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

    step: int = Field(description="Updates so far")
    loss: float = Field(description="Training loss of the step")
    validation: float | None = Field(description="Loss on the validation rows; null where not computed at this step")


class Training(Part):
    """One training run."""

    name: str = Field(description="Name of the row that it made")
    steps: int = Field(description="Updates in all")
    seconds: float = Field(description="Time it took")
    curve: list[CurvePoint] = Field(description="Loss by step")
    note: str = Field(description="What a reader should know; may be empty")


class Stage(Part):
    """A completed stage of the run."""

    stage: str = Field(description="Its name")
    id: str = Field(description="Hash of its version, the values it read and its parents' ids")
    seconds: float = Field(description="Time it took")
    parents: dict[str, str] = Field(description="Role to id of what the stage read")


class Model(Part):
    """An outside model that was used."""

    role: str = Field(description="What it was used as, such as teacher")
    name: str = Field(description="As the recipe or the command names it")
    source: str = Field(description="Where it comes from")
    license: str = Field(description="Its licence or terms")
    fingerprint: str = Field(description="What tells it from others")
