"""Which layers of a teacher a recipe's losses are about, and which of the student's are to be like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slmops.config import Recipe
from slmops.data.rows import Row
from slmops.errors import ConfigError
from slmops.models.fit import check_disk
from slmops.models.layers import Depths, LayerPair, Shape, describe_pairs, linear_cka
from slmops.progress import say
from slmops.signals.internals import Layers
from slmops.stages.context import MODEL, Context
from slmops.training.registry import is_on_layers
from slmops.workspace import StageResult

if TYPE_CHECKING:
    from slmops.data.templates import Encoded, Template
    from slmops.signals.distribution import Distribution
    from slmops.teachers.local import LocalTeacher
    from slmops.teachers.matching import MatchedLayers
    from slmops.training.objectives.matching import Matching

INTERNALS = "internals"
"""Folder of a ``signals`` artifact with what is kept of the teacher's layers."""

LAYERS = "layers"
"""Fact of a ``signals`` artifact: the kept layers, and the pairs of each loss."""

_ROWS, _BATCH, _POSITIONS = 64, 16, 512

Asked = Sequence[tuple[Row, Row]]
"""Rows as the student reads them, and as the teacher is asked them."""


@dataclass(frozen=True)
class Learner:
    """The student whose layers are paired with the teacher's.

    Args:
        untuned: Before any training.
        of_teacher: Whether it is, or was cut from, the model that the teacher is.
    """

    untuned: StageResult
    of_teacher: bool


def layer_losses(recipe: Recipe) -> list[Matching]:
    """The losses on layers of a recipe, in order; without any, torch is not needed to say so."""
    if not any(map(is_on_layers, recipe.training.objectives)):
        return []
    from slmops.training.objectives.matching import Matching
    from slmops.training.objectives.weighted import WeightedSum

    terms = WeightedSum.of(recipe.training.objectives).on_layers
    return [term.objective for term in terms if isinstance(term.objective, Matching)]


def layers_key(losses: Sequence[Matching]) -> dict[str, Any]:
    """What of losses decides what is kept, for stage keys; nothing without any."""
    wanted = [{"part": loss.part, **loss.model_dump(mode="json", include={"layers", "count"})} for loss in losses]
    return {LAYERS: wanted} if wanted else {}


@dataclass(frozen=True)
class LayerPlan:
    """What is kept of a teacher, and which layers are paired for each loss."""

    layers: Layers
    pairs: tuple[tuple[LayerPair, ...], ...]

    @classmethod
    def of(
        cls, context: Context, losses: Sequence[Matching], teacher: LocalTeacher, at: Path, learner: Learner, rows: Asked
    ) -> LayerPlan:
        """Pair the layers, and say so and what keeping them takes.

        Args:
            context: Of the run.
            losses: On layers.
            teacher: Ready to be asked.
            at: Its folder.
            learner: The student.
            rows: As student and teacher read them; some tell which layers are alike, where that decides.

        Raises:
            ConfigError: A pair names a layer that there is not, or a loss cannot compare the layers of these models.
            ResourceError: It does not fit on the disk.
        """
        student = learner.untuned.path / MODEL
        theirs, own = Shape.of(at), Shape.of(student)
        _compare(losses, theirs, own)
        kept = learner.untuned.facts.get("kept_layers") if learner.of_teacher else None
        depths = Depths(
            theirs.layers,
            own.layers,
            None if kept is None else tuple(kept),
            lambda: _similarity(context, (teacher, theirs.layers), (student, own.layers), rows),
        )
        pairs = tuple(loss.pairs(depths) for loss in losses)
        for loss, some in zip(losses, pairs, strict=True):
            say(f"  {loss.name}: layers of student ← teacher {describe_pairs(some)}")
        layers = Layers.of((loss.part, number) for loss, some in zip(losses, pairs, strict=True) for _, number in some)
        answer, read = theirs.bytes_kept(layers)
        encoded = [teacher.template.encode(asked) for _, asked in rows]
        size = sum(answer * len(row.answer_ids) + read * len(row.input_ids) for row in encoded) / 1e6
        say(f"  of the teacher's layers: {answer:,} bytes an answer token and {read:,} a token read, about {size:,.0f} MB")
        check_disk(context.workspace.root, 2 * size)  # once in finished chunks, once in the files made of these
        return cls(layers, pairs)

    def keep(self, folder: Path, kept: Iterable[tuple[str, Distribution]], fingerprints: Mapping[str, str]) -> dict[str, Any]:
        """Write what is kept of the layers of rows beside the signals of a folder, and return the facts."""
        from slmops.signals.store import write_signals

        store = write_signals(folder / INTERNALS, kept, {**fingerprints, LAYERS: self.layers.fingerprint})
        pairs = [[list(pair) for pair in own] for own in self.pairs]
        return {LAYERS: {**self.layers.as_dict(), "pairs": pairs, "bytes_per_token": round(store.bytes_per_token, 1)}}


def open_layers(
    signals: StageResult, fingerprints: Mapping[str, str], student: Template, new_ids: np.ndarray | None, rows: Sequence[Row]
) -> MatchedLayers | None:
    """What is kept of the teacher's layers, for a student; ``None`` where nothing is.

    Raises:
        FingerprintError: It was made from something else.
        ConfigError: Teacher and student read the same tokens in no row.
    """
    from slmops.signals.store import SignalStore
    from slmops.teachers.matching import MatchedLayers

    facts = signals.facts.get(LAYERS)
    if facts is None:
        return None
    layers = Layers.read(facts)
    store = SignalStore.open(signals.path / INTERNALS, {**fingerprints, LAYERS: layers.fingerprint})
    pairs = [[(int(own), int(theirs)) for own, theirs in pairs] for pairs in facts["pairs"]]
    matched = MatchedLayers(store, layers, pairs, student, new_ids)
    if rows:
        say(matched.check(rows))
    return matched


def _compare(losses: Sequence[Matching], teacher: Shape, student: Shape) -> None:
    """Try each loss on layers of these shapes, before anything is taken of the teacher."""
    import torch

    from slmops.models.watching import Attended
    from slmops.training.objectives.base import Answers, Matched

    def attended(shape: Shape) -> Attended:
        queries, keys = (torch.zeros(1, 1, count, shape.head) for count in (shape.heads, shape.shared))
        return Attended(queries, keys, keys)

    one, states = torch.zeros(1, dtype=torch.int64), torch.ones(1, teacher.width)
    read = torch.ones(1, 1, dtype=torch.bool)
    matched = Matched(((states, states),), ((attended(student), attended(teacher)),), one, one, read)
    for loss in losses:
        loss(Answers(torch.zeros(1, 0), one, matched=matched))


def _similarity(context: Context, teacher: tuple[LocalTeacher, int], student: tuple[Path, int], rows: Asked) -> np.ndarray:
    """Linear CKA of the hidden states at answer tokens of some rows, ``[student's layers, teacher's layers]``."""
    from slmops.teachers.local import LocalTeacher

    asked, depth = teacher
    folder, own_depth = student
    own = LocalTeacher.load(folder, context.template(folder), "float32")
    some = [(own.template.encode(mine), asked.template.encode(theirs)) for mine, theirs in rows[:: max(1, len(rows) // _ROWS)]]
    alike = [pair for pair in some if len(pair[0].answer_ids) == len(pair[1].answer_ids)][:_ROWS]
    if not alike:
        raise ConfigError(
            "teacher and student split no answer alike, so the similarity of their layers is not known",
            where="training.objectives",
            fix="give layers: uniform",
        )
    return linear_cka(_states(own, [mine for mine, _ in alike], own_depth), _states(asked, [them for _, them in alike], depth))


def _states(model: LocalTeacher, rows: Sequence[Encoded], depth: int) -> list[np.ndarray]:
    """The hidden states that each layer hands on at the first answer tokens of rows, ``[N, H]``."""
    from slmops.signals.forms import TopKForm

    every = Layers(hidden=tuple(range(depth)))
    found = [
        row.hidden * row.scales[..., None]
        for start in range(0, len(rows), _BATCH)
        for row in model.observe(rows[start : start + _BATCH], TopKForm(1), every)[1]
    ]
    joined = np.concatenate(found)[:_POSITIONS]
    return [joined[:, number] for number in range(depth)]
