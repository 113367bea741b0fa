"""The table of a teacher and a student side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slmops.models.layers import describe_pairs

Tokenizers = Literal["same", "same with padding", "student's is a part", "teacher's is a part", "different"]
"""How two tokenizers relate; *with padding*: the embedding of one has more rows than there are tokens."""

BY_POSITION: tuple[Tokenizers, ...] = ("same", "same with padding", "student's is a part")
"""Those with which a position of the teacher's answer is a position of the student's."""

_WORDS: Mapping[Tokenizers, str] = {
    "same": "the same",
    "same with padding": "the same; the embeddings have different numbers of rows, the further ones stand for no token",
    "student's is a part": "the student's is a part of the teacher's, under other numbers",
    "teacher's is a part": "the teacher's is a part of the student's",
    "different": "different",
}


@dataclass(frozen=True)
class Side:
    """One of the two.

    Args:
        name: As it was given.
        kind: ``model_type`` of its configuration.
        parameters: Number of weights.
        tokens: Number of tokens.
        rows: Rows of its embedding.
        template: Name of its chat template's format.
        context: Prompt and answer together, in tokens.
        layers: Number of layers.
        width: Values a token has between layers.
        heads: Attention heads.
    """

    name: str
    kind: str
    parameters: int
    tokens: int
    rows: int
    template: str
    context: int
    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class Objective:
    """A kind of objective, whether it is possible, and why, or what it takes."""

    name: str
    possible: bool
    why: str


@dataclass(frozen=True)
class Pairing:
    """A teacher and a student side by side.

    Args:
        teacher: The one.
        student: The other.
        tokenizers: How they relate.
        shared: Share of the student's tokens whose text is a token of the teacher's too.
        alike: Share of a few sample texts that both split into the same pieces.
        templates: Whether both chat templates render a question alike.
        layer_map: For each layer of the student, the layer of the teacher that stands as far up.
        objectives: What follows.
    """

    teacher: Side
    student: Side
    tokenizers: Tokenizers
    shared: float
    alike: float
    templates: bool
    layer_map: tuple[int, ...]
    objectives: tuple[Objective, ...]

    @property
    def by_position(self) -> bool:
        """Whether the student can learn from the teacher's distributions, position by position."""
        return self.tokenizers in BY_POSITION

    @property
    def rule(self) -> str:
        """What the student learns from, in a sentence with its reason."""
        if self.tokenizers in ("same", "same with padding"):
            return "The tokenizers are the same: the student learns from the teacher's distributions and from its answers."
        if self.tokenizers == "student's is a part":
            return (
                "The student's tokens are a part of the teacher's: it learns from the teacher's distributions; what they hold for "
                "tokens it lacks goes to the tail, and rows whose answer it splits otherwise teach by their answer alone."
            )
        return (
            "The tokenizers differ, so a position of one is none of the other: the student learns from the teacher's answers as "
            "text, and from its distributions by ULD alone, which compares their shapes and not their tokens."
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "layer_map": list(self.layer_map), "rule": self.rule}

    def table(self) -> str:
        """For people."""
        teacher, student = self.teacher, self.student
        layer_map = describe_pairs(tuple(enumerate(self.layer_map)))
        rows = [
            ("", "teacher", "student", ""),
            ("model", teacher.name, student.name, ""),
            ("kind", teacher.kind, student.kind, ""),
            ("parameters", f"{teacher.parameters:,}", f"{student.parameters:,}", _times(teacher.parameters, student.parameters)),
            ("tokens", f"{teacher.tokens:,}", f"{student.tokens:,}", f"{self.shared:.0%} of the student's are the teacher's too"),
            ("embedding rows", f"{teacher.rows:,}", f"{student.rows:,}", ""),
            ("chat template", teacher.template, student.template, "the same" if self.templates else "different"),
            ("context", f"{teacher.context:,}", f"{student.context:,}", f"{min(teacher.context, student.context):,} for both"),
            (
                "layers",
                f"{teacher.layers}",
                f"{student.layers}",
                f"student ← teacher: {layer_map}",
            ),
            ("width", f"{teacher.width:,}", f"{student.width:,}", _alike(teacher.width, student.width, "needs a projection")),
            ("heads", f"{teacher.heads}", f"{student.heads}", _alike(teacher.heads, student.heads, "relations, not maps")),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows
        ]
        lines.append(f"tokenizers: {_WORDS[self.tokenizers]}; {self.alike:.0%} of sample texts are split alike")
        width = max(len(objective.name) for objective in self.objectives)
        lines += [f"  {'yes' if one.possible else 'no ':<3}  {one.name:<{width}}  {one.why}" for one in self.objectives]
        return "\n".join([*lines, self.rule])


def _times(teacher: int, student: int) -> str:
    return f"{teacher / student:.1f} times smaller" if teacher >= student else "the student is the larger one"


def _alike(left: int, right: int, otherwise: str) -> str:
    return "the same" if left == right else otherwise
