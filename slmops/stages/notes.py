"""What a reader of the report should know beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slmops.config import Recipe
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.systems import System
from slmops.stages.comparison import Comparison
from slmops.stages.judging import JUDGE
from slmops.stages.rows import QUANTIZED
from slmops.tasks.base import Task
from slmops.teachers.asking import SIMILARITIES
from slmops.workspace import StageResult


def notes_of(
    recipe: Recipe, comparison: Comparison, systems: Mapping[str, System], data: StageResult, task: Task, *, referred: bool
) -> list[str]:
    """A sentence or two each.

    Args:
        recipe: Of the run.
        comparison: What was measured and packaged.
        systems: All measured models by the names of their rows.
        data: The data stage's result.
        task: Of the run.
        referred: The teacher's answers are the references.
    """
    return [*_notes(comparison, systems, data, referred), *_who_decides(recipe, task)]


def _notes(comparison: Comparison, systems: Mapping[str, System], data: StageResult, referred: bool) -> list[str]:
    notes = [
        *_missing_gold("control" not in systems, referred),
        "The packaged model was chosen by its score on these test rows, among "
        f"{len(comparison.candidates)} candidates; the best of several is flattered a little by the choice.",
        "One training seed: the intervals hold for other test rows, not for other seeds.",
    ]
    tfidf, packaged = systems.get("tfidf"), systems.get("packaged")
    if tfidf is not None and packaged is not None and tfidf.quality >= packaged.quality:
        notes.append(
            "TF-IDF with logistic regression is at least as accurate as what is packaged: this task may not need a language model."
        )
    if "answers-only" not in systems:
        notes.append("The teacher gave no signals that fit the student, so the distilled student learned from answers alone.")
    if QUANTIZED not in systems and "memory_mb" in systems["teacher"].measures:
        notes.append("The teacher has bottleneck adapters, which no other engine runs: there is no quantized teacher.")
    elif QUANTIZED not in systems:
        notes.append("The teacher answered from outside of this machine: its memory, size and requests/s are not known.")
    for candidate in comparison.candidates:
        if candidate is not comparison.chosen:
            failed = [f"{r.gate} ({r.detail})" for r in candidate.results if r.verdict != "passed"]
            reason = f"does not pass {'; '.join(failed)}" if failed else "passes the gates and is not better"
            notes.append(f"Not packaged: {candidate.name} {reason}.")
        note = candidate.bundle.facts.get("foundry_note") if candidate.bundle and candidate is comparison.chosen else None
        if note:
            notes.append(str(note))
    return notes


def notes_before_training(facts: Mapping[str, Any]) -> list[str]:
    """What the pre-flight found that bears on the results: the teacher against its signals, rows left out, weak terms."""
    agreement, tokens = facts["agreement"], facts["tokens"]
    notes = []
    if agreement is not None:
        notes.append(
            f"Before the training the teacher was compared with its cached signals on {agreement['tokens']} answer tokens: in the "
            f"student's place its KL to them is {agreement['self_kl']:.2g} nats a token, and {agreement['what']} differs by at "
            f"most {agreement['largest']:.2g} when it is asked again."
        )
    if tokens["too_long"]:
        notes.append(
            f"{tokens['too_long'] / tokens['rows']:.1%} of the training rows are longer than {tokens['max_length']} tokens and are "
            "set aside."
        )
    return [*notes, *(f"Before the training, {hint}." for hint in facts["hints"])]


def _who_decides(recipe: Recipe, task: Task) -> list[str]:
    """What the measure that decides can tell, where answers may be good without being the reference."""
    name = MEASURES[task.primary_measure].title
    if recipe.evaluation.judge is not None:
        return [f"The judge's win rate decides, {name} stands beside it; conversions are compared with their source by {name}."]
    if task.primary_measure not in SIMILARITIES:
        return []
    return [
        f"No judge was asked, so {name} decides: it tells how like the reference an answer is, not how good. "
        f"A judge named under {JUDGE} gives the win rate."
    ]


def _missing_gold(unlabelled: bool, referred: bool) -> Iterator[str]:
    if referred:
        yield (
            "Reference: the teacher's own answers, there is no gold. The measures of answers, and gates on them, say how far a "
            "model agrees with the teacher, not how often it is right; that the teacher agrees with itself says nothing."
        )
    if unlabelled:
        yield (
            "No training row is labelled, so there is no control that learned from labels alone, and no TF-IDF: "
            "distillation is compared with the untuned student."
        )
