"""Which layer of a teacher a layer of its student should be like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from slmops.errors import ConfigError
from slmops.models.load import read_config
from slmops.signals.internals import Layers

LayerPair = tuple[int, int]
"""A layer of the student and one of the teacher, from 0."""

LayerChoice = Literal["auto", "uniform", "last", "similarity"] | tuple[LayerPair, ...]
"""A rule for the layers, or the pairs themselves."""


@dataclass(frozen=True)
class Shape:
    """What decides whether layers can be compared, and what they take when they are kept.

    Args:
        layers: Number of layers.
        width: Values a token has between layers.
        heads: Attention heads.
        shared: Those that have keys and values of their own.
        head: Values of a head.
    """

    layers: int
    width: int
    heads: int
    shared: int
    head: int

    @classmethod
    def of(cls, model: Path) -> Shape:
        """That of a model folder.

        Raises:
            ModelError: There is no configuration.
        """
        config = read_config(model)
        text = {**config, **(config.get("text_config") or {})}
        width, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        shared, head = text.get("num_key_value_heads") or heads, text.get("head_dim") or width // heads
        return cls(int(text["num_hidden_layers"]), width, heads, int(shared), int(head))

    def bytes_kept(self, layers: Layers) -> tuple[int, int]:
        """Bytes that these layers take for an answer token, and for every token that is read."""
        attended = 2 * self.head * (self.heads + 2 * self.shared)
        return 4 + len(layers.hidden) * (2 * self.width + 4), 4 + len(layers.attention) * attended


@dataclass(frozen=True)
class Depths:
    """A teacher and a student, as far as their layers can be paired by it.

    Args:
        teacher: Layers of the teacher.
        student: Layers of the student.
        kept: The teacher's layers that the student was cut to; ``None`` where it is another model.
        similarity: Makes the similarity of each layer of the student to each of the teacher, ``[student, teacher]``.
    """

    teacher: int
    student: int
    kept: tuple[int, ...] | None
    similarity: Callable[[], np.ndarray]


def uniform_map(teacher: int, student: int) -> tuple[int, ...]:
    """For each layer of a student the layer of its teacher that stands as far up."""
    return tuple((2 * number + 1) * teacher // (2 * student) for number in range(student))


def choose_pairs(choice: LayerChoice, count: int | None, depths: Depths) -> tuple[LayerPair, ...]:
    """Pairs of layers by a rule.

    ``uniform`` goes by the place, ``last`` counts from the end, ``similarity`` takes the most alike of the maps that
    never go back.
    ``auto`` is ``uniform``, but where the student was cut from the teacher a layer is to hand on what the teacher hands to the
    layer that comes next in the student, the last one what the teacher's last layer does.

    Args:
        choice: A rule, or pairs that are taken as they are.
        count: Layers of the student that are paired, evenly spread, its last always among them; ``None``: all.
        depths: Of both.

    Raises:
        ConfigError: A pair names a layer that there is not.
    """
    if not isinstance(choice, str):
        for own, theirs in choice:
            if not (0 <= own < depths.student and 0 <= theirs < depths.teacher):
                raise ConfigError(
                    f"there is no pair of layers [{own}, {theirs}]",
                    where="layers",
                    fix=f"the student's are 0 to {depths.student - 1}, the teacher's 0 to {depths.teacher - 1}",
                )
        return choice
    if choice == "similarity":
        whole = most_alike(depths.similarity())
    elif choice == "last":
        whole = tuple(max(0, number + depths.teacher - depths.student) for number in range(depths.student))
    elif choice == "auto" and depths.kept is not None:
        whole = (*(following - 1 for following in depths.kept[1:]), depths.teacher - 1)
    else:
        whole = uniform_map(depths.teacher, depths.student)
    some = min(count or depths.student, depths.student)
    chosen = [(number + 1) * depths.student // some - 1 for number in range(some)]
    return tuple((number, whole[number]) for number in chosen)


def most_alike(similarity: np.ndarray) -> tuple[int, ...]:
    """For each row the column, never decreasing, so that the sum of the similarities ``[rows, columns]`` is largest."""
    best, choices = np.zeros(similarity.shape[1]), []
    for row in similarity:
        upto = np.maximum.accumulate(best)
        choices.append([int(np.argmax(best[: column + 1])) for column in range(len(best))])
        best = upto + row
    column = int(np.argmax(best))
    found = [column]
    for before in reversed(choices[1:]):
        column = before[column]
        found.append(column)
    return tuple(reversed(found))


def linear_cka(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> np.ndarray:
    """Linear centered kernel alignment (Kornblith et al. 2019) of each of one list of layers to each of another, from 0 to 1.

    Args:
        left: The vectors of each layer at ``N`` positions, ``[N, H]``.
        right: The same of other layers, at the same positions.
    """
    first, second = (np.stack([_gram(vectors) for vectors in layers]) for layers in (left, right))
    alike: np.ndarray = first @ second.T
    return alike


def _gram(vectors: np.ndarray) -> np.ndarray:
    """The products of all centered vectors with each other as one vector of length 1."""
    centered = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    products: np.ndarray = (centered @ centered.T).ravel()
    products /= max(float(np.linalg.norm(products)), np.finfo(np.float64).tiny)
    return products


def describe_pairs(pairs: Sequence[LayerPair]) -> str:
    """For people, in one line: ``student ← teacher``."""
    words = [f"{own}←{theirs}" for own, theirs in pairs]
    return " ".join(words if len(words) <= 8 else [*words[:4], "…", *words[-3:]])
