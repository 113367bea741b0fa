"""What students learn from: data, the teacher's answers and signals, the student before training; and each student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.models.pairing import pair
from slmops.models.resolve import ResolvedModel
from slmops.sections import TrainingSection
from slmops.stages.answering import RunTeacher, answer, take_signals
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.stages.layering import Learner, layer_losses
from slmops.stages.outside import reply_signals
from slmops.stages.preparing import Gold
from slmops.stages.referring import answer_held_out
from slmops.stages.rehearsal import Rehearsal
from slmops.stages.teaching import TRAINING, cut_student, distill_model, train_model, tune_teacher
from slmops.teachers.spec import spec_of
from slmops.workspace import StageResult

if TYPE_CHECKING:
    from slmops.training.watching import Watch


@dataclass(frozen=True)
class Lesson:
    """The stages that all students of a recipe share.

    Args:
        context: Of the run.
        gold: What of the data is labelled.
        teacher: Who teaches.
        data: Rows, held-out ones with references.
        answers: What the students train on.
        signals: The teacher's distributions; ``None`` where it gives none.
        untuned: The student before training.
    """

    context: Context
    gold: Gold
    teacher: RunTeacher
    data: StageResult
    answers: StageResult
    signals: StageResult | None
    untuned: StageResult

    @classmethod
    def of(cls, context: Context, prepared: StageResult, gold: Gold, teacher_base: ModelAt, student_base: ModelAt) -> Lesson:
        """Let the teacher answer, and cut the student."""
        local = spec_of(context.recipe.teacher).on_this_machine is not None
        teacher = RunTeacher(context, tune_teacher(context, teacher_base, prepared) if local else None)
        answers = answer(context, teacher, prepared)
        data = answer_held_out(context, teacher, prepared, gold)
        comparable = teacher.distribution and _comparable(context, teacher_base, student_base)
        # What is kept of the teacher's layers depends on the student's.
        early = cut_student(context, student_base, data, answers) if comparable and layer_losses(context.recipe) else None
        learner = Learner(early, of_teacher=teacher_base.path == student_base.path) if early else None
        known = take_signals(context, teacher, data, answers, learner) if comparable else None
        untuned = early or cut_student(context, student_base, data, answers)
        signals = known or _of_replies(context, teacher, data, answers, untuned)
        return cls(context, gold, teacher, data, answers, signals, untuned)

    def rehearse(self, trainings: int | None = None) -> StageResult:
        """The pre-flight: what would go wrong in so many trainings, those of :meth:`students` if not said, found in seconds."""
        count = trainings or 1 + (self.signals is not None) + self.gold.training
        of = Rehearsal(self.context, self.teacher, self.data, self.answers, self.signals, self.untuned, count)
        return of.stage()

    def students(self) -> dict[str, StageResult]:
        """The student before training, fine-tuned, on answers, distilled; without signals the last two are one.

        Where no training row is labelled there is nothing to fine-tune on, and no control.
        """
        distilled = self.distilled()
        answers_only = {"answers-only": self.answers_only()} if self.signals else {}
        control = {"control": self._control(self._plain, updates_of=distilled)} if self.gold.training else {}
        return {"untuned": self.untuned, **control, **answers_only, "distilled": distilled}

    def distilled(self, watch: Watch | None = None) -> StageResult:
        """The student that learns from all there is."""
        inputs = {"data": self.data, "answers": self.answers, **({"signals": self.signals} if self.signals else {})}
        section, scoring = self.context.recipe.training, self.teacher.scoring
        return distill_model(self.context, "distilled", self._start, inputs, section, scoring=scoring, watch=watch)

    def answers_only(self, watch: Watch | None = None) -> StageResult:
        """The student that learns from the teacher's answers alone."""
        inputs = {"data": self.data, "answers": self.answers}
        return train_model(self.context, "answers-only", self._start, inputs, self._plain, watch=watch)

    def control_alone(self, watch: Watch | None = None) -> StageResult:
        """The student fine-tuned on the labelled rows, with as many updates as a distillation makes, which need not be there."""
        from slmops.training.batches import steps_of

        plain = self._plain
        rows = len(rows_of(self.answers, TRAINING))
        steps = plain.max_steps or steps_of(rows, plain.batch_size, plain.gradient_accumulation_steps, plain.epochs)
        return self._control(plain.model_copy(update={"max_steps": steps}), watch=watch)

    def _control(
        self, section: TrainingSection, *, updates_of: StageResult | None = None, watch: Watch | None = None
    ) -> StageResult:
        return train_model(self.context, "control", self._start, {"data": self.data}, section, updates_of=updates_of, watch=watch)

    @property
    def _start(self) -> ModelAt:
        return ModelAt(self.untuned.path / MODEL, self.untuned.id)

    @property
    def _plain(self) -> TrainingSection:
        return self.context.recipe.training.without_teacher


def located(model: ResolvedModel | None) -> ModelAt:
    """A resolved model; while planning it may not be on this machine yet."""
    return ModelAt(model.path, model.fingerprint) if model else ModelAt(Path("absent"), "not fetched yet")


def _comparable(context: Context, teacher: ModelAt, student: ModelAt) -> bool:
    """Whether the teacher's signals are of use: where tokenizers differ, to losses that are made for that alone."""
    if teacher.path == student.path or not (teacher.path.is_dir() and student.path.is_dir()):
        return True
    if pair(teacher.path, student.path).by_position:
        return True
    from slmops.training.objectives import WeightedSum

    loss = WeightedSum.of(context.recipe.training.objectives)
    return loss.needs_signal and loss.across_tokenizers


def _of_replies(
    context: Context, teacher: RunTeacher, data: StageResult, answers: StageResult, student: StageResult
) -> StageResult | None:
    """Signals from an endpoint's log-probabilities, where a recipe asks for these and they fit the student."""
    if all(member.api.top_logprobs is None for member in teacher.spec.members):
        return None
    signals = reply_signals(context, teacher, data, answers, student)
    return signals if signals.facts["usable"] else None
