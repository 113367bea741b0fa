"""How long a recipe will take, and what it needs of disk and memory: rough, from this machine's own arithmetic speed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from slmops.config import Recipe, TrainingSection
from slmops.data.sources import RawSplits
from slmops.models.fit import Purpose, memory_needed_mb
from slmops.preflight import disk_mb
from slmops.progress import duration

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
    shares = recipe.data.test_share * (not rows.test) + recipe.data.validation_share * (not rows.validation)
    labelled = max(1, round(len(rows.labelled) * (1 - shares)))
    test = len(rows.test) or round(len(rows.labelled or rows.pool) * recipe.data.test_share)
    questions = [row.question for row in (*rows.labelled, *rows.pool)]
    tokens = _TEMPLATE_TOKENS + sum(map(len, questions)) / max(1, len(questions)) / _CHARACTERS_A_TOKEN
    pool = len(rows.pool)

    def training(section: TrainingSection, count: int, parameters: int) -> float:
        visits = (
            section.max_steps * section.batch_size * section.gradient_accumulation_steps
            if section.max_steps
            else count * section.epochs
        )
        return 6.0 * parameters * visits * tokens / (rate * _TRAINING_SHARE)

    def answering(count: int, parameters: int) -> float:
        return 2.0 * parameters * count * (tokens + 10) / (rate * _ANSWERING_SHARE)

    seconds = training(recipe.teacher.tune, labelled, teacher_parameters) if recipe.teacher.tune else 0.0
    seconds += 2 * answering(labelled + pool, teacher_parameters)
    seconds += 3 * training(recipe.training, labelled + pool, student_parameters)
    seconds += answering(2 * test + recipe.export.parity.rows, teacher_parameters)
    seconds += 5 * answering(test + recipe.export.parity.rows, student_parameters)
    if recipe.evaluation.judge is not None:
        # Two answers beside the conversation, and the verdict's reasons: about three times the tokens of a row.
        seconds += answering(2 * _JUDGED_MODELS * test * 3, judge_parameters)
    seconds += 8 * _SECONDS_A_PROCESS + 3 * _SECONDS_A_CONVERSION
    trained = recipe.teacher.tune
    purpose: Purpose = "inference" if trained is None else "training-lora" if trained.lora else "training-full"
    batch = int(recipe.training.batch_size * tokens * 1.5)
    memory = max(
        memory_needed_mb(teacher_parameters, purpose, batch_tokens=batch),
        memory_needed_mb(student_parameters, "training-full", batch_tokens=batch),
        memory_needed_mb(judge_parameters, "inference", batch_tokens=batch),
    )
    return Estimate(seconds, disk_mb(teacher_parameters, student_parameters), memory)


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
