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
from slmops.models.layers import Depths, LayerPair, describe_pairs, linear_cka
from slmops.models.load import read_config
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
        cls, context: Context, losses: Sequence[Matching], teacher: LocalTeacher, depth: int, learner: Learner, rows: Asked
    ) -> LayerPlan:
        """Pair the layers, and say so.

        Args:
            context: Of the run.
            losses: On layers.
            teacher: Ready to be asked.
            depth: Layers of the teacher.
            learner: The student.
            rows: As student and teacher read them; some tell which layers are alike, where that decides.

        Raises:
            ConfigError: A pair names a layer that there is not.
        """
        student = learner.untuned.path / MODEL
        kept = learner.untuned.facts.get("kept_layers") if learner.of_teacher else None
        depths = Depths(
            depth,
            layers_in(student),
            None if kept is None else tuple(kept),
            lambda: _similarity(context, teacher, depth, student, rows),
        )
        pairs = tuple(loss.pairs(depths) for loss in losses)
        for loss, own in zip(losses, pairs, strict=True):
            say(f"  {loss.name}: layers of student ← teacher {describe_pairs(own)}")
        wanted = ((loss.part, theirs) for loss, own in zip(losses, pairs, strict=True) for _, theirs in own)
        return cls(Layers.of(wanted), pairs)

    def keep(self, folder: Path, kept: Iterable[tuple[str, Distribution]], fingerprints: Mapping[str, str]) -> dict[str, Any]:
        """Write what is kept of the layers of rows beside the signals of a folder, say its size, and return the facts."""
        from slmops.signals.store import write_signals

        store = write_signals(folder / INTERNALS, kept, {**fingerprints, LAYERS: self.layers.fingerprint})
        size = round(store.bytes_per_token, 1)
        say(f"  of the teacher's layers: {store.size / 1e6:,.1f} MB, {size:,.0f} bytes an answer token")
        pairs = [[list(pair) for pair in own] for own in self.pairs]
        return {LAYERS: {**self.layers.as_dict(), "pairs": pairs, "bytes_per_token": size}}


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


def layers_in(model: Path) -> int:
    """Layers of a model folder."""
    config = read_config(model)
    return int({**config, **(config.get("text_config") or {})}["num_hidden_layers"])


def _similarity(context: Context, teacher: LocalTeacher, depth: int, student: Path, rows: Asked) -> np.ndarray:
    """Linear CKA of the hidden states at answer tokens of some rows, ``[student's layers, teacher's layers]``."""
    from slmops.teachers.local import LocalTeacher

    own = LocalTeacher.load(student, context.template(student), "float32")
    some = [(own.template.encode(mine), teacher.template.encode(theirs)) for mine, theirs in rows[:: max(1, len(rows) // _ROWS)]]
    alike = [pair for pair in some if len(pair[0].answer_ids) == len(pair[1].answer_ids)][:_ROWS]
    if not alike:
        raise ConfigError(
            "teacher and student split no answer alike, so the similarity of their layers is not known",
            where="training.objectives",
            fix="give layers: uniform",
        )
    return linear_cka(
        _states(own, [mine for mine, _ in alike], layers_in(student)), _states(teacher, [theirs for _, theirs in alike], depth)
    )


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
