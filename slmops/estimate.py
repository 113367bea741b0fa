"""How long a recipe will take, and what it needs of disk and memory: rough, from this machine's own arithmetic speed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from slmops.config import BaseRecipe, FinetuneRecipe, Recipe
from slmops.data.sources import RawSplits
from slmops.models.fit import Purpose, memory_beside_mb, memory_needed_mb
from slmops.preflight import disk_mb
from slmops.progress import duration
from slmops.sections import TrainingSection

_TEMPLATE_TOKENS = 12
_CHARACTERS_A_TOKEN = 4.0
_MATRIX = 1024
# Shares of the float32 matrix product's speed that whole steps reached on two machines with AVX-512.
_TRAINING_SHARE, _ANSWERING_SHARE = 1.0, 0.6
_SECONDS_A_PROCESS, _SECONDS_A_CONVERSION = 8.0, 25.0
_JUDGED_MODELS = 8


@dataclass(frozen=True)
class Estimate:
    """About how much a run needs: seconds, and units of 10⁶ bytes."""

    seconds: float
    disk_mb: float
    memory_mb: float

    def describe(self) -> str:
        """One line for people."""
        return f"about {duration(self.seconds)}, {self.disk_mb / 1000:.1f} GB of disk, {self.memory_mb / 1000:.1f} GB of memory"


def estimate(
    recipe: Recipe, rows: RawSplits, teacher_parameters: int, student_parameters: int, rate: float, judge_parameters: int = 0
) -> Estimate:
    """Estimate a run from its rows and the sizes of its models.

    Six floating-point operations a weight and token are counted for training, two for answering (Kaplan et al. 2020).

    Args:
        recipe: The recipe.
        rows: Its data.
        teacher_parameters: Weights of the teacher.
        student_parameters: Weights of the student as it will be trained.
        rate: Floating-point operations a second of this machine, from :func:`matmul_rate`.
        judge_parameters: Weights of a judge on this machine.
    """
    work = _Work.of(recipe, rows, rate)
    seconds = work.teaching(recipe, teacher_parameters)
    seconds += 3 * work.training(recipe.training, work.labelled + work.pool, student_parameters)
    seconds += work.sampling(recipe.training, work.labelled + work.pool, student_parameters + teacher_parameters)
    seconds += work.answering(2 * work.test + recipe.export.parity.rows, teacher_parameters)
    seconds += 5 * work.answering(work.test + recipe.export.parity.rows, student_parameters)
    if recipe.evaluation.judge is not None:
        # Two answers beside the conversation, and the verdict's reasons: about three times the tokens of a row.
        seconds += work.answering(2 * _JUDGED_MODELS * work.test * 3, judge_parameters)
    seconds += 8 * _SECONDS_A_PROCESS + 3 * _SECONDS_A_CONVERSION
    trained = recipe.teacher.tune
    purpose: Purpose = "inference" if trained is None else "training-lora" if trained.lora else "training-full"
    batch = int(recipe.training.batch_size * work.tokens * 1.5)
    memory = max(
        memory_needed_mb(teacher_parameters, purpose, batch_tokens=batch),
        memory_needed_mb(student_parameters, "training-full", batch_tokens=batch)
        + (memory_beside_mb(teacher_parameters) if recipe.training.on_policy else 0.0),
        memory_needed_mb(judge_parameters, "inference", batch_tokens=batch),
    )
    return Estimate(seconds, disk_mb(teacher_parameters, student_parameters), memory)


def estimate_trial(
    recipe: Recipe, rows: RawSplits, teacher_parameters: int, student_parameters: int, rate: float, *, packaged: bool
) -> tuple[float, float]:
    """Seconds of what the trials of a search share, and of one trial with the recipe's own values.

    Args:
        recipe: The recipe.
        rows: Its data.
        teacher_parameters: Weights of the teacher.
        student_parameters: Weights of the student as it will be trained.
        rate: As in :func:`estimate`.
        packaged: Whether a trial's student is converted and timed.
    """
    work = _Work.of(recipe, rows, rate)
    seconds = work.training(recipe.training, work.labelled + work.pool, student_parameters)
    seconds += work.sampling(recipe.training, work.labelled + work.pool, student_parameters + teacher_parameters)
    seconds += work.answering(work.validation, student_parameters)
    if packaged:
        seconds += work.answering(recipe.export.parity.rows, student_parameters) + _SECONDS_A_CONVERSION + _SECONDS_A_PROCESS
    return work.teaching(recipe, teacher_parameters), seconds


def estimate_tuning(recipe: FinetuneRecipe, rows: RawSplits, parameters: int, rate: float, *, answered: bool) -> float:
    """Seconds of a fine-tuning with the recipe's own values, and of a look at its validation rows.

    Args:
        recipe: The recipe.
        rows: Its data.
        parameters: Weights of the model.
        rate: As in :func:`estimate`.
        answered: Whether it answers the validation rows too.
    """
    work = _Work.of(recipe, rows, rate)
    return work.training(recipe.training, work.labelled, parameters) + work.answering(work.validation * answered, parameters)


@dataclass(frozen=True)
class _Work:
    """How many rows there are to work on, how long they are, and how fast this machine is."""

    labelled: int
    validation: int
    test: int
    pool: int
    tokens: float
    rate: float

    @classmethod
    def of(cls, recipe: BaseRecipe, rows: RawSplits, rate: float) -> _Work:
        data = recipe.data
        shares = data.test_share * (not rows.test) + data.validation_share * (not rows.validation)
        questions = [row.question for row in (*rows.labelled, *rows.pool)]
        drawn = len(rows.labelled or rows.pool)
        return cls(
            labelled=max(1, round(len(rows.labelled) * (1 - shares))),
            validation=len(rows.validation) or round(drawn * data.validation_share),
            test=len(rows.test) or round(drawn * data.test_share),
            pool=len(rows.pool),
            tokens=_TEMPLATE_TOKENS + sum(map(len, questions)) / max(1, len(questions)) / _CHARACTERS_A_TOKEN,
            rate=rate,
        )

    def training(self, section: TrainingSection, count: int, parameters: int) -> float:
        return 6.0 * parameters * _visits(section, count) * self.tokens / (self.rate * _TRAINING_SHARE)

    def sampling(self, section: TrainingSection, count: int, parameters: int) -> float:
        """A student answers a share of what it is trained on, and its teacher reads that: ``parameters`` of both together."""
        share = section.on_policy.share if section.on_policy else 0.0
        return self.answering(round(share * _visits(section, count)), parameters)

    def answering(self, count: int, parameters: int) -> float:
        return 2.0 * parameters * count * (self.tokens + 10) / (self.rate * _ANSWERING_SHARE)

    def teaching(self, recipe: Recipe, parameters: int) -> float:
        tune = recipe.teacher.tune
        tuning = self.training(tune, self.labelled, parameters) if tune else 0.0
        return tuning + 2 * self.answering(self.labelled + self.pool, parameters)


def _visits(section: TrainingSection, count: int) -> float:
    """Rows that a training sees, each as often as it does."""
    rows_a_step = section.batch_size * section.gradient_accumulation_steps
    return section.max_steps * rows_a_step if section.max_steps else count * section.epochs


def matmul_rate() -> float:
    """Floating-point operations a second of a float32 matrix product on this machine, measured for a moment."""
    import numpy as np

    a = np.ones((_MATRIX, _MATRIX), dtype=np.float32)
    a @ a
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.2:
        a @ a
        count += 1
    return 2.0 * _MATRIX**3 * count / (time.perf_counter() - started)
