"""The pre-flight of a run: before the first student is trained, seconds are spent on what hours would be lost over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.artifact import StageKey
from slmops.data.rows import Row
from slmops.files import write_json, write_text
from slmops.progress import say
from slmops.stages.answering import RunTeacher
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.teaching import TOKENIZER, TRAINING, fingerprints, open_signals
from slmops.training.registry import objective_key
from slmops.workspace import Made, StageResult

if TYPE_CHECKING:
    from slmops.data.templates import Encoded, Template
    from slmops.training.findings import Agreement, Cost, Tokens
    from slmops.training.objectives import WeightedSum
    from slmops.training.pairs import Pair
    from slmops.training.rehearsal import Tried

STAGE = "pre-flight"
FACTS, TABLE = "pre-flight.json", "pre-flight.txt"

_READ = ("objectives", "batch_size", "gradient_accumulation_steps", "epochs", "max_steps")
_READ_TOO = ("max_length", "precision", "lora", "freeze_embeddings")
_FEW = 4


@dataclass(frozen=True)
class Rehearsal:
    """The pre-flight of a run.

    Args:
        context: Of the run.
        teacher: Who teaches.
        data: Rows, held-out ones with references.
        answers: What the students train on.
        signals: The teacher's distributions; ``None`` where it gives none.
        untuned: The student before training.
        trainings: Students that will be trained.
    """

    context: Context
    teacher: RunTeacher
    data: StageResult
    answers: StageResult
    signals: StageResult | None
    untuned: StageResult
    trainings: int

    def stage(self) -> StageResult:
        """Its findings as an artifact: a table and facts; the table is said.

        Raises:
            TrainingError: The run would train on nothing, or on something else than the answers.
            FingerprintError: The cached signals are not the live teacher's.
        """
        section = self.context.recipe.training
        config = section.model_dump(mode="json", include={*_READ, *_READ_TOO})
        config["objectives"] = [objective_key(spec) for spec in config["objectives"]]
        roles = {"base": self.untuned, "data": self.data, "answers": self.answers, "signals": self.signals}
        parents = {role: result.id for role, result in roles.items() if result is not None}
        config |= {"trainings": self.trainings, "precision of the teacher": self.context.recipe.teacher.precision}
        key = StageKey(STAGE, "report", 1, {**config, **self.context.template_key}, parents)
        return self.context.workspace.stage(key, lambda folder, work: self._make(folder))

    def _make(self, folder: Path) -> Made:
        from slmops.training.findings import Findings, check_agreement, check_pulls, check_selected, check_tokens
        from slmops.training.rehearsal import count_tokens, few, read_selected

        section = self.context.recipe.training
        template = self.context.template(self.untuned.path / MODEL)
        rows = rows_of(self.answers, TRAINING)
        tokens, kept, encoded = count_tokens(rows, template, section.max_length)
        check_tokens(tokens)
        chosen = few(encoded, _FEW)
        selected = read_selected([kept[index] for index in chosen], [encoded[index] for index in chosen], template)
        check_selected(selected)
        agreement, without = self._against_itself(kept)
        if agreement is not None and self.signals is not None:
            check_agreement(agreement, str(self.signals.path))
        tried = self._tried(template, kept, encoded)
        check_pulls(tried.loss, tried.pulls)
        findings = Findings(tokens, selected, agreement, without, tried.loss, tried.pulls, self._cost(tokens, tried, len(rows)))
        write_text(folder / TABLE, findings.table() + "\n")
        write_json(folder / FACTS, findings.as_dict())
        say("\n".join(f"  {line}" for line in findings.table().splitlines()))
        return Made(findings.as_dict(), seed=self.context.recipe.seed)

    def _against_itself(self, kept: Sequence[Row]) -> tuple[Agreement | None, str]:
        """The teacher against its cached signals on a few rows; or why there is no such comparison."""
        if self.signals is None:
            return None, "there are no signals of the teacher that fit the student"
        if not self.teacher.distribution:
            return None, "the teacher answers from outside of this machine"
        from slmops.signals.store import SignalStore
        from slmops.teachers.agreement import compare
        from slmops.training.rehearsal import few, spread

        template = self.context.template(self.signals.path / TOKENIZER)
        bound = fingerprints(self.context, self.teacher.id, template, self.data, self.answers)
        store = SignalStore.open(self.signals.path, bound)
        some = [kept[index] for index in spread(len(kept), 4 * _FEW)]
        asked = [*map(self.teacher.asking(self.context.task(self.data), self.data), some)]
        encoded = [template.encode(row) for row in asked]
        chosen = few(encoded, _FEW)
        signals = [store.get(some[index]) for index in chosen]
        return compare(self.teacher.load(), [encoded[index] for index in chosen], signals), ""

    def _tried(self, template: Template, kept: Sequence[Row], encoded: Sequence[Encoded]) -> Tried:
        from slmops.training.inputs import signals_of
        from slmops.training.rehearsal import Beside, few, try_training

        section = self.context.recipe.training
        objective = self._objective()
        pad_id = int(template.tokenizer.eos_token_id)
        chosen = few(encoded, section.batch_size)
        rows, batch = [kept[index] for index in chosen], [encoded[index] for index in chosen]
        signals, layers = None, None
        if objective.needs_signal and self.signals is not None:
            store, layers = open_signals(self.context, self._inputs(self.signals), template)
            signals = signals_of(rows, batch, store, objective, pad_id)
        beside = Beside(layers, self._pairs(kept, encoded, template, objective))
        return try_training(self.untuned.path / MODEL, section, objective, rows, batch, signals, beside, pad_id)

    def _pairs(self, kept: Sequence[Row], encoded: Sequence[Encoded], template: Template, objective: WeightedSum) -> list[Pair]:
        """A few pairs of texts, where the loss is about such."""
        if objective.on_pairs is None:
            return []
        from slmops.training.objectives.contrastive import Contrastive
        from slmops.training.pairs import pairs_of
        from slmops.training.rehearsal import spread
        from slmops.training.row_pairs import row_pairs

        loss, recipe = objective.on_pairs[1], self.context.recipe
        if not isinstance(loss, Contrastive):
            return row_pairs([spread(len(kept), _FEW)], kept, encoded, recipe.seed)[0]
        found = pairs_of(kept, template, loss, recipe.training.max_length)
        real = [pair for pair in found if pair is not None]
        return [real[index] for index in spread(len(real), _FEW)]

    def _objective(self) -> WeightedSum:
        """The loss of the distilled student."""
        from slmops.stages.teaching import without_signals
        from slmops.training.objectives import WeightedSum

        section = self.context.recipe.training
        return WeightedSum.of((section if self.signals is not None else without_signals(section)).objectives)

    def _inputs(self, signals: StageResult) -> Mapping[str, StageResult]:
        return {"data": self.data, "answers": self.answers, "signals": signals}

    def _cost(self, tokens: Tokens, tried: Tried, rows: int) -> Cost:
        """Of all trainings: the control and the one on answers make as many updates as the distilled student."""
        from slmops.models.fit import memory_available_mb, memory_needed_mb
        from slmops.training.batches import steps_of
        from slmops.training.findings import Cost
        from slmops.training.watching import CURVE_POINTS

        section = self.context.recipe.training
        left = max(1, round(rows * tokens.left / tokens.rows))
        accumulated = section.gradient_accumulation_steps
        updates = section.max_steps or steps_of(left, section.batch_size, accumulated, section.epochs)
        update = accumulated * min(section.batch_size, left) * tokens.length * tried.token_seconds + tried.update_seconds
        held_out = len(rows_of(self.data, "validation"))
        # A forward pass alone takes a third of the time.
        validation = min(CURVE_POINTS, updates) * held_out * tokens.length * tried.token_seconds / 3
        return Cost(
            trainings=self.trainings,
            updates=updates,
            seconds=self.trainings * (updates * update + validation),
            memory_mb=memory_needed_mb(
                tried.parameters,
                "training-lora" if section.lora else "training-full",
                batch_tokens=round(min(section.batch_size, left) * tokens.length),
            ),
            available_mb=memory_available_mb(),
        )
