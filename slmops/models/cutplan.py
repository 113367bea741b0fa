"""A cut before it is made: what stays, and how big and fast that will be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from slmops.models.copying import Copying, describe_copying
from slmops.models.importance import describe_influence
from slmops.models.sizes import BYTES, Anatomy, Precision, Target
from slmops.models.timing import Timing


@dataclass(frozen=True)
class CutPlan:
    """A cut before it is made.

    Args:
        parent: What it is cut from.
        layers: Numbers of the layers that stay.
        vocabulary: Size of the vocabulary.
        tokens: The parent's tokens that stay; ``None``: all.
        needed: Tokens that the texts need; ``None`` where the vocabulary stays.
        target: What it was planned for.
        precision: Of a target of megabytes.
        timing: Times of the parent's parts, where the target is a time.
        influence: Of each layer, where that decided.
        copying: What each layer copies, where that decided.
    """

    parent: Anatomy
    layers: tuple[int, ...]
    vocabulary: int
    tokens: tuple[str, ...] | None = field(repr=False)
    needed: int | None
    target: Target | None
    precision: Precision
    timing: Timing | None
    influence: tuple[float, ...] | None
    copying: tuple[Copying, ...] | None

    def figures(self) -> dict[str, Any]:
        """Of parent and cut: ``layers``, ``vocabulary``, ``parameters``, ``mb`` by precision, ``ms`` (estimated)."""
        both = {"parent": (self.parent.layers, self.parent.vocabulary), "cut": (len(self.layers), self.vocabulary)}
        return {
            name: {
                "layers": layers,
                "vocabulary": vocabulary,
                "parameters": self.parent.parameters(layers, vocabulary),
                "mb": {precision: round(self.parent.megabytes(layers, vocabulary, precision), 2) for precision in BYTES},
                **({"ms": round(self.timing.of(layers, vocabulary), 2)} if self.timing else {}),
            }
            for name, (layers, vocabulary) in both.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON: :meth:`figures`, ``kept_layers``, ``influence``, ``copying``, ``needed_tokens``, ``target``."""
        return {
            **self.figures(),
            "kept_layers": list(self.layers),
            "needed_tokens": self.needed,
            "target": str(self.target) if self.target else None,
            **({"precision": self.precision} if self.target and self.target.unit == "MB" else {}),
            **({"request": str(self.timing.request)} if self.timing else {}),
            **({"influence": [round(value, 5) for value in self.influence]} if self.influence else {}),
            **({"copying": [asdict(layer) for layer in self.copying]} if self.copying else {}),
        }

    def table(self) -> str:
        """For people."""
        names = ["", "layers", "vocabulary", "parameters", *(f"MB {precision}" for precision in BYTES)]
        names += ["ms (estimate)"] if self.timing else []
        lines = [names]
        for name, own in self.figures().items():
            row = [name, f"{own['layers']}", f"{own['vocabulary']:,}", f"{own['parameters']:,}"]
            row += [f"{size:,.1f}" for size in own["mb"].values()]
            lines.append([*row, *([f"{own['ms']:,.1f}"] if self.timing else [])])
        widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        text.append(f"layers kept  {', '.join(map(str, self.layers))}")
        if self.influence is not None:
            text.append(describe_influence(self.influence, self.layers))
        if self.copying is not None:
            text.append(describe_copying(self.copying, self.layers))
        if self.needed is not None:
            text.append(f"tokens       {self.needed:,} needed, {self.vocabulary - self.needed:,} common ones beside")
        if self.timing is not None:
            text.append(f"time         {self.timing.request}, PyTorch, float32, one at a time, on this machine")
        return "\n".join(text)
