"""Losses on layers of a training run: what is looked at in the student, its projections, and their sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded
from slmops.models.layers import LayerPair
from slmops.models.watching import Attended, Seen, Watcher, answer_rows
from slmops.signals.internals import Layers, RowInternals
from slmops.training.batches import collate
from slmops.training.forward import answers_of
from slmops.training.internals import TeacherInternals, from_batch
from slmops.training.machine import evaluated
from slmops.training.objectives.base import Answers, Matched
from slmops.training.objectives.matching import Matching
from slmops.training.objectives.schedule import Schedule
from slmops.training.objectives.weighted import Term, WeightedSum

_NAME = "layer_projections"
_FILE = f"{_NAME}.pt"


class RowLayers(Protocol):
    """What is kept of a teacher's layers, by row, and which of them a run's losses on layers are about."""

    @property
    def layers(self) -> Layers:
        """Those of the teacher that are kept."""

    @property
    def pairs(self) -> Sequence[Sequence[LayerPair]]:
        """Of each loss on layers, in the recipe's order."""

    def get(self, row: Row) -> RowInternals:
        """What is kept for a row."""


@dataclass(frozen=True)
class LayerLosses:
    """The losses on layers of a run.

    Args:
        rows: What is kept of the teacher for each training row.
        projections: Matrices that take the student's vectors to the teacher's width, by loss and pair.
    """

    rows: Sequence[RowInternals]
    projections: torch.nn.ModuleDict
    _terms: tuple[Term, ...]
    _pairs: tuple[tuple[LayerPair, ...], ...]
    _teacher: Layers
    _watcher: Watcher | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        objective: WeightedSum,
        source: RowLayers,
        rows: Sequence[Row],
        encoded: Sequence[Encoded],
        *,
        pad_id: int,
        seed: int,
    ) -> LayerLosses:
        """Find the student's layers and make the projections, which become parameters of the model until :meth:`leave`.

        Every loss is tried on a row first.

        Args:
            model: The student.
            objective: The loss of the recipe.
            source: Of the teacher.
            rows: Training rows.
            encoded: Their tokens.
            pad_id: Token that pads.
            seed: Of the projections.

        Raises:
            ConfigError: Layers that a loss cannot compare.
            ModelError: Layers of the student cannot be looked at.
            FingerprintError: A row has no signal.
        """
        terms, pairs = objective.on_layers, tuple(tuple(own) for own in source.pairs)
        wanted = Layers.of((_objective(term).part, own) for term, some in zip(terms, pairs, strict=True) for own, _ in some)
        internals = [source.get(row) for row in rows]
        losses = cls(internals, torch.nn.ModuleDict(), terms, pairs, source.layers, Watcher(model, wanted))
        batch = collate(encoded[:1], pad_id, internals=internals[:1])
        with evaluated(model), torch.no_grad(), losses.watching() as seen:
            answers_of(model, batch)
        losses._make_projections(seen, batch, seed)
        with torch.no_grad():
            losses.summed(seen, batch, done=0.0)
            losses.summed(seen, batch, done=1.0)
        if len(losses.projections):
            model.add_module(_NAME, losses.projections)
        return losses

    def only(self, terms: Sequence[Term]) -> LayerLosses:
        """Some of the losses, with the projections of all."""
        silent = Schedule.model_validate({"from": 0.0, "to": 0.0})
        return replace(self, _terms=tuple(term if term in terms else replace(term, weight=silent) for term in self._terms))

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """What the student's layers hold in the forward pass within."""
        assert self._watcher is not None
        with self._watcher.watching() as seen:
            yield seen

    def summed(self, seen: Seen, batch: Mapping[str, torch.Tensor], *, done: float) -> torch.Tensor:
        """The sum over a batch's answer tokens, with its gradient."""
        return self.each(seen, batch, done=done).sum()

    def each(self, seen: Seen, batch: Mapping[str, torch.Tensor], *, done: float) -> torch.Tensor:
        """The weighted loss at each answer token, float32 ``[N]``; zero where the teacher read other tokens.

        Args:
            seen: Of the student.
            batch: Of :func:`slmops.training.batches.collate`, with internals.
            done: Share of the updates that are done, for weights that change.
        """
        teacher = from_batch(batch)
        labels = batch["shift_labels"]
        total = torch.zeros(len(labels), device=labels.device)
        with torch.autocast(labels.device.type, enabled=False):
            for number, (term, pairs) in enumerate(zip(self._terms, self._pairs, strict=True)):
                weight = term.weight.at(done)
                if weight:
                    matched = self._matched(number, _objective(term).part == "hidden", pairs, seen, teacher, batch)
                    losses = term.objective(Answers(total.new_zeros(len(labels), 0), labels, matched=matched))
                    there = teacher.answer if _objective(term).part == "hidden" else teacher.whole
                    total = total + weight * torch.where(there, losses, 0.0)
        return total

    def _matched(
        self,
        number: int,
        hidden: bool,
        pairs: Sequence[LayerPair],
        seen: Seen,
        teacher: TeacherInternals,
        batch: Mapping[str, torch.Tensor],
    ) -> Matched:
        states, attended = [], []
        for own, theirs in pairs:
            if hidden:
                state = answer_rows(seen.hidden[own], batch).float()
                key = _key(number, own, theirs)
                projected = self.projections[key](state) if key in self.projections else state
                states.append((projected, teacher.hidden[:, self._teacher.hidden.index(theirs)]))
            else:
                attended.append((_float(seen.attention[own]), teacher.attended[self._teacher.attention.index(theirs)]))
        read = batch["attention_mask"].bool()
        return Matched(tuple(states), tuple(attended), batch["logits_to_keep"], batch["answer_index"], read)

    def _make_projections(self, seen: Seen, batch: Mapping[str, torch.Tensor], seed: int) -> None:
        width = from_batch(batch).hidden.shape[-1]
        generator = torch.Generator().manual_seed(seed)
        for number, (term, pairs) in enumerate(zip(self._terms, self._pairs, strict=True)):
            for own, theirs in pairs if _objective(term).part == "hidden" else ():
                if _objective(term).projects(seen.hidden[own].shape[-1], width):
                    self.projections[_key(number, own, theirs)] = _projection(seen.hidden[own].shape[-1], width, generator)

    def save(self, folder: Path) -> None:
        """Write the projections beside a checkpoint, where there are any."""
        if len(self.projections):
            torch.save(self.projections.state_dict(), folder / _FILE)

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        if len(self.projections):
            self.projections.load_state_dict(torch.load(folder / _FILE, weights_only=True))

    def leave(self, model: Any) -> None:
        """Take the projections out of the model."""
        if len(self.projections):
            delattr(model, _NAME)


def _objective(term: Term) -> Matching:
    assert isinstance(term.objective, Matching)
    return term.objective


def _key(number: int, own: int, theirs: int) -> str:
    return f"{number}-{own}-{theirs}"


def _projection(student: int, teacher: int, generator: torch.Generator) -> torch.nn.Linear:
    """A matrix that leaves lengths as they are as far as it can; of equal widths none at all."""
    projection = torch.nn.utils.skip_init(torch.nn.Linear, student, teacher, bias=False)
    with torch.no_grad():
        if student == teacher:
            torch.nn.init.eye_(projection.weight)
        else:
            torch.nn.init.orthogonal_(projection.weight, generator=generator)
    return projection


def _float(attended: Attended) -> Attended:
    return Attended(attended.queries.float(), attended.keys.float(), attended.values.float())
