"""From a source to good rows in splits, the rows set aside, and a report on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slmops.data.prepare import CheckAnswer, Examined, Prepared, prepare
from slmops.data.quality.examine import Findings, examine
from slmops.data.quality.options import QualityOptions
from slmops.data.quality.report import DataReport, describe
from slmops.data.rows import Row
from slmops.data.sources import Source


def check_source(
    source: Source,
    options: QualityOptions,
    *,
    name: str,
    labels: Sequence[str] | None,
    check_answer: CheckAnswer,
    seed: int,
    max_bad_share: float,
    validation_share: float,
    test_share: float,
    answers: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Prepared, DataReport]:
    """Prepare the rows of a source with the whole quality pass in place of the search for equal questions.

    Args:
        source: Where the rows come from.
        options: Bounds of the pass.
        name: Of the data, for the report.
        labels: The labels of the task; ``None`` finds out whether the answers are labels.
        check_answer: The task's check of labelled rows.
        seed: For the splits and for balancing.
        max_bad_share: Most rows that cannot be read or have an invalid answer, as a share of all.
        validation_share: Share of the labelled rows for validation where the source has none; 0 for no such split.
        test_share: The same for test.
        answers: More answers to rows, by their id: those of several teachers.

    Raises:
        DataError: As :func:`slmops.data.prepare.prepare`.
    """
    findings = Findings()

    def look(splits: Mapping[str, Sequence[Row]]) -> Examined:
        nonlocal findings
        examined, findings = examine(splits, options, labels=labels, answers=answers, seed=seed)
        return examined

    prepared = prepare(
        source,
        labels=labels,
        check_answer=check_answer,
        seed=seed,
        max_bad_share=max_bad_share,
        validation_share=validation_share,
        test_share=test_share,
        examine=look,
    )
    return prepared, describe(name, prepared, findings)
