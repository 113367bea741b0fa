"""Models compared by how well they foresee plain texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slmops.data.textfiles import read_whole_text
from slmops.errors import DataError, UsageError
from slmops.evaluation.formats import score
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.outputs import Loss
from slmops.evaluation.perplexity import KINDS, text_losses
from slmops.evaluation.stats import estimate, paired
from slmops.evaluation.subjects import Subject
from slmops.evaluation.tally import Tally
from slmops.progress import progress

_LEAST_WINDOWS = 2


@dataclass(frozen=True)
class TextOptions:
    """How texts are read.

    Args:
        context: Tokens that a model sees at once; ``None``: 1,024, or the model's own context where that is shorter.
        stride: Tokens that a window adds; ``None``: half the context.
        most_tokens: The first ones of every file alone; ``None``: all.
        confidence: Of the intervals.
    """

    context: int | None = None
    stride: int | None = None
    most_tokens: int | None = None
    confidence: float = 0.95


def read_texts(files: Sequence[Path]) -> list[str]:
    """The texts of files in UTF-8.

    Raises:
        DataError: One cannot be read, or is empty.
    """
    return [read_whole_text(file) for file in files]


def compare_on_texts(subjects: Sequence[Subject], texts: Sequence[str], options: TextOptions) -> dict[str, Any]:
    """Perplexities of models with their intervals, and how the first differs from the others.

    An interval is from the windows as rows. A difference is paired where both models read the same windows, which takes the
    same tokenizer; else only the figures by the byte can be compared, and there is none.

    Raises:
        UsageError: A model is none whose probabilities can be read here.
        DataError: The texts are too short for an interval.
    """
    measured = {subject.name: _losses(subject, texts, options) for subject in subjects}
    tallies = {name: {kind: Tally(np.asarray(rows), of) for kind, of in KINDS.items()} for name, rows in measured.items()}
    first, *others = measured
    same = [other for other in others if [rows[1:] for rows in measured[first]] == [rows[1:] for rows in measured[other]]]
    return {
        "models": [
            {
                "name": name,
                "tokens": sum(tokens for _, tokens, _ in measured[name]),
                "bytes": sum(size for _, _, size in measured[name]),
                "windows": len(measured[name]),
                **{kind: _with_interval(tally, options.confidence) for kind, tally in own.items()},
            }
            for name, own in tallies.items()
        ],
        "differences": [
            {
                "a": first,
                "b": other,
                **{kind: _difference(tallies[first][kind], tallies[other][kind], options.confidence) for kind in KINDS},
            }
            for other in same
        ],
        "confidence": options.confidence,
    }


def render_table(found: Mapping[str, Any]) -> str:
    """The figures as plain text, a line a model."""
    titles = {kind: MEASURES[kind].title for kind in KINDS}
    width = max(len(model["name"]) for model in found["models"])
    lines = [f"{'':<{width}}  {'tokens':>9}  " + "  ".join(f"{title:<28}" for title in titles.values())]
    for model in found["models"]:
        cells = [f"{score(model[kind]['value'])} [{', '.join(map(score, model[kind]['interval']))}]" for kind in KINDS]
        lines.append(f"{model['name']:<{width}}  {model['tokens']:>9,}  " + "  ".join(f"{cell:<28}" for cell in cells))
    for one in found["differences"]:
        bits = one["bits_per_byte"]
        low, high = bits["interval"]
        word = {"better": "worse", "worse": "better"}.get(bits["word"], bits["word"])  # fewer bits are better
        lines.append(f"{one['a']} less {one['b']}: {bits['value']:+.4f} bits a byte [{low:+.4f}, {high:+.4f}], {word}")
    lines.append(f"[ ] is the {100 * found['confidence']:g} % interval over windows of text.")
    return "\n".join(line.rstrip() for line in lines)


def _losses(subject: Subject, texts: Sequence[str], options: TextOptions) -> list[Loss]:
    from slmops.models.load import context_length, load_model, load_tokenizer

    if subject.path is None or subject.runtime != "torch":
        raise UsageError(
            f"{subject.name} gives no probabilities of given texts",
            where=subject.reference,
            fix="name a model folder in Hugging Face layout, a catalogue name or a .gguf file",
        )
    context = options.context or min(context_length(subject.path), 1024)
    model, tokenizer = load_model(subject.path, dtype="float32").eval(), load_tokenizer(subject.path)
    total = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"][: options.most_tokens]) for text in texts)
    with progress(f"perplexity of {subject.name}", total, "tokens") as advance:
        found = [
            loss
            for text in texts
            for loss in text_losses(
                model,
                tokenizer,
                text,
                context=context,
                stride=options.stride,
                most_tokens=options.most_tokens,
                advance=advance,
            )
        ]
    if len(found) < _LEAST_WINDOWS:
        raise DataError("the text is too short for an interval", fix="give more text, or a shorter --context")
    return found


def _with_interval(tally: Tally, confidence: float) -> dict[str, Any]:
    found = estimate(tally, confidence)
    return {"value": found.value, "interval": list(found.interval)}


def _difference(a: Tally, b: Tally, confidence: float) -> dict[str, Any]:
    found = paired(a, b, confidence)
    return {"value": found.value, "interval": list(found.interval), "word": found.word}
