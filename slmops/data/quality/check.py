"""From a source to good rows in splits, the rows set aside, and a report on both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slmops.data.prepare import Examined, Prepared, prepare
from slmops.data.quality.examine import Findings, examine
from slmops.data.quality.report import DataReport, describe
from slmops.data.rows import Row
from slmops.data.sources import RawSplits, Source
from slmops.errors import DataError
from slmops.sections import QualitySection
from slmops.tasks.base import Task, closed_labels, normal_row, problem


def check_source(
    source: Source | RawSplits,
    options: QualitySection,
    *,
    name: str,
    task: Task | None,
    unfit: Callable[[Row], str | None] = lambda row: None,
    seed: int,
    max_bad_share: float,
    validation_share: float,
    test_share: float,
    answers: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Prepared, DataReport]:
    """Prepare the rows of a source with the whole quality pass in place of the search for equal questions.

    Args:
        source: Where the rows come from, or what was read there.
        options: Bounds of the pass.
        name: Of the data, for the report.
        task: Says which questions and answers are valid and which labels there are; ``None`` takes all rows that can be
            read, and finds out whether the answers are labels.
        unfit: Why a model cannot take a row, or ``None``.
        seed: For the splits and for balancing.
        max_bad_share: Most rows that cannot be read or have an invalid answer, as a share of all.
        validation_share: Share of the labelled rows for validation where the source has none; 0 for no such split.
        test_share: The same for test.
        answers: More answers to rows, by their id: those of several teachers.

    Raises:
        DataError: As :func:`slmops.data.prepare.prepare`.
    """
    findings = Findings()
    labels = closed_labels(task) if task is not None else None

    def look(splits: Mapping[str, Sequence[Row]]) -> Examined:
        nonlocal findings
        examined, findings = examine(
            splits,
            for_task(options, task),
            labels=labels,
            free=task is not None and labels is None,
            unfit=unfit,
            answers=answers,
            seed=seed,
        )
        return examined

    def label_of(row: Row) -> str:
        answer = str(row.answer)
        return task.parse(answer) if task is not None and labels is not None else answer

    prepared = prepare(
        source,
        labels=labels,
        check_answer=lambda row: problem(task, row) if task is not None else None,
        normal_form=lambda row: normal_row(task, row) if task is not None else row,
        label_of=label_of,
        seed=seed,
        max_bad_share=max_bad_share,
        validation_share=validation_share,
        test_share=test_share,
        examine=look,
    )
    return prepared, describe(name, prepared, findings)


def for_task(options: QualitySection, task: Any) -> QualitySection:
    """The bounds with the language that the answers of a task, or of a class of tasks, are held to, where they leave it open."""
    if options.language is not None:
        return options
    return options.model_copy(update={"language": "any" if getattr(task, "any_language", False) else "prompt"})


def check_success(report: DataReport, min_success: float, *, where: str) -> None:
    """Stop where too few rows are good.

    Args:
        report: Of the pass.
        min_success: Least share of the rows read that have no fault of their own.
        where: Place of the page that shows them.

    Raises:
        DataError: There are fewer; the message has the commonest reasons.
    """
    if report.success >= min_success:
        return
    reasons = ", ".join(f"{item.rows:,} × {item.kind}" for item in report.aside[:5])
    raise DataError(
        f"only {report.success:.1%} of {report.read:,} rows are good, fewer than the {min_success:.1%} asked for ({reasons})",
        where=where,
        fix="mend the rows, or lower min_success",
    )
