"""Make a smaller model of a model: fewer layers and fewer tokens, by hand or to a target; the width is never cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slmops.errors import ModelError
from slmops.models.copying import Copying, copying_layers, copying_of
from slmops.models.cutplan import CutPlan
from slmops.models.depth import cut_depth, uniform_layers
from slmops.models.importance import block_influence, important_layers
from slmops.models.sizes import Anatomy, Precision, Target
from slmops.models.timing import Request, Timing, measure_parts
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.sections import StudentSection

Keep = Literal["first", "uniform", "importance", "copying"] | tuple[int, ...]

_LEAST_LAYERS = 2


@dataclass(frozen=True)
class Wish:
    """What is asked of a cut.

    Args:
        layers: Layers to keep; ``None``: all, or as many as the target allows.
        keep: Which ones: the first, evenly spread ones, those that turn what passes through them most, those that copy, or
            their numbers from 0, in which case ``layers`` is not needed.
        vocabulary: Tokens to keep: ``all``, ``trim`` (what the texts need and a margin of common ones) or how many;
            ``None``: all, or with a target and texts as many as it allows.
        target: How small or fast it shall be, such as ``20MB``; ``None``: as layers and vocabulary say.
        precision: What a target of megabytes is about: the model folder (float32) or a package of 8 or 4 bits.
    """

    layers: int | None = None
    keep: Keep = "first"
    vocabulary: Literal["all", "trim"] | int | None = None
    target: str | None = None
    precision: Precision = "int4"

    @classmethod
    def of(cls, student: StudentSection) -> Wish:
        """What a recipe asks for."""
        return cls(student.layers, student.keep, student.vocabulary, student.target, student.target_precision)

    @property
    def cuts(self) -> bool:
        """Whether anything is asked for."""
        return self.depth is not None or self.target is not None or self.trims

    @property
    def depth(self) -> int | None:
        """How many layers are asked for."""
        return self.layers if isinstance(self.keep, str) else len(self.keep)

    @property
    def trims(self) -> bool:
        """Whether tokens go, and texts are needed that say which."""
        return self.vocabulary not in (None, "all") or (self.vocabulary is None and self.target is not None)


def plan_cut(
    model: Path,
    wish: Wish,
    *,
    rows: Sequence[Sequence[int]] = (),
    request: Request | None = None,
    time_parts: Callable[[Path, Request], Timing] = measure_parts,
) -> CutPlan:
    """Choose layers and tokens.

    With a target the vocabulary goes first, as it costs no layer: to what the texts need and a margin of common tokens.
    Then as many layers as the target allows stay, and what is left of it goes to more common tokens. Where not even two
    layers fit, the margin shrinks.

    Args:
        model: Folder of the model to cut.
        wish: What is asked for.
        rows: Token ids of texts, which say what tokens are needed and which layers matter; of training texts, never of
            test texts. Without them the vocabulary stays whole unless a number of tokens is asked for.
        request: What a target in milliseconds is about.
        time_parts: Times a model's parts, for a target in milliseconds.

    Raises:
        ConfigError: The target cannot be read.
        ModelError: The target cannot be reached, and what can be; or there are not so many layers or tokens.
    """
    anatomy = Anatomy.of(model)
    target = Target.parse(wish.target) if wish.target is not None else None
    if wish.depth is not None and wish.depth > anatomy.layers:
        what = f"there are {anatomy.layers} layers, not {wish.depth}"
        raise ModelError(what, where=str(model), fix=f"give 2 to {anatomy.layers}")
    if not isinstance(wish.keep, str) and wish.keep[-1] >= anatomy.layers:
        raise ModelError(f"there is no layer {wish.keep[-1]}", where=str(model), fix=f"the last one is {anatomy.layers - 1}")
    if wish.vocabulary == "trim" and not rows:
        raise ModelError("no text says which tokens are needed", where="vocabulary: trim", fix="give rows: --data FILE")
    trims = wish.trims and (bool(rows) or isinstance(wish.vocabulary, int))
    order = Vocabulary.of(model, (token for row in rows for token in row)) if trims else None
    timing = time_parts(model, request or Request()) if target is not None and target.unit == "ms" else None

    def size(layers: int, vocabulary: int) -> float:
        if timing is not None:
            return timing.of(layers, vocabulary)
        if target is not None and target.unit == "MB":
            return anatomy.megabytes(layers, vocabulary, wish.precision)
        return anatomy.parameters(layers, vocabulary)

    layers, vocabulary = _shape(anatomy, wish, order, target, size)
    kept, influence, copying = _kept(model, wish.keep, anatomy.layers, layers, rows)
    whole = order is None or vocabulary == anatomy.vocabulary
    return CutPlan(
        anatomy,
        tuple(kept),
        vocabulary,
        None if order is None or whole else order.first(vocabulary),
        None if order is None or whole else order.smallest,
        target,
        wish.precision,
        timing,
        influence,
        copying,
    )


def cut_model(source: Path, target: Path, plan: CutPlan, work: Path) -> None:
    """Write the planned cut of the model ``source`` to ``target``.

    Args:
        source: The folder that was planned for.
        target: Folder to write to; made if it does not exist.
        plan: Of :func:`plan_cut`.
        work: Folder for what lies between the two cuts; it is left empty.

    Raises:
        ModelError: The model's layers or tokens cannot be told from its files.
    """
    if plan.tokens is None:
        cut_depth(source, target, plan.layers)
        return
    between = work / "shallow"
    shutil.rmtree(between, ignore_errors=True)
    if len(plan.layers) < plan.parent.layers:
        cut_depth(source, between, plan.layers)
    trim_vocabulary(between if between.is_dir() else source, target, plan.tokens)
    shutil.rmtree(between, ignore_errors=True)


def _shape(
    anatomy: Anatomy, wish: Wish, order: Vocabulary | None, target: Target | None, size: Callable[[int, int], float]
) -> tuple[int, int]:
    """Layers and tokens that stay."""
    asked = wish.vocabulary if isinstance(wish.vocabulary, int) else None
    least, usual, most = (order.smallest, order.usual(), order.largest) if order else (anatomy.vocabulary,) * 3
    if asked is not None and order is not None:
        order.first(asked)
        least = usual = most = asked
    if target is None:
        return wish.depth or anatomy.layers, usual
    deepest = wish.depth or anatomy.layers
    if wish.vocabulary == "trim":
        most = usual
    elif asked is None and size(deepest, anatomy.vocabulary) <= target.value:
        return deepest, anatomy.vocabulary
    fewest = wish.depth or min(_LEAST_LAYERS, anatomy.layers)
    possible = range(fewest, deepest + 1)
    layers = max((number for number in possible if size(number, usual) <= target.value), default=fewest)
    if size(layers, least) > target.value:
        raise ModelError(
            f"{target} cannot be reached: the smallest cut has {layers} layers, {least:,} tokens and "
            f"{_said(size(layers, least), target)}",
            where="target",
            fix=_advice(order, wish),
        )
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if size(layers, middle) <= target.value else (least, middle - 1)
    return layers, least


def _said(value: float, target: Target) -> str:
    return str(Target(target.unit, round(value) if target.unit == "parameters" else round(value, 2)))


def _advice(order: Vocabulary | None, wish: Wish) -> str:
    if order is None and wish.vocabulary is None:
        return "give rows with --data, so that the vocabulary is cut too; or a larger target, or a smaller model"
    return "give a larger target, or a smaller model; its width is not cut"


def _kept(
    model: Path, keep: Keep, total: int, layers: int, rows: Sequence[Sequence[int]]
) -> tuple[list[int], tuple[float, ...] | None, tuple[Copying, ...] | None]:
    """The layers, and what was measured of all to choose them."""
    if not isinstance(keep, str):
        return list(keep), None, None
    if layers == total:
        return list(range(total)), None, None
    if keep == "importance":
        influence = block_influence(model, rows)
        return important_layers(influence, layers), tuple(influence), None
    if keep == "copying":
        copying = copying_of(model)
        return copying_layers(copying, layers), None, tuple(copying)
    return (uniform_layers(total, layers) if keep == "uniform" else list(range(layers))), None, None
